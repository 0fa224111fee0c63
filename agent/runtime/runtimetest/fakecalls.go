package runtimetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"perch/agent/runtime"
)

func digest(s string) [32]byte { return sha256.Sum256([]byte(s)) }

// RunPodSandbox implements runtime.Pods.
func (f *Fake) RunPodSandbox(_ context.Context, config *cri.PodSandboxConfig, handler string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fault("RunPodSandbox"); err != nil {
		return "", err
	}
	if config.GetMetadata() == nil {
		return "", fmt.Errorf("run pod: the sandbox config must have metadata")
	}
	if handler != "" && handler != "runc" {
		return "", fmt.Errorf("run pod %s: no runtime for %q is configured", config.Metadata.Name, handler)
	}
	for _, p := range f.pods {
		if m := p.config.Metadata; m.Name == config.Metadata.Name && m.Namespace == config.Metadata.Namespace && m.Uid == config.Metadata.Uid && m.Attempt == config.Metadata.Attempt {
			return "", fmt.Errorf("run pod %s: %w", m.Name, runtime.ErrExists)
		}
	}
	f.sandboxes++
	p := &pod{id: newID(), config: config, handler: handler, ready: true, created: time.Now()}
	if config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() != cri.NamespaceMode_NODE {
		p.ip = fmt.Sprintf("10.88.%d.%d", f.sandboxes>>8&255, f.sandboxes&255)
		if f.cfg.PodIP != nil {
			p.ip = f.cfg.PodIP(f.sandboxes)
		}
	}
	f.pods[p.id] = p
	f.emit(cri.ContainerEventType_CONTAINER_CREATED_EVENT, p.id, p)
	f.emit(cri.ContainerEventType_CONTAINER_STARTED_EVENT, p.id, p)
	return p.id, nil
}

func (f *Fake) containersOf(p *pod) []*container {
	var out []*container
	for _, c := range f.containers {
		if c.pod == p {
			out = append(out, c)
		}
	}
	return out
}

// StopPodSandbox implements runtime.Pods.
func (f *Fake) StopPodSandbox(_ context.Context, id string) error {
	f.mu.Lock()
	if err := f.fault("StopPodSandbox"); err != nil {
		f.mu.Unlock()
		return err
	}
	p := f.pods[id]
	if p == nil || !p.ready {
		f.mu.Unlock()
		return nil
	}
	running := f.containersOf(p)
	f.mu.Unlock()
	for _, c := range running {
		f.end(c.id, 137, "")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p.ready = false
	f.emit(cri.ContainerEventType_CONTAINER_STOPPED_EVENT, id, p)
	return nil
}

// RemovePodSandbox implements runtime.Pods.
func (f *Fake) RemovePodSandbox(ctx context.Context, id string) error {
	if err := f.StopPodSandbox(ctx, id); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fault("RemovePodSandbox"); err != nil {
		return err
	}
	p := f.pods[id]
	if p == nil {
		return nil
	}
	for _, c := range f.containersOf(p) {
		delete(f.containers, c.id)
		f.emit(cri.ContainerEventType_CONTAINER_DELETED_EVENT, c.id, p)
	}
	delete(f.pods, id)
	f.emit(cri.ContainerEventType_CONTAINER_DELETED_EVENT, id, p)
	return nil
}

func (p *pod) state() cri.PodSandboxState {
	if p.ready {
		return cri.PodSandboxState_SANDBOX_READY
	}
	return cri.PodSandboxState_SANDBOX_NOTREADY
}

func (p *pod) status() *cri.PodSandboxStatus {
	return &cri.PodSandboxStatus{Id: p.id, Metadata: p.config.Metadata, State: p.state(), CreatedAt: p.created.UnixNano(),
		Network: &cri.PodSandboxNetworkStatus{Ip: p.ip}, Labels: p.config.Labels, Annotations: p.config.Annotations, RuntimeHandler: p.handler}
}

// PodSandboxStatus implements runtime.Pods.
func (f *Fake) PodSandboxStatus(_ context.Context, id string) (*cri.PodSandboxStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fault("PodSandboxStatus"); err != nil {
		return nil, err
	}
	if p := f.pods[id]; p != nil {
		return p.status(), nil
	}
	return nil, fmt.Errorf("read pod %s: %w", id, runtime.ErrNotFound)
}

// ListPodSandbox implements runtime.Pods.
func (f *Fake) ListPodSandbox(_ context.Context, q *cri.PodSandboxFilter) ([]*cri.PodSandbox, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fault("ListPodSandbox"); err != nil {
		return nil, err
	}
	var out []*cri.PodSandbox
	for _, p := range f.pods {
		if q.GetId() != "" && q.GetId() != p.id || q.GetState() != nil && q.GetState().State != p.state() || !matches(q.GetLabelSelector(), p.config.Labels) {
			continue
		}
		out = append(out, &cri.PodSandbox{Id: p.id, Metadata: p.config.Metadata, State: p.state(), CreatedAt: p.created.UnixNano(),
			Labels: p.config.Labels, Annotations: p.config.Annotations, RuntimeHandler: p.handler})
	}
	slices.SortFunc(out, func(a, b *cri.PodSandbox) int { return int(a.CreatedAt - b.CreatedAt) })
	return out, nil
}

func matches(want, have map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

// CreateContainer implements runtime.Containers.
func (f *Fake) CreateContainer(_ context.Context, podID string, config *cri.ContainerConfig, sandbox *cri.PodSandboxConfig) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fault("CreateContainer"); err != nil {
		return "", err
	}
	p := f.pods[podID]
	if p == nil {
		return "", fmt.Errorf("create container: pod %s: %w", podID, runtime.ErrNotFound)
	}
	if f.images[normalize(config.GetImage().GetImage())] == nil {
		return "", fmt.Errorf("create container: image %q: %w", config.GetImage().GetImage(), runtime.ErrNotFound)
	}
	for _, c := range f.containersOf(p) {
		if c.config.Metadata.Name == config.Metadata.Name && c.config.Metadata.Attempt == config.Metadata.Attempt {
			return "", fmt.Errorf("create container %s: %w", config.Metadata.Name, runtime.ErrExists)
		}
	}
	c := &container{id: newID(), pod: p, config: config, created: time.Now(), log: &logFile{}, ended: make(chan struct{})}
	if sandbox.GetLogDirectory() != "" && config.GetLogPath() != "" {
		c.log.path = filepath.Join(sandbox.LogDirectory, config.LogPath)
	}
	f.containers[c.id] = c
	f.emit(cri.ContainerEventType_CONTAINER_CREATED_EVENT, c.id, p)
	return c.id, nil
}

// StartContainer implements runtime.Containers.
func (f *Fake) StartContainer(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fault("StartContainer"); err != nil {
		return err
	}
	c := f.containers[id]
	if c == nil {
		return fmt.Errorf("start container %s: %w", id, runtime.ErrNotFound)
	}
	if c.state != cri.ContainerState_CONTAINER_CREATED {
		return fmt.Errorf("start container %s: %w: it is in %s state", id, runtime.ErrState, c.state)
	}
	args := append(slices.Clone(c.config.Command), c.config.Args...)
	run, ok := f.lookup(normalize(c.config.Image.Image), args)
	if !ok {
		c.state, c.code, c.reason, c.finished = cri.ContainerState_CONTAINER_EXITED, 128, "StartError", time.Now()
		c.message = fmt.Sprintf("exec: %q: executable file not found in $PATH", args)
		close(c.ended)
		return fmt.Errorf("start container %s: %s", id, c.message)
	}
	if err := c.log.reopen(); err != nil {
		return fmt.Errorf("start container %s: %w", id, err)
	}
	ctx, kill := context.WithCancel(context.Background())
	c.kill, c.signals = kill, make(chan syscall.Signal, 16)
	c.state, c.started = cri.ContainerState_CONTAINER_RUNNING, time.Now()
	outR, outW := io.Pipe()
	errR, errW := io.Pipe()
	inR, inW := io.Pipe()
	if !c.config.Stdin {
		_ = inW.Close()
	}
	c.stdin = inW
	var pumps sync.WaitGroup
	pumps.Go(func() { c.log.pump("stdout", outR) })
	pumps.Go(func() { c.log.pump("stderr", errR) })
	p := &Process{Ctx: ctx, Args: args, Env: env(c.config), Stdin: inR, Stdout: outW, Stderr: errW, Signals: c.signals}
	f.running.Go(func() {
		code := int32(run(p))
		_, _ = outW.Close(), errW.Close()
		pumps.Wait()
		c.log.close()
		killed := ctx.Err() != nil
		kill()
		f.mu.Lock()
		defer f.mu.Unlock()
		switch {
		case c.forced != nil:
			code = *c.forced
		case killed:
			code = 137
		}
		c.state, c.code, c.finished, c.reason = cri.ContainerState_CONTAINER_EXITED, code, time.Now(), c.why
		if c.reason == "" {
			c.reason = map[bool]string{true: "Completed", false: "Error"}[code == 0]
		}
		close(c.ended)
		f.emit(cri.ContainerEventType_CONTAINER_STOPPED_EVENT, c.id, c.pod)
	})
	f.emit(cri.ContainerEventType_CONTAINER_STARTED_EVENT, c.id, c.pod)
	return nil
}

func env(c *cri.ContainerConfig) map[string]string {
	out := map[string]string{"PATH": "/bin"}
	for _, e := range c.Envs {
		out[e.Key] = string(e.Value)
	}
	return out
}

// StopContainer implements runtime.Containers.
func (f *Fake) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	f.mu.Lock()
	if err := f.fault("StopContainer"); err != nil {
		f.mu.Unlock()
		return err
	}
	c := f.containers[id]
	if c == nil || c.state != cri.ContainerState_CONTAINER_RUNNING {
		f.mu.Unlock()
		return nil
	}
	if grace > 0 {
		select {
		case c.signals <- syscall.SIGTERM:
		default: // a program that reads no signals
		}
	}
	f.mu.Unlock()
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-c.ended:
	case <-t.C:
		f.end(id, 137, "")
	case <-ctx.Done():
		return fmt.Errorf("stop container %s: %w", id, ctx.Err())
	}
	return nil
}

// RemoveContainer implements runtime.Containers.
func (f *Fake) RemoveContainer(_ context.Context, id string) error {
	f.mu.Lock()
	err, c := f.fault("RemoveContainer"), f.containers[id]
	f.mu.Unlock()
	if err != nil || c == nil {
		return err
	}
	f.end(id, 137, "")
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.containers, id)
	delete(f.usage, id)
	f.emit(cri.ContainerEventType_CONTAINER_DELETED_EVENT, id, c.pod)
	return nil
}

func (c *container) status() *cri.ContainerStatus {
	st := &cri.ContainerStatus{Id: c.id, Metadata: c.config.Metadata, State: c.state, CreatedAt: c.created.UnixNano(), ExitCode: c.code,
		Image: c.config.Image, ImageRef: c.config.Image.Image, Reason: c.reason, Message: c.message, Labels: c.config.Labels,
		Annotations: c.config.Annotations, Mounts: c.config.Mounts, LogPath: c.log.path}
	if !c.started.IsZero() {
		st.StartedAt = c.started.UnixNano()
	}
	if !c.finished.IsZero() {
		st.FinishedAt = c.finished.UnixNano()
	}
	if r := c.config.GetLinux().GetResources(); r != nil {
		st.Resources = &cri.ContainerResources{Linux: r}
	}
	return st
}

// ListContainers implements runtime.Containers.
func (f *Fake) ListContainers(_ context.Context, q *cri.ContainerFilter) ([]*cri.Container, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fault("ListContainers"); err != nil {
		return nil, err
	}
	var out []*cri.Container
	for _, c := range f.containers {
		if q.GetId() != "" && q.GetId() != c.id || q.GetPodSandboxId() != "" && q.GetPodSandboxId() != c.pod.id ||
			q.GetState() != nil && q.GetState().State != c.state || !matches(q.GetLabelSelector(), c.config.Labels) {
			continue
		}
		out = append(out, &cri.Container{Id: c.id, PodSandboxId: c.pod.id, Metadata: c.config.Metadata, Image: c.config.Image,
			ImageRef: c.config.Image.Image, State: c.state, CreatedAt: c.created.UnixNano(), Labels: c.config.Labels, Annotations: c.config.Annotations})
	}
	slices.SortFunc(out, func(a, b *cri.Container) int { return int(a.CreatedAt - b.CreatedAt) })
	return out, nil
}

// ContainerStatus implements runtime.Containers.
func (f *Fake) ContainerStatus(_ context.Context, id string) (*cri.ContainerStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fault("ContainerStatus"); err != nil {
		return nil, err
	}
	if c := f.containers[id]; c != nil {
		return c.status(), nil
	}
	return nil, fmt.Errorf("read container %s: %w", id, runtime.ErrNotFound)
}

// UpdateContainerResources implements runtime.Containers.
func (f *Fake) UpdateContainerResources(_ context.Context, id string, r *cri.ContainerResources) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fault("UpdateContainerResources"); err != nil {
		return err
	}
	c := f.containers[id]
	if c == nil {
		return fmt.Errorf("resize container %s: %w", id, runtime.ErrNotFound)
	}
	if c.config.Linux == nil {
		c.config.Linux = &cri.LinuxContainerConfig{}
	}
	c.config.Linux.Resources = r.GetLinux()
	return nil
}

// ReopenContainerLog implements runtime.Containers.
func (f *Fake) ReopenContainerLog(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fault("ReopenContainerLog"); err != nil {
		return err
	}
	c := f.containers[id]
	if c == nil {
		return fmt.Errorf("reopen log of container %s: %w", id, runtime.ErrNotFound)
	}
	if c.state != cri.ContainerState_CONTAINER_RUNNING {
		return fmt.Errorf("reopen log of container %s: %w", id, runtime.ErrState)
	}
	return c.log.reopen()
}

// ContainerStats implements runtime.Containers.
func (f *Fake) ContainerStats(_ context.Context, id string) (*cri.ContainerStats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fault("ContainerStats"); err != nil {
		return nil, err
	}
	if f.containers[id] == nil {
		return nil, fmt.Errorf("read usage of container %s: %w", id, runtime.ErrNotFound)
	}
	return f.stats(f.containers[id]), nil
}

func (f *Fake) stats(c *container) *cri.ContainerStats {
	st := &cri.ContainerStats{Attributes: &cri.ContainerAttributes{Id: c.id, Metadata: c.config.Metadata, Labels: c.config.Labels, Annotations: c.config.Annotations}}
	now := time.Now().UnixNano()
	st.Cpu = &cri.CpuUsage{Timestamp: now, UsageCoreNanoSeconds: &cri.UInt64Value{}}
	st.Memory = &cri.MemoryUsage{Timestamp: now, WorkingSetBytes: &cri.UInt64Value{}}
	if u := f.usage[c.id]; u != nil {
		st.Cpu, st.Memory = u.Cpu, u.Memory
	}
	return st
}

// ListContainerStats implements runtime.Containers.
func (f *Fake) ListContainerStats(_ context.Context, q *cri.ContainerStatsFilter) ([]*cri.ContainerStats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fault("ListContainerStats"); err != nil {
		return nil, err
	}
	var out []*cri.ContainerStats
	for _, c := range f.containers {
		if c.state == cri.ContainerState_CONTAINER_RUNNING && (q.GetId() == "" || q.GetId() == c.id) &&
			(q.GetPodSandboxId() == "" || q.GetPodSandboxId() == c.pod.id) && matches(q.GetLabelSelector(), c.config.Labels) {
			out = append(out, f.stats(c))
		}
	}
	return out, nil
}

// ExecSync implements runtime.Streams.
func (f *Fake) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (runtime.ExecResult, error) {
	f.mu.Lock()
	err, c, answer := f.fault("ExecSync"), f.containers[id], f.exec
	var run Program
	var found bool
	if c != nil {
		run, found = f.lookup("", cmd)
	}
	f.mu.Unlock()
	switch {
	case err != nil:
		return runtime.ExecResult{}, err
	case c == nil:
		return runtime.ExecResult{}, fmt.Errorf("exec in container %s: %w", id, runtime.ErrNotFound)
	case !f.isRunning(id):
		return runtime.ExecResult{}, fmt.Errorf("exec in container %s: %w", id, runtime.ErrState)
	case answer != nil:
		return answer(id, cmd)
	case !found:
		return runtime.ExecResult{}, fmt.Errorf("exec in container %s: %q: executable file not found in $PATH", id, cmd)
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	var out, errOut bytes.Buffer
	code := run(&Process{Ctx: ctx, Args: cmd, Env: env(c.config), Stdin: bytes.NewReader(nil), Stdout: &out, Stderr: &errOut})
	if ctx.Err() != nil {
		return runtime.ExecResult{}, fmt.Errorf("exec in container %s: %w", id, runtime.ErrTimeout)
	}
	return runtime.ExecResult{Stdout: out.Bytes(), Stderr: errOut.Bytes(), ExitCode: int32(code)}, nil
}

func (f *Fake) isRunning(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.containers[id] != nil && f.containers[id].state == cri.ContainerState_CONTAINER_RUNNING
}

// ListImages implements runtime.Images.
func (f *Fake) ListImages(context.Context) ([]*cri.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*cri.Image
	for key, img := range f.images {
		if key == img.Id {
			out = append(out, img)
		}
	}
	slices.SortFunc(out, func(a, b *cri.Image) int { return bytes.Compare([]byte(a.Id), []byte(b.Id)) })
	return out, f.fault("ListImages")
}

// ImageStatus implements runtime.Images.
func (f *Fake) ImageStatus(_ context.Context, image *cri.ImageSpec) (*cri.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.images[normalize(image.GetImage())], f.fault("ImageStatus")
}

// PullImage implements runtime.Images.
func (f *Fake) PullImage(ctx context.Context, image *cri.ImageSpec, auth *cri.AuthConfig, _ *cri.PodSandboxConfig) (string, error) {
	f.mu.Lock()
	err := f.fault("PullImage")
	f.mu.Unlock()
	if err != nil {
		return "", err
	}
	if f.cfg.Pull == nil {
		return "", fmt.Errorf("pull image %s: %w", image.GetImage(), runtime.ErrNotFound)
	}
	if err := f.cfg.Pull(ctx, image.GetImage(), auth); err != nil {
		return "", fmt.Errorf("pull image %s: %w", image.GetImage(), err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.addImage(image.GetImage()).RepoDigests[0], nil
}

// RemoveImage implements runtime.Images.
func (f *Fake) RemoveImage(_ context.Context, image *cri.ImageSpec) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fault("RemoveImage"); err != nil {
		return err
	}
	img := f.images[normalize(image.GetImage())]
	for key, have := range f.images {
		if have == img {
			delete(f.images, key)
		}
	}
	return nil
}

// ImageFsInfo implements runtime.Images.
func (f *Fake) ImageFsInfo(context.Context) (*cri.ImageFsInfoResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var used uint64
	for key, img := range f.images {
		if key == img.Id {
			used += img.Size
		}
	}
	return &cri.ImageFsInfoResponse{ImageFilesystems: []*cri.FilesystemUsage{{Timestamp: time.Now().UnixNano(), FsId: &cri.FilesystemIdentifier{Mountpoint: "/"}, UsedBytes: &cri.UInt64Value{Value: used}, InodesUsed: &cri.UInt64Value{}}}}, f.fault("ImageFsInfo")
}

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"perch/agent/image"
	"perch/agent/pod"
	"perch/agent/runtime"
	"perch/controlplane/event"
)

// act carries out one step. It may run beside others of the same pod, so it
// uses only what it is given and what never changes.
func (w *worker) act(ctx context.Context, step pod.Step, want *corev1.Pod, have pod.Observed) error {
	rt := w.agent.parts.Runtime
	switch step.Verb {
	case pod.Prepare:
		return w.prepare(ctx, want, have)
	case pod.StartSandbox:
		return w.startSandbox(ctx, step, want, have)
	case pod.StopSandbox:
		if step.Reason != "" {
			w.event(event.Normal, "", step.Reason, step.Message)
		}
		return rt.StopPodSandbox(ctx, step.ID)
	case pod.RemoveSandbox:
		if err := rt.StopPodSandbox(ctx, step.ID); err != nil {
			return err
		}
		return rt.RemovePodSandbox(ctx, step.ID)
	case pod.StartContainer:
		return w.startContainer(ctx, step, want, have)
	case pod.StopContainer:
		return w.stopContainer(ctx, step, want, have)
	case pod.RemoveContainer:
		return rt.RemoveContainer(ctx, step.ID)
	case pod.Release:
		return w.release(ctx, have)
	case pod.Delete:
		return w.delete(ctx, want)
	case pod.Clean:
		return w.clean()
	case verbRefresh:
		return w.agent.volumes.Refresh(ctx, want, w.agent.facts(ipsOf(have)))
	}
	panic("BUG: step without an act: " + string(step.Verb))
}

func (w *worker) prepare(ctx context.Context, want *corev1.Pod, have pod.Observed) error {
	dir := w.agent.places.Dir(string(w.uid))
	for _, d := range []string{dir, w.agent.places.LogDir(want)} {
		if err := os.MkdirAll(d, 0o750); err != nil {
			return because("FailedMount", err)
		}
	}
	if _, err := w.agent.parts.Cgroups.Make(pod.QOS(want), string(w.uid), pod.PodLimits(want)); err != nil {
		return because("FailedCreatePodContainer", fmt.Errorf("create cgroup of pod: %w", err))
	}
	if err := w.agent.volumes.Mount(ctx, want, w.agent.facts(ipsOf(have))); err != nil {
		return because("FailedMount", err)
	}
	return nil
}

func ipsOf(have pod.Observed) []string {
	if s := have.Sandbox(); s != nil {
		return s.IPs
	}
	return nil
}

// sandboxConfig is needed for the sandbox and for each container in it.
func (w *worker) sandboxConfig(want *corev1.Pod, attempt uint32) (*cri.PodSandboxConfig, error) {
	parent, err := w.agent.parts.Cgroups.Make(pod.QOS(want), string(w.uid), pod.PodLimits(want))
	if err != nil {
		return nil, fmt.Errorf("create cgroup of pod: %w", err)
	}
	return pod.SandboxConfig(want, attempt, parent, w.agent.podNode(), w.agent.dns(), w.agent.places)
}

func (w *worker) startSandbox(ctx context.Context, step pod.Step, want *corev1.Pod, have pod.Observed) error {
	if err := w.stopDead(ctx, have); err != nil {
		return err
	}
	config, err := w.sandboxConfig(want, step.Attempt)
	if err != nil {
		return err
	}
	done, err := turn(ctx, w.agent.boxes)
	if err != nil {
		return err
	}
	defer done()
	start := time.Now()
	w.agent.metrics.kubelet.startedPods.Inc()
	handler := ""
	if want.Spec.RuntimeClassName != nil {
		handler = *want.Spec.RuntimeClassName
	}
	call, stop := unbroken(ctx)
	defer stop()
	if _, err = w.agent.parts.Runtime.RunPodSandbox(call, config, handler); err != nil {
		return fmt.Errorf("create sandbox of pod: %w", err)
	}
	w.log.Debug("sandbox started", "took", time.Since(start))
	return nil
}

// turn waits for one of the places and returns how to give it back.
func turn(ctx context.Context, places chan struct{}) (done func(), _ error) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// maxStart is how long the runtime may take to make a process.
const maxStart = 2 * time.Minute

// unbroken is the context of a call that makes a process. Broken off in the
// middle it would leave one behind that the runtime does not know; finished, it
// is stopped in order.
func unbroken(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), maxStart)
}

// startContainer takes a container from its image to the end of its postStart
// hook.
func (w *worker) startContainer(ctx context.Context, step pod.Step, want *corev1.Pod, have pod.Observed) error {
	c := pod.Find(want, step.Key)
	sandbox := have.Sandbox()
	if c == nil || sandbox == nil {
		return fmt.Errorf("start container %s: its sandbox is gone", step.Key)
	}
	w.agent.metrics.kubelet.started.WithLabelValues(containerType(want, c.Name)).Inc()
	id, err := w.runContainer(ctx, step, want, c, sandbox)
	if err != nil || id == "" {
		return err
	}
	if w.agent.parts.Started != nil {
		w.agent.parts.Started(want, id)
	}
	w.event(event.Normal, c.Name, "Started", "Container started: "+c.Name)
	w.agent.metrics.containerStarts.Inc()
	w.poke()
	if c.Lifecycle == nil || c.Lifecycle.PostStart == nil {
		return nil
	}
	if err := w.hook(ctx, want, c, id, c.Lifecycle.PostStart, sandbox.IPs); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.event(event.Warning, c.Name, "FailedPostStartHook", fmt.Sprintf("PostStartHook failed: %s", err))
		w.event(event.Normal, c.Name, "Killing", "FailedPostStartHook")
		if stopErr := w.agent.parts.Runtime.StopContainer(ctx, id, pod.Grace(want)); stopErr != nil {
			err = errors.Join(err, stopErr)
		}
		return because("PostStartHookError", err)
	}
	return nil
}

// runContainer makes a container, unless an earlier try did, and starts it. The
// id is empty if there was nothing to start. It holds a place only while the runtime works: pulls and hooks may take minutes.
func (w *worker) runContainer(ctx context.Context, step pod.Step, want *corev1.Pod, c *corev1.Container, sandbox *pod.Sandbox) (string, error) {
	var config *cri.PodSandboxConfig
	var img image.Result
	var err error
	if step.ID == "" {
		if config, err = w.sandboxConfig(want, sandbox.Attempt); err != nil {
			return "", because("CreateContainerConfigError", err)
		}
		if img, err = w.image(ctx, want, c, config); err != nil {
			return "", err
		}
	}
	done, err := turn(ctx, w.agent.starts)
	if err != nil {
		return "", err
	}
	defer done()
	id := step.ID
	if id == "" {
		if id, err = w.createContainer(ctx, step, want, c, sandbox, config, img); err != nil {
			return "", err
		}
		w.event(event.Normal, c.Name, "Created", "Container created: "+c.Name)
	}
	call, stop := unbroken(ctx)
	defer stop()
	if err := w.agent.parts.Runtime.StartContainer(call, id); errors.Is(err, runtime.ErrState) {
		return "", nil // it has been started already; the next look shows it
	} else if err != nil {
		return "", because("RunContainerError", err)
	}
	return id, nil
}

func (w *worker) createContainer(ctx context.Context, step pod.Step, want *corev1.Pod, c *corev1.Container, sandbox *pod.Sandbox, config *cri.PodSandboxConfig, got image.Result) (string, error) {
	facts := w.agent.facts(sandbox.IPs)
	env, err := pod.Env(want, c, facts, w.sources(ctx, want))
	if err != nil {
		return "", because("CreateContainerConfigError", err)
	}
	lookup := func(name string) (string, bool) {
		for _, v := range env {
			if v.Name == name {
				return v.Value, true
			}
		}
		return "", false
	}
	mounts, err := w.agent.volumes.Mounts(ctx, want, c, lookup)
	if err != nil {
		return "", because("CreateContainerConfigError", err)
	}
	birth := pod.Birth{Attempt: step.Attempt, Backoff: step.Backoff, ImageRef: got.ID, User: userOf(got.Image), Env: env, Mounts: mounts}
	container, err := pod.ContainerConfig(want, c, birth, facts, w.agent.places)
	if err != nil {
		return "", because("CreateContainerConfigError", err)
	}
	if err := w.containerFiles(want, c, step.Attempt, sandbox.IPs, config.GetLogDirectory()); err != nil {
		return "", because("CreateContainerError", err)
	}
	id, err := w.agent.parts.Runtime.CreateContainer(ctx, sandbox.ID, container, config)
	return id, because("CreateContainerError", err)
}

// userOf is whom an image wants to run as.
func userOf(img *cri.Image) pod.User {
	u := pod.User{Name: img.GetUsername()}
	if img.GetUid() != nil {
		uid := img.GetUid().GetValue()
		u.UID = &uid
	}
	return u
}

func (w *worker) image(ctx context.Context, want *corev1.Pod, c *corev1.Container, config *cri.PodSandboxConfig) (image.Result, error) {
	var secrets []corev1.Secret
	for _, ref := range want.Spec.ImagePullSecrets {
		if s, err := w.agent.objects.Secret(ctx, want.Namespace, ref.Name); err == nil && s != nil {
			secrets = append(secrets, *s)
		} else {
			w.event(event.Warning, "", "FailedToRetrieveImagePullSecret", fmt.Sprintf("Unable to retrieve image pull secret %s/%s; the image pull may not succeed", want.Namespace, ref.Name))
		}
	}
	got, err := w.agent.parts.Images.Ensure(ctx, image.Request{Image: c.Image, Policy: c.ImagePullPolicy, Secrets: secrets, Pod: config})
	switch {
	case err != nil:
		return got, err
	case got.Pulled:
		w.birth.pulls.Add(int64(got.Took))
		w.event(event.Normal, c.Name, "Pulled", fmt.Sprintf("Successfully pulled image %q in %s (%s including waiting). Image size: %d bytes.",
			c.Image, (got.Took-got.Waited).Round(time.Millisecond), got.Took.Round(time.Millisecond), got.Image.GetSize()))
	default:
		w.event(event.Normal, c.Name, "Pulled", fmt.Sprintf("Container image %q already present on machine", c.Image))
	}
	return got, nil
}

// sources are the objects that environment variables come from.
func (w *worker) sources(ctx context.Context, want *corev1.Pod) pod.Sources {
	s := pod.Sources{
		ConfigMap: func(name string) (*corev1.ConfigMap, error) {
			return w.agent.objects.ConfigMap(ctx, want.Namespace, name)
		},
		Secret:   func(name string) (*corev1.Secret, error) { return w.agent.objects.Secret(ctx, want.Namespace, name) },
		Services: w.agent.parts.Services(want.Namespace),
	}
	if want.Namespace != metav1.NamespaceDefault {
		for _, svc := range w.agent.parts.Services(metav1.NamespaceDefault) {
			if svc.Name == "kubernetes" {
				s.Services = append(s.Services, svc)
			}
		}
	}
	return s
}

// containerFiles makes the files that every container mounts, and the directory
// of its output.
func (w *worker) containerFiles(want *corev1.Pod, c *corev1.Container, attempt uint32, ips []string, logs string) error {
	places := w.agent.places
	var machine []byte
	if want.Spec.HostNetwork {
		machine, _ = os.ReadFile(w.agent.cfg.HostsFile) // a machine without one has no names to give
	}
	hosts, file := pod.Hosts(want, ips, w.agent.cfg.ClusterDomain, machine), places.HostsFile(want)
	if old, err := os.ReadFile(file); err != nil || !bytes.Equal(old, hosts) {
		if err := os.WriteFile(file, hosts, 0o644); err != nil {
			return err
		}
	}
	message := places.MessageFile(string(w.uid), c.Name, attempt)
	if err := os.MkdirAll(filepath.Dir(message), 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(message, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o666)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o666), f.Close()); err != nil { // any user of the container may write it
		return err
	}
	if attempt >= 3 { // those of attempts that are gone
		_ = os.Remove(filepath.Join(filepath.Dir(message), strconv.Itoa(int(attempt)-3)))
	}
	return os.MkdirAll(filepath.Join(logs, c.Name), 0o750)
}

// minGrace is what a container gets after its preStop hook used the whole
// grace period.
const minGrace = 2 * time.Second

// stopContainer runs the preStop hook and stops the container, both within the
// grace period.
func (w *worker) stopContainer(ctx context.Context, step pod.Step, want *corev1.Pod, have pod.Observed) error {
	c := pod.Find(want, step.Key)
	w.event(event.Normal, step.Key, "Killing", step.Message)
	start, grace := time.Now(), step.Grace
	if c != nil && c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		hookCtx, cancel := context.WithTimeout(ctx, grace)
		err := w.hook(hookCtx, want, c, step.ID, c.Lifecycle.PreStop, ipsOf(have))
		cancel()
		if err != nil && ctx.Err() == nil {
			w.event(event.Warning, c.Name, "FailedPreStopHook", fmt.Sprintf("PreStopHook failed: %s", err))
		}
		grace = max(grace-time.Since(start), minGrace)
	}
	err := w.agent.parts.Runtime.StopContainer(ctx, step.ID, grace)
	if errors.Is(err, runtime.ErrNotFound) {
		return nil
	}
	return err
}

// stopDead gives back the network of sandboxes that ended by themselves, as in a
// crash of the machine.
func (w *worker) stopDead(ctx context.Context, have pod.Observed) error {
	for _, s := range have.Sandboxes {
		if err := w.agent.parts.Runtime.StopPodSandbox(ctx, s.ID); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) release(ctx context.Context, have pod.Observed) error {
	if err := w.stopDead(ctx, have); err != nil {
		return err
	}
	if err := w.agent.volumes.Release(ctx, string(w.uid)); err != nil {
		return err
	}
	w.agent.objects.forget(w.uid)
	return w.agent.parts.Cgroups.Remove(string(w.uid))
}

// delete tells the API that the pod is down.
func (w *worker) delete(ctx context.Context, want *corev1.Pod) error {
	now := int64(0)
	err := w.agent.parts.API.CoreV1().Pods(want.Namespace).Delete(ctx, want.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &want.UID},
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		w.tell(func(in *inbox) { in.removed = true })
		return nil
	}
	return err
}

// clean removes what a pod leaves in the data directory, except its output.
func (w *worker) clean() error {
	w.agent.objects.forget(w.uid)
	return os.RemoveAll(w.agent.places.Dir(string(w.uid)))
}

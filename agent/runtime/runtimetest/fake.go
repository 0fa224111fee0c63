package runtimetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"

	"perch/agent/runtime"
)

// FakeConfig says what the fake node has.
type FakeConfig struct {
	Images []string // references that are on the node already
	// Pull decides whether an image can be fetched; nil refuses all.
	Pull func(ctx context.Context, ref string, auth *cri.AuthConfig) error
	// PodIP names the address of the nth sandbox, from 1; nil gives 10.88.x.y.
	PodIP func(n int) string
}

// Fake is a runtime.Service in memory. Its zero value is not usable.
type Fake struct {
	cfg FakeConfig

	mu         sync.Mutex
	pods       map[string]*pod
	containers map[string]*container
	images     map[string]*cri.Image // by every name and id
	programs   map[string]Program
	exec       func(id string, cmd []string) (runtime.ExecResult, error)
	faults     map[string]error
	watchers   map[chan *cri.ContainerEventResponse]struct{}
	usage      map[string]*cri.ContainerStats
	sandboxes  int
	away       bool

	streams     streaming.Server
	listener    net.Listener
	serveStream sync.Once
	running     sync.WaitGroup
}

type pod struct {
	id      string
	config  *cri.PodSandboxConfig
	handler string
	ready   bool
	created time.Time
	ip      string
}

type container struct {
	id       string
	pod      *pod
	config   *cri.ContainerConfig
	state    cri.ContainerState
	created  time.Time
	started  time.Time
	finished time.Time
	code     int32
	reason   string
	message  string
	log      *logFile
	signals  chan syscall.Signal
	stdin    *io.PipeWriter
	kill     context.CancelFunc
	forced   *int32 // exit code set from outside
	why      string // reason set from outside
	ended    chan struct{}
}

var _ runtime.Service = (*Fake)(nil)

// NewFake makes a fake runtime. Close ends what runs in it.
func NewFake(cfg FakeConfig) *Fake {
	f := &Fake{
		cfg: cfg, pods: map[string]*pod{}, containers: map[string]*container{}, images: map[string]*cri.Image{},
		programs: map[string]Program{}, faults: map[string]error{}, usage: map[string]*cri.ContainerStats{},
		watchers: map[chan *cri.ContainerEventResponse]struct{}{},
	}
	for _, ref := range cfg.Images {
		f.AddImage(ref)
	}
	return f
}

// Close kills every container and waits for their programs.
func (f *Fake) Close() {
	f.mu.Lock()
	for _, c := range f.containers {
		if c.kill != nil {
			c.kill()
		}
	}
	f.mu.Unlock()
	f.running.Wait()
	if f.listener != nil {
		_ = f.streams.Stop()
		_ = f.listener.Close()
	}
}

// AddImage puts an image on the node.
func (f *Fake) AddImage(ref string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addImage(ref)
}

func (f *Fake) addImage(ref string) *cri.Image {
	name := normalize(ref)
	sum := fmt.Sprintf("%x", digest(name))
	img := &cri.Image{Id: "sha256:" + sum, RepoTags: []string{name}, RepoDigests: []string{repository(name) + "@sha256:" + sum}, Size: 1 << 20}
	f.images[name], f.images[img.Id], f.images[img.RepoDigests[0]] = img, img, img
	return img
}

// Program makes containers of an image (its full reference), or commands with
// this name, run p.
func (f *Fake) Program(imageOrCommand string, p Program) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.programs[imageOrCommand] = p
}

// OnExec answers ExecSync instead of the built-in words; nil takes it back.
func (f *Fake) OnExec(fn func(id string, cmd []string) (runtime.ExecResult, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.exec = fn
}

// Fail makes every call of a method fail with err; nil heals it.
func (f *Fake) Fail(method string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults[method] = err
}

// Away makes the runtime unreachable while containers run on, and breaks the
// event streams, as when the runtime process is replaced.
func (f *Fake) Away(away bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = away
	if away {
		for w := range f.watchers {
			close(w)
		}
		clear(f.watchers)
	}
}

// Exit ends a running container with an exit code, as if by itself.
func (f *Fake) Exit(id string, code int32) { f.end(id, code, "") }

// OOMKill ends a running container as the kernel does when memory is out.
func (f *Fake) OOMKill(id string) { f.end(id, 137, "OOMKilled") }

// SetUsage sets what ContainerStats tells: CPU in core-nanoseconds since start,
// memory in bytes.
func (f *Fake) SetUsage(id string, cpu, memory uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now().UnixNano()
	f.usage[id] = &cri.ContainerStats{
		Cpu:    &cri.CpuUsage{Timestamp: now, UsageCoreNanoSeconds: &cri.UInt64Value{Value: cpu}},
		Memory: &cri.MemoryUsage{Timestamp: now, WorkingSetBytes: &cri.UInt64Value{Value: memory}},
	}
}

func (f *Fake) end(id string, code int32, why string) {
	f.mu.Lock()
	c := f.containers[id]
	if c == nil || c.state != cri.ContainerState_CONTAINER_RUNNING {
		f.mu.Unlock()
		return
	}
	c.forced, c.why = &code, why
	c.kill()
	f.mu.Unlock()
	<-c.ended
}

// fault is asked at the start of every call, with the lock held.
func (f *Fake) fault(method string) error {
	if f.away {
		return fmt.Errorf("%s: %w", method, runtime.ErrUnavailable)
	}
	return f.faults[method]
}

// emit sends one event, with the lock held. A watcher that is 1024 events
// behind loses its stream, as a slow gRPC client would.
func (f *Fake) emit(kind cri.ContainerEventType, id string, p *pod) {
	e := &cri.ContainerEventResponse{ContainerId: id, ContainerEventType: kind, CreatedAt: time.Now().UnixNano(), PodSandboxStatus: p.status()}
	for _, c := range f.containers {
		if c.pod == p {
			e.ContainersStatuses = append(e.ContainersStatuses, c.status())
		}
	}
	for w := range maps.Keys(f.watchers) {
		select {
		case w <- e:
		default:
			close(w)
			delete(f.watchers, w)
		}
	}
}

// Events implements runtime.Node.
func (f *Fake) Events(ctx context.Context, fn func(*cri.ContainerEventResponse)) error {
	w := make(chan *cri.ContainerEventResponse, 1024)
	f.mu.Lock()
	if err := f.fault("Events"); err != nil {
		f.mu.Unlock()
		return err
	}
	f.watchers[w] = struct{}{}
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.watchers, w)
		f.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w:
			if !ok {
				return fmt.Errorf("watch events of runtime: %w", runtime.ErrUnavailable)
			}
			fn(e)
		}
	}
}

// Version implements runtime.Node.
func (f *Fake) Version(context.Context) (*cri.VersionResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &cri.VersionResponse{Version: "0.1.0", RuntimeName: "fake", RuntimeVersion: "v0", RuntimeApiVersion: "v1"}, f.fault("Version")
}

// Status implements runtime.Node.
func (f *Fake) Status(context.Context) (*cri.RuntimeStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &cri.RuntimeStatus{Conditions: []*cri.RuntimeCondition{{Type: cri.RuntimeReady, Status: true}, {Type: cri.NetworkReady, Status: true}}}, f.fault("Status")
}

func newID() string {
	var b [32]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// normalize gives a reference its registry, folder and tag.
func normalize(ref string) string {
	if strings.HasPrefix(ref, "sha256:") {
		return ref
	}
	first, rest, ok := strings.Cut(ref, "/")
	switch {
	case !ok:
		ref = "docker.io/library/" + ref
	case !strings.ContainsAny(first, ".:") && first != "localhost":
		ref = "docker.io/" + first + "/" + rest
	}
	if !strings.Contains(path.Base(ref), ":") {
		ref += ":latest"
	}
	return ref
}

func repository(name string) string {
	if i := strings.LastIndex(name, ":"); i > strings.LastIndex(name, "/") {
		return name[:i]
	}
	return name
}

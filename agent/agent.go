package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"perch/agent/image"
	"perch/agent/pod"
	"perch/agent/probe"
	"perch/agent/runtime"
	"perch/agent/volume"
	"perch/controlplane/event"
)

// Images makes images available; image.Puller does. It is called at the same
// time for several containers, may block for as long as a pull takes, and ends
// with ctx. Its error is an *image.Waiting or that of ctx.
type Images interface {
	Ensure(ctx context.Context, want image.Request) (image.Result, error)
}

// Cgroups are the groups around all containers of a pod.
type Cgroups interface {
	// Make creates the group of a pod with its limits, or brings the limits of an
	// existing one up to date, and returns the parent for its containers.
	Make(class corev1.PodQOSClass, uid string, limits pod.Limits) (parent string, err error)
	// Remove removes the group of a pod from every hierarchy. A group that does
	// not exist is no error; one with processes is.
	Remove(uid string) error
}

// Parts are what an agent works with.
type Parts struct {
	API     kubernetes.Interface // as system:node:NAME
	Runtime runtime.Service
	Images  Images
	Cgroups Cgroups
	Tell    event.Tell
	// Services lists the services of a namespace; environment variables are made
	// of them. It must not block.
	Services func(namespace string) []*corev1.Service
	// Conditions gives conditions of the node that others know, e.g.
	// SeccompUnavailable. It must not block.
	Conditions func() []corev1.NodeCondition
	// Drained says whether all lines of a log file are stored elsewhere, so that
	// the file may go.
	Drained func(ctx context.Context, path string) bool
	// Leaving is told of a log file that is removed all the same.
	Leaving func(ctx context.Context, path string)
	// Observe takes the result of every probe.
	Observe func(probe.Result)
	// Started is told of every container whose process has just been started, so
	// that one that lives for a moment only is measured too. nil tells nobody.
	Started func(pod *corev1.Pod, containerID string)
	// Ended is told of every container that is seen ended, perhaps again after a
	// restart of the agent. It must not block. nil tells nobody.
	Ended func(pod *corev1.Pod, containerID string, exitCode int32, oomKilled bool)
}

// Agent runs the pods of one node.
type Agent struct {
	cfg     Config
	parts   Parts
	log     *slog.Logger
	metrics *metrics
	places  pod.Places
	machine machine
	objects *objects
	volumes *volume.Volumes
	probes  *probe.Probes
	starts  chan struct{} // bounds how many containers start at the same time
	boxes   chan struct{} // bounds how many sandboxes start at the same time

	listed atomic.Bool // the API's list of pods has been seen once
	ready  atomic.Pointer[runtimeState]
	node   atomic.Pointer[corev1.Node]

	mu      sync.Mutex // guards what follows
	workers map[types.UID]*worker
	ended   map[types.UID]struct{} // pods that are gone here before the watch says so: what it still tells of them is old
	spawn   func(*worker)          // set while Run runs
	wanted  *mirror[*corev1.Pod]   // as is this
}

// maxStarts bounds containers that the runtime makes and starts at the same
// time, maxBoxes sandboxes; the others wait. Starting is work, not waiting: of
// thirty pods that start at once all are late, of four at a time only the last.
const (
	maxStarts = 8
	maxBoxes  = 4
)

// New makes an agent. It reads the machine, and creates the directories.
func New(cfg Config, parts Parts, log *slog.Logger, reg prometheus.Registerer) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure agent: %w", err)
	}
	a := &Agent{
		cfg: cfg, parts: parts, log: log, places: cfg.places(), starts: make(chan struct{}, maxStarts), boxes: make(chan struct{}, maxBoxes),
		workers: map[types.UID]*worker{}, ended: map[types.UID]struct{}{},
	}
	for _, dir := range []string{a.places.Pods, a.places.Logs, a.places.Seccomp} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("create directory of agent: %w", err)
		}
	}
	var err error
	if a.machine, err = readMachine(cfg); err != nil {
		return nil, fmt.Errorf("read machine: %w", err)
	}
	// The mount table knows only real paths.
	if a.places.Pods, err = filepath.EvalSymlinks(a.places.Pods); err != nil {
		return nil, fmt.Errorf("find directory of pods: %w", err)
	}
	a.metrics = newMetrics(reg, a)
	a.parts.Cgroups = timed{parts.Cgroups, a.metrics.kubelet.cgroups}
	a.objects = newObjects(parts.API, log.With("part", "objects"), a.wakeAll)
	a.volumes = volume.New(volume.Config{Pods: a.places.Pods, Done: a.metrics.kubelet.mounted}, a.objects, log.With("part", "volume"))
	a.probes = probe.New(probe.Default(), parts.Runtime, probe.Hooks{Changed: a.wake, Tell: parts.Tell, Observe: parts.Observe}, log.With("part", "probe"), reg)
	return a, nil
}

// Pods returns the pods of this node with their newest status, also that which
// the API does not have yet. The objects are read-only.
func (a *Agent) Pods() []*corev1.Pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]*corev1.Pod, 0, len(a.workers))
	for _, w := range a.workers {
		if p := w.shown.Load(); p != nil {
			out = append(out, p)
		}
	}
	return out
}

// Sandbox is the id of a pod's newest sandbox that ran, "" without one: the
// pod's network is in there.
func (a *Agent) Sandbox(uid types.UID) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.workers[uid]; w != nil {
		if id := w.box.Load(); id != nil {
			return *id
		}
	}
	return ""
}

// Stop ends a pod for good: it fails with the given reason. It is how eviction
// acts.
func (a *Agent) Stop(uid types.UID, stop pod.Stop) error {
	a.mu.Lock()
	w := a.workers[uid]
	a.mu.Unlock()
	if w == nil {
		return fmt.Errorf("stop pod %s: not on this node", uid)
	}
	w.tell(func(in *inbox) { in.stop = &stop })
	return nil
}

// Node returns the Node object as the API last gave it, nil before it did.
func (a *Agent) Node() *corev1.Node { return a.node.Load() }

// wake makes one pod's worker look again.
func (a *Agent) wake(uid types.UID) {
	a.mu.Lock()
	w := a.workers[uid]
	a.mu.Unlock()
	if w != nil {
		w.poke()
	}
}

// wakeAll tells workers that an object their pods use has changed.
func (a *Agent) wakeAll(uids []types.UID) {
	for _, uid := range uids {
		a.mu.Lock()
		w := a.workers[uid]
		a.mu.Unlock()
		if w != nil {
			w.tell(func(in *inbox) { in.objects = true })
		}
	}
}

// facts are what pods may ask about the node.
func (a *Agent) facts(podIPs []string) pod.Facts {
	return pod.Facts{Node: a.podNode(), HostIPs: a.cfg.IPs, PodIPs: podIPs}
}

func (a *Agent) podNode() pod.Node {
	n := pod.Node{MemoryBytes: a.machine.memory, Allocatable: a.machine.allocatable(a.cfg), Cgroup: a.cfg.ContainerCgroup}
	for _, c := range a.parts.Conditions() {
		if c.Type == "SeccompUnavailable" && c.Status == corev1.ConditionTrue {
			n.NoSeccomp = true
		}
	}
	return n
}

// dns is read anew each time: machines move between networks.
func (a *Agent) dns() pod.DNS {
	text, err := os.ReadFile(a.cfg.ResolvConf)
	if err != nil {
		a.log.Warn("resolv.conf not read", "err", err)
	}
	return pod.DNS{Host: parseResolver(string(text)), ClusterServer: a.cfg.ClusterDNS, ClusterDomain: a.cfg.ClusterDomain}
}

// runtimeState is what the runtime last said about itself.
type runtimeState struct {
	ready, network  bool
	reason, message string
	name, version   string
	seen            time.Time
}

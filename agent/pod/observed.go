package pod

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Observed is what is known about one pod on this node.
type Observed struct {
	Sandboxes  []Sandbox   // newest first
	Containers []Container // newest first

	// Busy holds the operations under way, by container name or one of the
	// keys KeySandbox and KeyPod.
	Busy map[string]Operation
	// Failures holds what went wrong last, under the same keys, until it works.
	Failures map[string]Failure
	// Health holds what probes say, by container name. Containers without an
	// entry count as healthy if they run and have no such probe.
	Health map[string]Health

	Prepared  bool // volumes, directories and cgroup are there
	Held      bool // some of them may still be there and must be given back
	Published bool // the API has the status that Status gives for this moment
	Removed   bool // the API no longer has the pod, or never had
	Stop      *Stop
	StopSince time.Time // when the wish to end this pod was first seen
	Started   time.Time // status.startTime
}

// Keys of operations and failures that belong to no container. Container names
// are DNS labels, so they cannot collide.
const (
	KeyPod     = "(pod)"
	KeySandbox = "(sandbox)"
)

// Stop is a wish of the node to end a pod for good, as eviction has.
type Stop struct {
	Reason, Message string
	Grace           time.Duration // negative: the pod's own
}

// Operation is a step under way.
type Operation struct {
	Verb  Verb
	Until time.Time // of a StopContainer: when the kill signal comes
}

// Failure is a step that failed and will be tried again.
type Failure struct {
	Verb            Verb   // of the step; others under the same key do not wait
	Reason, Message string // as in a waiting state, e.g. ImagePullBackOff
	Retry           time.Time
	Delay           time.Duration // between the failure and Retry
}

// Health is what the probes of one container instance say.
type Health struct {
	ContainerID string // results for another instance are ignored
	Started     bool   // the startup probe succeeded once
	Ready       bool
	Unhealthy   string // why a startup or liveness probe wants a restart
}

// Sandbox is one sandbox of the pod.
type Sandbox struct {
	ID        string
	Attempt   uint32
	Ready     bool
	CreatedAt time.Time
	IPs       []string
}

// State is the state of a container in the runtime.
type State string

// The states of containers.
const (
	Created State = "created"
	Running State = "running"
	Exited  State = "exited"
	Unknown State = "unknown"
)

// Container is one attempt at running a container.
type Container struct {
	ID, Name, SandboxID              string
	Attempt                          uint32
	State                            State
	CreatedAt, StartedAt, FinishedAt time.Time
	ExitCode                         int32
	Reason, Message                  string
	Image, ImageID                   string
	LogPath                          string
	Backoff                          time.Duration // what the next start waits if this one fails soon
	Hash                             string        // of the container's definition
}

// Labels and annotations on sandboxes and containers.
const (
	LabelName      = "io.kubernetes.pod.name"
	LabelNamespace = "io.kubernetes.pod.namespace"
	LabelUID       = "io.kubernetes.pod.uid"
	LabelContainer = "io.kubernetes.container.name"

	AnnotationHash          = "io.kubernetes.container.hash"
	AnnotationRestartCount  = "io.kubernetes.container.restartCount"
	AnnotationMessagePath   = "io.kubernetes.container.terminationMessagePath"
	AnnotationMessagePolicy = "io.kubernetes.container.terminationMessagePolicy"
	AnnotationGrace         = "io.kubernetes.pod.terminationGracePeriod"
	AnnotationBackoff       = "perch.io/backoff"
)

// FromStatus reads what the runtime says about a container. The message of an
// ended container is left to the caller, who can read the file.
func FromStatus(s *cri.ContainerStatus, sandboxID string) Container {
	c := Container{
		ID: s.GetId(), Name: s.GetLabels()[LabelContainer], SandboxID: sandboxID,
		Attempt:   s.GetMetadata().GetAttempt(),
		State:     stateOf(s.GetState()),
		CreatedAt: unixNano(s.GetCreatedAt()), StartedAt: unixNano(s.GetStartedAt()), FinishedAt: unixNano(s.GetFinishedAt()),
		ExitCode: s.GetExitCode(), Reason: s.GetReason(), Message: s.GetMessage(),
		Image:   cmp.Or(s.GetImage().GetUserSpecifiedImage(), s.GetImage().GetImage()),
		ImageID: cmp.Or(s.GetImageRef(), s.GetImageId()),
		LogPath: s.GetLogPath(),
		Hash:    s.GetAnnotations()[AnnotationHash],
	}
	c.Backoff, _ = time.ParseDuration(s.GetAnnotations()[AnnotationBackoff]) // zero: first attempt
	if n, err := strconv.ParseUint(s.GetAnnotations()[AnnotationRestartCount], 10, 32); err == nil {
		c.Attempt = uint32(n)
	}
	return c
}

func stateOf(s cri.ContainerState) State {
	switch s {
	case cri.ContainerState_CONTAINER_CREATED:
		return Created
	case cri.ContainerState_CONTAINER_RUNNING:
		return Running
	case cri.ContainerState_CONTAINER_EXITED:
		return Exited
	}
	return Unknown
}

func unixNano(ns int64) time.Time {
	if ns <= 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// Sort brings sandboxes and containers into the order that Observed promises.
func (o *Observed) Sort() {
	slices.SortStableFunc(o.Sandboxes, func(a, b Sandbox) int {
		return cmp.Or(cmp.Compare(b.Attempt, a.Attempt), b.CreatedAt.Compare(a.CreatedAt))
	})
	slices.SortStableFunc(o.Containers, func(a, b Container) int {
		return cmp.Or(cmp.Compare(b.Attempt, a.Attempt), b.CreatedAt.Compare(a.CreatedAt))
	})
}

// Newest returns the latest attempt of a container, nil if there was none.
func (o *Observed) Newest(name string) *Container {
	for i := range o.Containers {
		if o.Containers[i].Name == name {
			return &o.Containers[i]
		}
	}
	return nil
}

// previous returns the attempt before the latest one.
func (o *Observed) previous(name string) *Container {
	last := o.Newest(name)
	for i := range o.Containers {
		if c := &o.Containers[i]; c.Name == name && c != last {
			return c
		}
	}
	return nil
}

// Sandbox returns the newest sandbox if it is ready, else nil.
func (o *Observed) Sandbox() *Sandbox {
	if len(o.Sandboxes) > 0 && o.Sandboxes[0].Ready {
		return &o.Sandboxes[0]
	}
	return nil
}

// inSandbox returns the latest attempt of a container in the given sandbox.
func (o *Observed) inSandbox(name, id string) *Container {
	for i := range o.Containers {
		if c := &o.Containers[i]; c.Name == name && c.SandboxID == id {
			return c
		}
	}
	return nil
}

// Alive says whether any container runs or is about to.
func (o *Observed) Alive() bool {
	return slices.ContainsFunc(o.Containers, func(c Container) bool { return c.State == Running || c.State == Unknown })
}

// health returns what is known about a running container: whether it started,
// is ready, and why it must be restarted.
func (o *Observed) health(c *corev1.Container, have *Container) Health {
	if have == nil || have.State != Running {
		return Health{}
	}
	if _, starting := o.Busy[c.Name]; starting && o.Busy[c.Name].Verb == StartContainer {
		return Health{ContainerID: have.ID} // its postStart hook has not returned
	}
	h, known := o.Health[c.Name]
	if !known || h.ContainerID != have.ID {
		h = Health{ContainerID: have.ID}
	}
	if c.StartupProbe == nil {
		h.Started = true
	}
	if c.ReadinessProbe == nil {
		h.Ready = h.Started
	}
	h.Ready = h.Ready && h.Started
	return h
}

// IsSidecar says whether an init container keeps running beside the containers.
func IsSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

package runtime

import (
	"context"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Service is a container runtime as the agent uses it. Client speaks it to a
// real runtime, runtimetest.Fake keeps everything in memory. All methods may be
// called at the same time, except that two calls which change the same pod or
// container must not overlap.
type Service interface {
	Node
	Pods
	Containers
	Streams
	Images
}

// Node is the runtime itself.
type Node interface {
	// Version names the runtime, its version and its API version.
	Version(ctx context.Context) (*cri.VersionResponse, error)
	// Status carries the conditions RuntimeReady and NetworkReady. The network
	// is ready once a CNI configuration lies in the configured directory.
	Status(ctx context.Context) (*cri.RuntimeStatus, error)
	// Events calls fn for each change of a container or sandbox, in order, until
	// ctx ends (nil) or the stream breaks (an error). Events may have been missed
	// before the first call and after the last: list again on every (re)connect
	// and from time to time.
	Events(ctx context.Context, fn func(*cri.ContainerEventResponse)) error
}

// Pods are sandboxes: the namespaces and the cgroup that a pod's containers share.
type Pods interface {
	// RunPodSandbox makes and starts a sandbox and returns its id. Running it
	// twice with the same name, namespace, uid and attempt is ErrExists while the
	// first one is there.
	RunPodSandbox(ctx context.Context, config *cri.PodSandboxConfig, handler string) (string, error)
	// StopPodSandbox kills what runs in the sandbox and gives back its network.
	// Stopping a stopped or unknown sandbox is no error.
	StopPodSandbox(ctx context.Context, id string) error
	// RemovePodSandbox removes a sandbox with all its containers, stopping them
	// if need be. Removing an unknown sandbox is no error.
	RemovePodSandbox(ctx context.Context, id string) error
	PodSandboxStatus(ctx context.Context, id string) (*cri.PodSandboxStatus, error)
	// ListPodSandbox lists all sandboxes, running or not; a nil filter takes all.
	ListPodSandbox(ctx context.Context, filter *cri.PodSandboxFilter) ([]*cri.PodSandbox, error)
}

// Containers run inside a sandbox.
type Containers interface {
	// CreateContainer prepares a container from an image that is already on the
	// node and returns its id.
	CreateContainer(ctx context.Context, podID string, config *cri.ContainerConfig, pod *cri.PodSandboxConfig) (string, error)
	// StartContainer starts a created container. A container starts only once.
	StartContainer(ctx context.Context, id string) error
	// StopContainer sends the stop signal, waits up to grace, then kills.
	// Stopping a stopped or unknown container is no error.
	StopContainer(ctx context.Context, id string, grace time.Duration) error
	// RemoveContainer removes a container, killing it if it runs; its log file
	// stays. Removing an unknown container is no error.
	RemoveContainer(ctx context.Context, id string) error
	// ListContainers lists containers in every state; a nil filter takes all.
	ListContainers(ctx context.Context, filter *cri.ContainerFilter) ([]*cri.Container, error)
	// ContainerStatus tells state, exit code and reason ("Completed", "Error",
	// "OOMKilled", "StartError"). FinishedAt of a very short container may lie
	// some microseconds before StartedAt.
	ContainerStatus(ctx context.Context, id string) (*cri.ContainerStatus, error)
	UpdateContainerResources(ctx context.Context, id string, resources *cri.ContainerResources) error
	// ReopenContainerLog makes the runtime write to a new file at the
	// container's log path, after the old one was renamed.
	ReopenContainerLog(ctx context.Context, id string) error
	ContainerStats(ctx context.Context, id string) (*cri.ContainerStats, error)
	ListContainerStats(ctx context.Context, filter *cri.ContainerStatsFilter) ([]*cri.ContainerStats, error)
}

// ExecResult is what a command run inside a container left behind.
type ExecResult struct {
	Stdout, Stderr []byte // at most 16 MiB each
	ExitCode       int32
}

// Streams run commands in containers and connect to them.
type Streams interface {
	// ExecSync runs a command and waits for it, killing it after timeout
	// (ErrTimeout; 0 means none but ctx). A command that ran and failed is a
	// result, not an error.
	ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (ExecResult, error)
	// Exec, Attach and PortForward return the URL at which the streams can be
	// opened within a minute, over SPDY or WebSocket.
	Exec(ctx context.Context, req *cri.ExecRequest) (string, error)
	Attach(ctx context.Context, req *cri.AttachRequest) (string, error)
	PortForward(ctx context.Context, req *cri.PortForwardRequest) (string, error)
}

// Images are what containers are made of.
type Images interface {
	ListImages(ctx context.Context) ([]*cri.Image, error)
	// ImageStatus returns the image of a reference or id, nil if it is not here.
	ImageStatus(ctx context.Context, image *cri.ImageSpec) (*cri.Image, error)
	// PullImage fetches an image and returns its reference by digest. auth may
	// be nil.
	PullImage(ctx context.Context, image *cri.ImageSpec, auth *cri.AuthConfig, pod *cri.PodSandboxConfig) (string, error)
	// RemoveImage removes an image with all its names. Removing an unknown image
	// is no error.
	RemoveImage(ctx context.Context, image *cri.ImageSpec) error
	// ImageFsInfo tells what images and containers' layers use on disk.
	ImageFsInfo(ctx context.Context) (*cri.ImageFsInfoResponse, error)
}

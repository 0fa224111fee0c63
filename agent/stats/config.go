package stats

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// Config says what to watch and how often.
type Config struct {
	Node     string // name of this node, label node
	Instance string // address of this node's kubelet API, label instance
	Root     string // cgroup of this cluster on this machine: /perch-NAME
	Mount    string // where cgroups are mounted
	Proc     string // where processes are told of
	Sys      string // where devices are told of

	Hot  time.Duration // ring
	Warm time.Duration // fast reader to sink; a multiple of Hot
	Cold time.Duration // specification and the rest to sink; a multiple of Warm

	RingSpan    time.Duration // how long 1 s points are kept
	CgroupLimit int           // cgroups watched at once; 60 KB of ring each
	EndedLimit  int           // ended cgroups whose ring is still kept
	OutboxLimit int           // samples that wait while the sink is down, 40 bytes each
}

// Default watches /perch at 1, 5 and 15 s.
func Default() Config {
	return Config{
		Root: "/perch", Mount: "/sys/fs/cgroup", Proc: "/proc", Sys: "/sys",
		Hot: time.Second, Warm: 5 * time.Second, Cold: 15 * time.Second,
		RingSpan: 10 * time.Minute, CgroupLimit: 2000, EndedLimit: 200,
		OutboxLimit: 500_000, // 50 pods: five minutes
	}
}

// Validate names all problems at once.
func (c Config) Validate() error {
	var errs error
	wrong := func(bad bool, text string) {
		if bad {
			errs = errors.Join(errs, errors.New("stats: "+text))
		}
	}
	wrong(c.Node == "", "no node name given")
	wrong(c.Root == "" || c.Root[0] != '/' || c.Root == "/", "root must be an absolute cgroup path below /")
	wrong(c.Hot <= 0 || c.Warm < c.Hot || c.Cold < c.Warm || c.Warm%c.Hot != 0 || c.Cold%c.Warm != 0, "intervals must be multiples of each other: hot, warm, cold")
	wrong(c.RingSpan < c.Hot, "ring is shorter than one sample")
	wrong(c.CgroupLimit < 1 || c.EndedLimit < 0 || c.OutboxLimit < 1, "limits must be positive")
	return errs
}

// Sample is one number of one series; see metrics/store, whose Sample is the
// same unnamed type. ID is unique in this process and never used again.
type Sample = struct {
	ID     uint64
	Labels labels.Labels
	T      int64 // ms
	V      float64
}

// Identity says whose a cgroup is. A sandbox has no Container, a pod's own
// cgroup neither Container nor ID.
type Identity struct {
	Namespace, Pod, PodUID string
	Container, ID, Image   string
	Started                time.Time // zero: when the cgroup was made
}

// Exit is how a container ended.
type Exit struct {
	Code      int
	OOMKilled bool
	At        time.Time
}

// Parts are the collaborators.
type Parts struct {
	// Name finds the owner of a cgroup by pod uid and container id (empty for
	// the pod's own). It is called often and must answer from memory.
	Name func(podUID, containerID string) (Identity, bool)

	// Sink takes a batch or gives an error to get the same batch again. It is
	// called from one goroutine and may keep nothing of the batch.
	Sink func(context.Context, []Sample) error

	// Machine tells what the machine is. It is asked once, by New.
	Machine func() (Machine, error)

	// Sandbox is the id of a pod's sandbox, whose network is the pod's; nil
	// leaves the network of pods out. It must answer from memory.
	Sandbox func(podUID string) string
}

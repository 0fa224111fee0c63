package scrape

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	corev1 "k8s.io/api/core/v1"

	"perch/metrics/family"
	"perch/metrics/target"
)

// Config says how often and how much.
type Config struct {
	Node     string
	Interval time.Duration
	Timeout  time.Duration

	SampleLimit uint  // of one answer
	BodyLimit   int64 // bytes of one answer, decompressed
	LabelLimit  uint  // of one series
	LabelLength uint  // bytes of a label's name and value: series with longer ones cannot be sent to other stores
	TargetLimit int   // of all

	File string // scrape_configs in Prometheus' format; empty: none

	// Sockets are host names that mean a unix socket. Every object may name them, with
	// any path.
	Sockets map[string]string

	Own   []Own   // perch's parts in other processes
	Local []Local // registries of this process
}

// Default is Prometheus' pace with limits for small nodes.
func Default() Config {
	return Config{
		Interval: 15 * time.Second, Timeout: 10 * time.Second,
		SampleLimit: 50_000, BodyLimit: 16 << 20, LabelLimit: 64, LabelLength: 16 << 10, TargetLimit: 2000,
	}
}

// Validate names all problems at once.
func (c Config) Validate() error {
	var errs error
	if c.Interval < time.Second || c.Timeout <= 0 || c.Timeout > c.Interval {
		errs = errors.Join(errs, errors.New("scrape: interval must be at least 1s and the timeout not longer"))
	}
	if c.SampleLimit == 0 || c.BodyLimit <= 0 || c.LabelLimit == 0 || c.LabelLength == 0 || c.TargetLimit <= 0 {
		errs = errors.Join(errs, errors.New("scrape: limits must be positive"))
	}
	names := map[string]bool{}
	for _, o := range c.Own {
		if o.Name == "" || o.Name == podPool || names[o.Name] || o.Address == "" && o.Socket == "" {
			errs = errors.Join(errs, errors.New("scrape: own part "+o.Name+" needs a unique name and an address or socket"))
		}
		names[o.Name] = true
	}
	return errs
}

// Own is a part of perch that is scraped over HTTP.
type Own struct {
	Name    string            // unique; the pool
	Labels  map[string]string // job, instance and what else; node is added
	Scheme  string            // http when empty
	Address string            // host:port
	Socket  string            // unix socket instead of Address
	Path    string            // /metrics when empty

	CA, Cert, Key, ServerName string // files for https
	TokenFile                 string

	// Keep is a regular expression for the names of the series to store, Drop
	// one for "NAME;le" of series to leave out. Empty: all are stored.
	Keep, Drop string
}

// Local is a registry of this process.
type Local struct {
	Labels   map[string]string // job, instance; node is added unless Labels has it, empty is left out
	Gather   prometheus.Gatherer
	Samples  Samples       // instead of Gather
	Interval time.Duration // Config.Interval when zero
	Honor    bool          // keep labels of the samples where both have one
	Now      Demand        // asks for a round between two ticks; nil: nobody does

	// Families are those of Samples, called now and then from another goroutine;
	// may be nil.
	Families func() []family.Family
}

// Samples are those of a source that are to be told at a time, from one
// goroutine. It gives its series IDs below 1<<62 and the labels base, ends the
// series that are over, and may leave out what it told lately.
type Samples func(base map[string]string, at time.Time) []Sample

// Demand carries requests to gather at once; each is answered by closing it,
// when the samples are stored or the store refused them.
type Demand chan chan struct{}

// Gather asks for a round and waits for its end.
func (d Demand) Gather(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case d <- done:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Sample is the same unnamed type as the store's.
type Sample = struct {
	ID     uint64
	Labels labels.Labels
	T      int64
	V      float64
}

// Parts are the collaborators.
type Parts struct {
	Into storage.AppendableV2 // takes what is scraped

	// Inlet opens a way into the store; it is called once for each Local, whose
	// samples then come from one goroutine with IDs of their own. Sharing one
	// between Locals would mix up their series.
	Inlet func() func(context.Context, []Sample) error

	// Objects are the pods and services of now; it must answer from memory.
	Objects func() ([]*corev1.Pod, []*corev1.Service)

	// Jobs are what objects ask this node to scrape now, and what of them is left
	// out, from memory; may be nil.
	Jobs func() ([]target.Job, []target.Dropped)

	// Others are the targets of other nodes and what these leave out, for the
	// listing; may be nil.
	Others func() ([]Status, []target.Dropped)

	// Resolve finds the address behind a name of the cluster. Who else knows names is
	// asked for those that are not ours, not for those it does not find. May be nil.
	Resolve func(ctx context.Context, host string) (ip string, ours bool, err error)

	// Wide answers whether objects that live in a namespace may make series of any
	// namespace; others make those of the namespace in which a target was found. nil:
	// none may.
	Wide func(namespace string) bool

	// CutOff hears of a target whose answer is not or not wholly stored, when that
	// begins and when its reason changes; may be nil.
	CutOff func(Status)

	// Refused hears each time Config.File was read whether it is in force (nil) or
	// why not; may be nil.
	Refused func(error)

	// Changed says that Objects may answer differently; may be nil, targets are
	// looked at every second anyway.
	Changed <-chan struct{}
}

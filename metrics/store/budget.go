package store

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

const (
	maxNamed = 50       // namespaces that are counted by name, the rest under theRest
	noName   = "(none)" // stands for no namespace in a count; none can be called so
	theRest  = "(others)"
	reserve  = 50               // one part of so many of all series is for those of no namespace
	tellWait = time.Minute      // between two log lines about one namespace
	quiet    = 10 * time.Minute // without a refusal, after which a name makes room for another
)

// Offender is a namespace whose new series are refused.
type Offender struct {
	Namespace string // empty: series of the cluster
	Series    int64  // it has now
	Refused   uint64 // since the store was opened, or since it is named
	Last      string // the newest series refused
	All       int64  // the limit of all series, if that is the reason: not the namespace's

	at time.Time // of the newest refusal
}

// budget refuses series above the limits. It counts by itself because the
// database asks it from inside its own locks.
type budget struct {
	limit, each int64
	metrics     *metrics
	log         *slog.Logger
	open        atomic.Bool // false during replay: what was accepted once stays
	series      atomic.Int64

	mu    sync.Mutex
	of    map[string]int64 // series by namespace
	over  map[string]*Offender
	since map[string]time.Time // last log line
}

func newBudget(cfg Config, log *slog.Logger, m *metrics) *budget {
	return &budget{limit: int64(cfg.SeriesLimit), each: int64(cfg.NamespaceLimit), metrics: m, log: log,
		of: map[string]int64{}, over: map[string]*Offender{}, since: map[string]time.Time{}}
}

// PreCreation says whether there is room for one more series.
func (b *budget) PreCreation(l labels.Labels) error {
	if !b.open.Load() {
		return nil
	}
	namespace := l.Get("namespace")
	limit := b.limit
	if namespace != "" { // else nobody would hear that series are refused: that is one too
		limit -= limit / reserve
	}
	if b.series.Load() >= limit {
		b.metrics.refused.WithLabelValues("series_limit").Inc()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.name(namespace, l, b.limit)
		return ErrSeriesLimit
	}
	if namespace == "" || b.each == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.of[namespace] < b.each {
		return nil
	}
	b.metrics.refused.WithLabelValues("namespace_limit").Inc()
	b.name(namespace, l, 0)
	return ErrSeriesLimit
}

// name keeps and tells whose series was refused; all is the limit of all series
// when that is the reason. Series of no namespace are those of the cluster.
func (b *budget) name(namespace string, l labels.Labels, all int64) {
	now, known := time.Now(), b.over[namespace]
	crowded := known == nil && len(b.over) >= maxNamed && !b.yield(now)
	offender, count := counted(namespace), b.metrics.overrun
	if crowded {
		offender = theRest
	}
	if all > 0 {
		count = b.metrics.crowded
	}
	count.WithLabelValues(offender).Inc()
	if crowded {
		return
	}
	if known == nil {
		known = &Offender{Namespace: namespace}
		b.over[namespace] = known
	}
	known.Refused++
	known.All, known.at = all, now
	if now.Sub(b.since[namespace]) < tellWait {
		return
	}
	b.since[namespace], known.Last = now, l.String()
	if all > 0 {
		b.log.Warn("series refused, the store has as many as it may", "namespace", namespace, "limit", all, "series", known.Last)
		return
	}
	b.log.Warn("series of a namespace refused, it has as many as it may", "namespace", namespace, "limit", b.each, "series", known.Last)
}

// PostCreation counts a series.
func (b *budget) PostCreation(l labels.Labels) {
	b.series.Add(1)
	b.count(l, 1)
}

// PostDeletion counts series that are no more.
func (b *budget) PostDeletion(gone map[chunks.HeadSeriesRef]labels.Labels) {
	b.series.Add(-int64(len(gone)))
	for _, l := range gone {
		b.count(l, -1)
	}
}

func (b *budget) count(l labels.Labels, n int64) {
	namespace := l.Get("namespace")
	if namespace == "" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.of[namespace] += n; b.of[namespace] <= 0 {
		delete(b.of, namespace)
		b.forget(namespace)
	}
}

// yield forgets who was refused nothing for longest, if that is long enough.
func (b *budget) yield(now time.Time) bool {
	var longest *Offender
	for _, o := range b.over {
		if longest == nil || o.at.Before(longest.at) {
			longest = o
		}
	}
	if longest == nil || now.Sub(longest.at) < quiet {
		return false
	}
	b.forget(longest.Namespace)
	return true
}

// counted is a namespace as a count names it. One that is no text, which OTLP may bring,
// would be a panic in the middle of an append.
func counted(namespace string) string {
	return cmp.Or(strings.ToValidUTF8(namespace, "\uFFFD"), noName)
}

// forget lets a namespace have no name here, nor a count of its own.
func (b *budget) forget(namespace string) {
	if _, known := b.over[namespace]; !known {
		return
	}
	delete(b.over, namespace)
	delete(b.since, namespace)
	name := counted(namespace)
	b.metrics.overrun.DeleteLabelValues(name)
	b.metrics.crowded.DeleteLabelValues(name)
}

func (b *budget) offenders() []Offender {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Offender, 0, len(b.over))
	for _, o := range b.over {
		x := *o
		x.Series = b.of[o.Namespace]
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b Offender) int { return cmp.Compare(a.Namespace, b.Namespace) })
	return out
}

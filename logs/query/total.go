package query

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/record"
)

// maxCounted streams have counters of their own by pod; lines of further pods
// are counted under Others.
const maxCounted = 5000

// quietAfter is how long a pod that is gone must have written nothing before its
// counters are let go. Several samples were taken meanwhile.
const quietAfter = 5 * time.Minute

// Total counts stored lines as perch_log_lines_total by namespace, pod and
// level, so that PromQL can ask for them. Counters of pods that are gone are let
// go.
type Total struct {
	store func(context.Context, []record.Record, []record.Position) error
	alive func(namespace, pod string) bool
	now   func() time.Time
	lines *prometheus.CounterVec

	mu   sync.Mutex // guards what follows
	pods map[pod]*counted
}

// counted is what is counted of a pod.
type counted struct {
	levels [record.LevelCount]level
	last   time.Time // when it wrote
}

// level is one counter. It is 0 in its first sample, so that PromQL sees its first
// lines as an increase.
type level struct {
	counter prometheus.Counter // nil: there is no line
	first   int64              // lines that it does not have yet
	samples int                // up to two
}

func (l *level) add() {
	if l.samples > 1 {
		l.counter.Inc()
	} else {
		l.first++
	}
}

// sample begins a sample. What a sample reads is read later.
func (l *level) sample() {
	if l.counter == nil || l.samples > 1 {
		return
	}
	if l.samples++; l.samples > 1 {
		l.counter.Add(float64(l.first))
	}
}

// pod is one that has counters.
type pod struct{ namespace, name string }

// NewTotal makes the counters of what store keeps. alive tells whether a pod is
// still there.
func NewTotal(store func(context.Context, []record.Record, []record.Position) error, alive func(namespace, pod string) bool, reg prometheus.Registerer) *Total {
	t := &Total{store: store, alive: alive, now: time.Now, pods: map[pod]*counted{},
		lines: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_log_lines_total", Help: "Log lines stored, by the namespace and pod that wrote them and by level."}, []string{"namespace", "pod", "level"})}
	reg.MustRegister(t)
	return t
}

// Describe implements prometheus.Collector.
func (t *Total) Describe(ch chan<- *prometheus.Desc) { t.lines.Describe(ch) }

// Collect implements prometheus.Collector: a sample, after which the counters of
// pods that are gone are let go.
func (t *Total) Collect(ch chan<- prometheus.Metric) {
	t.mu.Lock()
	for _, c := range t.pods {
		for i := range c.levels {
			c.levels[i].sample()
		}
	}
	t.mu.Unlock()
	t.lines.Collect(ch)
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for p, c := range t.pods {
		if now.Sub(c.last) < quietAfter || p.namespace == Others || p.namespace == record.HostNamespace || t.alive(p.namespace, p.name) {
			continue
		}
		for i, l := range c.levels {
			if l.counter != nil {
				t.lines.DeleteLabelValues(p.namespace, p.name, record.Level(i).String())
			}
		}
		delete(t.pods, p)
	}
}

// Append stores records, and counts them when they are stored.
func (t *Total) Append(ctx context.Context, records []record.Record, positions []record.Position) error {
	if err := t.store(ctx, records, positions); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var last *record.Stream
	var of pod
	var c *counted
	now := t.now()
	for i := range records {
		r := &records[i]
		if r.Stream != last {
			last = r.Stream
			of, c = t.of(last)
			c.last = now
		}
		i := levelIndex(byte(r.Level))
		l := &c.levels[i]
		if l.counter == nil {
			l.counter = t.lines.WithLabelValues(of.namespace, of.name, record.Level(i).String())
		}
		l.add()
	}
	return nil
}

// of returns under which pod a stream is counted, and its counters. Called with
// mu held.
func (t *Total) of(s *record.Stream) (pod, *counted) {
	p := pod{s.Namespace, s.Pod}
	c, ok := t.pods[p]
	if !ok && len(t.pods) >= maxCounted {
		p = pod{Others, Others}
		c, ok = t.pods[p]
	}
	if !ok {
		c = &counted{}
		t.pods[p] = c
	}
	return p, c
}

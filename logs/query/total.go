package query

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/record"
)

// maxCounted streams have counters of their own by pod; lines of further pods
// are counted under Others.
const maxCounted = 5000

// Total counts stored lines as perch_log_lines_total by namespace, pod and
// level, so that PromQL can ask for them.
type Total struct {
	store func(context.Context, []record.Record, []record.Position) error
	lines *prometheus.CounterVec

	mu   sync.Mutex // guards what follows
	pods map[pod]*[record.LevelCount]prometheus.Counter
}

// pod is one that has counters.
type pod struct{ namespace, name string }

// NewTotal makes the counters of what store keeps.
func NewTotal(store func(context.Context, []record.Record, []record.Position) error, reg prometheus.Registerer) *Total {
	t := &Total{store: store, pods: map[pod]*[record.LevelCount]prometheus.Counter{},
		lines: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_log_lines_total", Help: "Log lines stored, by the namespace and pod that wrote them and by level."}, []string{"namespace", "pod", "level"})}
	reg.MustRegister(t.lines)
	return t
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
	var counters *[record.LevelCount]prometheus.Counter
	for i := range records {
		r := &records[i]
		if r.Stream != last {
			last = r.Stream
			of, counters = t.of(last)
		}
		level := levelIndex(byte(r.Level))
		if counters[level] == nil {
			counters[level] = t.lines.WithLabelValues(of.namespace, of.name, record.Level(level).String())
		}
		counters[level].Inc()
	}
	return nil
}

// of returns under which pod a stream is counted, and its counters. Called with
// mu held.
func (t *Total) of(s *record.Stream) (pod, *[record.LevelCount]prometheus.Counter) {
	p := pod{s.Namespace, s.Pod}
	c, ok := t.pods[p]
	if !ok && len(t.pods) >= maxCounted {
		p = pod{Others, Others}
		c, ok = t.pods[p]
	}
	if !ok {
		c = &[record.LevelCount]prometheus.Counter{}
		t.pods[p] = c
	}
	return p, c
}

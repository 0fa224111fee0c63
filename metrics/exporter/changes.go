package exporter

import (
	"math"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// retell is how often the numbers of an object are told that stay as they are;
	// changes are told at once.
	retell = 15 * time.Second

	// oldestZero is how far back a counter may be said to have been zero: the store
	// takes samples up to an hour old.
	oldestZero = 30 * time.Minute
)

// Sample is the same unnamed type as the store's.
type Sample = struct {
	ID     uint64
	Labels labels.Labels
	T      int64
	V      float64
}

// seen is what Samples remembers. Its size is that of the objects.
type seen struct {
	base   []label
	began  time.Time
	round  uint64
	lastID uint64
	kinds  []map[name]*told
	build  labels.ScratchBuilder
	fresh  []series // of the object at hand
}

type label struct{ name, value string }

type name struct{ namespace, name string }

// told is an object and what was said of it. A new state of an object is a new
// pointer: what a list gives is never written to.
type told struct {
	object metav1.Object
	round  uint64
	at     time.Time
	series []series // in the order of their labels
}

type series struct {
	id     uint64
	labels labels.Labels
	v      float64
	since  time.Time // while fresh: when the counter was zero
}

// Samples are the numbers to be told now: those of new objects, those that
// changed, and every 15 s the rest; ends of series whose object is gone. base are
// labels of all series, where the series has none of that name.
func (o *Objects) Samples(base map[string]string, at time.Time) []Sample {
	s := &o.seen
	if s.began.IsZero() {
		s.began, s.kinds, s.build = at, make([]map[name]*told, len(o.kinds)), labels.NewScratchBuilder(16)
		for n, v := range base {
			if v != "" {
				s.base = append(s.base, label{n, v})
			}
		}
	}
	s.round++
	var batch []Sample
	for i, k := range o.kinds {
		if s.kinds[i] == nil {
			s.kinds[i] = map[name]*told{}
		}
		known, n := s.kinds[i], 0
		k.each(func(x metav1.Object) {
			n++
			key := name{x.GetNamespace(), x.GetName()}
			t := known[key]
			if t == nil {
				// Objects that are there from the beginning take turns later on.
				t = &told{at: at.Add(-time.Duration(n%3) * retell / 3)}
				known[key] = t
			}
			t.round = s.round
			if t.object != x {
				batch = s.change(t, k, x, at, batch)
				t.object = x
			}
			if at.Sub(t.at) < retell-time.Second { // ticks are a little early or late
				return
			}
			t.at = at
			for _, y := range t.series {
				batch = append(batch, Sample{y.id, y.labels, at.UnixMilli(), y.v})
			}
		})
		for key, t := range known {
			if t.round != s.round {
				batch = end(t.series, at, batch)
				delete(known, key)
			}
		}
	}
	return batch
}

// change writes an object anew, tells what is new or another number, and ends
// what it has no more.
func (s *seen) change(t *told, k kind, x metav1.Object, at time.Time, batch []Sample) []Sample {
	s.fresh = s.fresh[:0]
	k.write(&sender{s.take}, x)
	slices.SortStableFunc(s.fresh, func(a, b series) int { return labels.Compare(a.labels, b.labels) })
	// An object that says something twice is heard once.
	s.fresh = slices.CompactFunc(s.fresh, func(a, b series) bool { return labels.Equal(a.labels, b.labels) })
	before, ms := t.series, at.UnixMilli()
	now := make([]series, 0, len(s.fresh))
	for _, y := range s.fresh {
		order := -1
		for len(before) > 0 {
			if order = labels.Compare(before[0].labels, y.labels); order >= 0 {
				break
			}
			batch = end(before[:1], at, batch)
			before = before[1:]
		}
		if len(before) > 0 && order == 0 {
			changed := before[0].v != y.v
			before[0].v = y.v
			y, before = before[0], before[1:]
			if changed {
				batch = append(batch, Sample{y.id, y.labels, ms, y.v})
			}
		} else {
			s.lastID++
			y.id = s.lastID
			if made := y.since; !made.IsZero() && y.v > 0 && !made.Before(s.began) && made.Before(at) {
				// What happened before the first look is an increase too; what an earlier
				// process may have stored is not told again.
				zero := max(made.UnixMilli(), ms-oldestZero.Milliseconds())
				batch = append(batch, Sample{y.id, y.labels, zero, 0})
			}
			y.since = time.Time{}
			batch = append(batch, Sample{y.id, y.labels, ms, y.v})
		}
		now = append(now, y)
	}
	batch = end(before, at, batch)
	t.series = now
	clear(s.fresh)
	return batch
}

func end(list []series, at time.Time, batch []Sample) []Sample {
	for _, y := range list {
		batch = append(batch, Sample{y.id, y.labels, at.UnixMilli(), math.Float64frombits(value.StaleNaN)})
	}
	return batch
}

// take is a send that keeps labels for good; base labels give way.
func (s *seen) take(_ prometheus.ValueType, name, _ string, v float64, since time.Time, pairs []string) {
	s.build.Reset()
	s.build.Add(labels.MetricName, name)
	for _, l := range s.base {
		if !named(pairs, l.name) {
			s.build.Add(l.name, l.value)
		}
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			s.build.Add(pairs[i], pairs[i+1])
		}
	}
	s.build.Sort()
	s.fresh = append(s.fresh, series{labels: s.build.Labels(), v: v, since: since})
}

func named(pairs []string, name string) bool {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] == name {
			return true
		}
	}
	return false
}

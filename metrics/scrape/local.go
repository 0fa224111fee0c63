package scrape

import (
	"context"
	"math"
	"strconv"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

// local remembers the series of one registry from round to round.
type local struct {
	labels map[string]string
	honor  bool
	series map[string]*localSeries
	round  uint64
	lastID uint64
	began  int64 // first round, in ms
}

type localSeries struct {
	id     uint64
	labels labels.Labels
	round  uint64
}

// runLocal gathers one registry, the i-th, until ctx ends.
func (l *Loop) runLocal(ctx context.Context, i int) {
	from := l.cfg.Local[i]
	every := from.Interval
	if every <= 0 {
		every = l.cfg.Interval
	}
	own := l.withNode(from.Labels)
	s := &local{labels: own, honor: from.Honor, series: map[string]*localSeries{}, lastID: 1 << 62} // below are the IDs of Samples
	store := l.parts.Inlet()
	wait := min(every, lookInterval) // the first numbers soon
	for {
		var asked chan struct{}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		case asked = <-from.Now:
		}
		began := time.Now()
		var batch []Sample
		if from.Samples != nil {
			told := from.Samples(own, began)
			batch = append(told, s.told(len(told), began)...)
		} else {
			families, err := from.Gather.Gather()
			l.gathered(i, families)
			batch = s.samples(families, began, err)
		}
		if err := store(ctx, batch); err != nil && ctx.Err() == nil {
			l.log.Warn("samples of a local registry were not stored", "err", err, "count", len(batch))
		}
		if asked != nil {
			close(asked)
		}
		now := time.Now()
		wait = now.Truncate(every).Add(every).Sub(now)
	}
}

// samples flattens families the way the text format does, adds up and
// scrape_*, and ends series that are no more.
func (s *local) samples(families []*dto.MetricFamily, at time.Time, err error) []Sample {
	s.round++
	ms := at.UnixMilli()
	if s.began == 0 {
		s.began = ms
	}
	var batch []Sample
	add := func(name string, m *dto.Metric, v float64, extra ...string) {
		batch = append(batch, s.sample(name, m, ms, v, extra...))
	}
	for _, f := range families {
		name := f.GetName()
		for _, m := range f.GetMetric() {
			switch {
			case m.Counter != nil:
				known := s.lastID
				x := s.sample(name, m, ms, m.Counter.GetValue())
				if zero, ok := s.zero(x, m.Counter, known != s.lastID); ok {
					batch = append(batch, zero)
				}
				batch = append(batch, x)
			case m.Gauge != nil:
				add(name, m, m.Gauge.GetValue())
			case m.Untyped != nil:
				add(name, m, m.Untyped.GetValue())
			case m.Summary != nil:
				for _, q := range m.Summary.GetQuantile() {
					add(name, m, q.GetValue(), "quantile", bound(q.GetQuantile()))
				}
				add(name+"_sum", m, m.Summary.GetSampleSum())
				add(name+"_count", m, float64(m.Summary.GetSampleCount()))
			case m.Histogram != nil:
				infinite := false
				for _, b := range m.Histogram.GetBucket() {
					infinite = infinite || math.IsInf(b.GetUpperBound(), 1)
					add(name+"_bucket", m, float64(b.GetCumulativeCount()), "le", bound(b.GetUpperBound()))
				}
				if !infinite {
					add(name+"_bucket", m, float64(m.Histogram.GetSampleCount()), "le", "+Inf")
				}
				add(name+"_sum", m, m.Histogram.GetSampleSum())
				add(name+"_count", m, float64(m.Histogram.GetSampleCount()))
			}
		}
	}
	up := 1.0
	if err != nil && len(families) == 0 {
		up = 0
	}
	n := float64(len(batch))
	add("up", nil, up)
	add("scrape_duration_seconds", nil, time.Since(at).Seconds())
	add("scrape_samples_scraped", nil, n)
	for key, x := range s.series {
		if x.round != s.round {
			batch = append(batch, Sample{ID: x.id, Labels: x.labels, T: ms, V: math.Float64frombits(value.StaleNaN)})
			delete(s.series, key)
		}
	}
	return batch
}

// told are up and scrape_* of a source that makes samples itself.
func (s *local) told(n int, at time.Time) []Sample {
	ms := at.UnixMilli()
	return []Sample{
		s.sample("up", nil, ms, 1), s.sample("scrape_duration_seconds", nil, ms, time.Since(at).Seconds()),
		s.sample("scrape_samples_scraped", nil, ms, float64(n)),
	}
}

// oldestZero is how far back a counter may be said to have been zero: the store
// takes samples up to an hour old.
const oldestZero = 30 * time.Minute

// zero is the sample of a counter's beginning, where the counter tells it and
// was not there before: otherwise what happened before the first look at it,
// the crash of a container in its first seconds, is no increase to any query.
func (s *local) zero(x Sample, c *dto.Counter, fresh bool) (Sample, bool) {
	if !fresh || c.CreatedTimestamp == nil || x.V <= 0 {
		return Sample{}, false
	}
	made := c.CreatedTimestamp.AsTime().UnixMilli()
	if made < s.began || made >= x.T { // before this process: an earlier one may have stored it
		return Sample{}, false
	}
	x.T, x.V = max(made, x.T-oldestZero.Milliseconds()), 0
	return x, true
}

// bound writes a bucket's limit or a quantile as Prometheus stores what it
// scrapes: 1.0, not 1.
func bound(v float64) string {
	if math.IsInf(v, 1) {
		return "+Inf"
	}
	text := strconv.FormatFloat(v, 'g', -1, 64)
	for _, c := range text {
		if c == '.' || c == 'e' {
			return text
		}
	}
	return text + ".0"
}

func (s *local) sample(name string, m *dto.Metric, ms int64, v float64, extra ...string) Sample {
	key := make([]byte, 0, 128)
	key = append(key, name...)
	for _, l := range m.GetLabel() {
		key = append(append(append(append(key, 0), l.GetName()...), 1), l.GetValue()...)
	}
	for _, e := range extra {
		key = append(append(key, 2), e...)
	}
	x := s.series[string(key)]
	if x == nil {
		s.lastID++
		x = &localSeries{id: s.lastID, labels: s.set(name, m, extra)}
		s.series[string(key)] = x
	}
	x.round = s.round
	return Sample{ID: x.id, Labels: x.labels, T: ms, V: v}
}

// set joins the labels of target and sample. Where both have one the target
// wins and the sample's is kept as exported_NAME, unless honored.
func (s *local) set(name string, m *dto.Metric, extra []string) labels.Labels {
	b := labels.NewBuilder(labels.EmptyLabels())
	for k, v := range s.labels {
		b.Set(k, v) // empty means absent
	}
	for _, l := range m.GetLabel() {
		switch have := s.labels[l.GetName()]; {
		case have == "" || s.honor:
			b.Set(l.GetName(), l.GetValue())
		default:
			b.Set("exported_"+l.GetName(), l.GetValue())
		}
	}
	for i := 0; i+1 < len(extra); i += 2 {
		b.Set(extra[i], extra[i+1])
	}
	b.Set(labels.MetricName, name)
	return b.Labels()
}

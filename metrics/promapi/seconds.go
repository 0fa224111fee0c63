package promapi

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// A selector with the matcher ring="1s" reads, beside the store, what nodes keep
// of their containers second by second for ten minutes:
//
//	rate(container_cpu_usage_seconds_total{pod="web-1", ring="1s"}[5s])
//
// The matcher itself is taken off; the series have the labels that they have in
// the store.
const (
	ringLabel   = "ring"
	ringSeconds = "1s"
)

// Second is a series of the ring; times in ms. End is when it ended, 0 if it
// goes on.
type Second struct {
	Labels labels.Labels
	T      []int64
	V      []float64
	End    int64
}

// Seconds asks nodes for series of the last ten minutes, one value a second.
// missing are the nodes that did not answer.
type Seconds func(ctx context.Context, ms []*labels.Matcher, start, end int64) (list []Second, missing []string)

// wantsRing says whether a selector asks for the ring, and what of it is for
// the store.
func wantsRing(ms []*labels.Matcher) ([]*labels.Matcher, bool) {
	i := slices.IndexFunc(ms, func(m *labels.Matcher) bool {
		return m.Name == ringLabel && m.Type == labels.MatchEqual && m.Value == ringSeconds
	})
	if i < 0 {
		return ms, false
	}
	return append(slices.Clone(ms[:i]), ms[i+1:]...), true
}

// withRing joins what the store and the nodes know.
func (q guardedQuerier) withRing(ctx context.Context, hints *storage.SelectHints, ms []*labels.Matcher) storage.SeriesSet {
	stored := q.q.Select(ctx, true, hints, ms...)
	if q.seconds == nil || hints == nil {
		return stored
	}
	list, missing := q.seconds(ctx, ms, hints.Start, hints.End)
	slices.SortFunc(list, func(a, b Second) int { return labels.Compare(a.Labels, b.Labels) })
	list = slices.CompactFunc(list, func(a, b Second) bool { return labels.Equal(a.Labels, b.Labels) })
	ring := &ringSet{list: list, at: -1}
	for _, node := range missing {
		ring.warnings.Add(fmt.Errorf(partial+"no seconds from %s", node))
	}
	return storage.NewMergeSeriesSet([]storage.SeriesSet{stored, ring}, 0, storage.ChainedSeriesMerge)
}

// ringSet is a storage.SeriesSet.
type ringSet struct {
	list     []Second
	at       int
	warnings annotations.Annotations
}

func (s *ringSet) Next() bool                        { s.at++; return s.at < len(s.list) }
func (s *ringSet) Err() error                        { return nil }
func (s *ringSet) Warnings() annotations.Annotations { return s.warnings }

func (s *ringSet) At() storage.Series {
	x := s.list[s.at]
	samples := make([]chunks.Sample, 0, len(x.T)+1)
	for i, t := range x.T {
		samples = append(samples, ringPoint{t, x.V[i]})
	}
	if x.End > 0 {
		samples = append(samples, ringPoint{x.End, math.Float64frombits(value.StaleNaN)})
	}
	return storage.NewListSeries(x.Labels, samples)
}

// ringPoint is a chunks.Sample.
type ringPoint struct {
	t int64
	v float64
}

func (p ringPoint) T() int64                      { return p.t }
func (p ringPoint) ST() int64                     { return 0 }
func (p ringPoint) F() float64                    { return p.v }
func (p ringPoint) H() *histogram.Histogram       { return nil }
func (p ringPoint) FH() *histogram.FloatHistogram { return nil }
func (p ringPoint) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (p ringPoint) Copy() chunks.Sample           { return p }

package share

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

type querier struct {
	labelQuerier
	here storage.Querier
}

// Select merges the series of all stores.
func (q querier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	lists, warning := q.lists(ctx, hints, ms)
	if len(lists) == 0 && len(warning) == 0 {
		return q.here.Select(ctx, sorted, hints, ms...)
	}
	sets := []storage.SeriesSet{q.here.Select(ctx, true, hints, ms...)}
	for _, l := range lists {
		sets = append(sets, &listed{list: l})
	}
	return warned{storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge), warning}
}

type chunkQuerier struct {
	labelQuerier
	here storage.ChunkQuerier
}

// Select merges the series of all stores.
func (q chunkQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.ChunkSeriesSet {
	lists, warning := q.lists(ctx, hints, ms)
	if len(lists) == 0 && len(warning) == 0 {
		return q.here.Select(ctx, sorted, hints, ms...)
	}
	sets := []storage.ChunkSeriesSet{q.here.Select(ctx, true, hints, ms...)}
	for _, l := range lists {
		sets = append(sets, storage.NewSeriesSetToChunkSet(&listed{list: l}))
	}
	return warnedChunks{storage.NewMergeChunkSeriesSet(sets, 0, storage.NewCompactingChunkSeriesMerger(storage.ChainedSeriesMerge)), warning}
}

// labelQuerier is what both have.
type labelQuerier struct {
	fan        *Fan
	gap        Gap
	mint, maxt int64
	here       storage.LabelQuerier
}

// lists are the series of other stores of the time that the server lacks, one list
// for each that answered.
func (q labelQuerier) lists(ctx context.Context, hints *storage.SelectHints, ms []*labels.Matcher) ([][]storage.Series, annotations.Annotations) {
	mint, maxt := q.mint, q.maxt
	if hints != nil {
		mint, maxt = max(mint, hints.Start), min(maxt, hints.End)
	}
	mint, maxt, some := q.gap.within(mint, maxt)
	if !some {
		return nil, nil
	}
	return question(ctx, q.fan, q.gap, maxt, func(p *peer) ([]storage.Series, error) { return p.list(ctx, mint, maxt, hints, ms) })
}

// LabelValues is storage.LabelQuerier.
func (q labelQuerier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.union(ctx, name, hints, ms, func(h storage.LabelQuerier) ([]string, annotations.Annotations, error) {
		return h.LabelValues(ctx, name, hints, ms...)
	})
}

// LabelNames is storage.LabelQuerier.
func (q labelQuerier) LabelNames(ctx context.Context, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.union(ctx, "", hints, ms, func(h storage.LabelQuerier) ([]string, annotations.Annotations, error) {
		return h.LabelNames(ctx, hints, ms...)
	})
}

func (q labelQuerier) union(ctx context.Context, name string, hints *storage.LabelHints, ms []*labels.Matcher,
	ask func(storage.LabelQuerier) ([]string, annotations.Annotations, error)) ([]string, annotations.Annotations, error) {
	out, warnings, err := ask(q.here)
	from, to, some := q.gap.within(q.mint, q.maxt)
	if err != nil || !some {
		return out, warnings, err
	}
	what := labelsQuestion{Name: name, From: from, To: to, Matchers: ms}
	if hints != nil {
		what.Limit = hints.Limit
	}
	lists, warning := question(ctx, q.fan, q.gap, to, func(p *peer) ([]string, error) { return p.labels(ctx, what) })
	for _, l := range lists {
		out = append(out, l...)
	}
	slices.Sort(out)
	out = slices.Compact(out)
	if what.Limit > 0 && len(out) > what.Limit {
		out = out[:what.Limit]
	}
	return out, both(warnings, warning), nil
}

// Close closes the server's store.
func (q labelQuerier) Close() error { return q.here.Close() }

// listed is a series set of what is in memory.
type listed struct {
	list []storage.Series
	next int
}

func (l *listed) Next() bool                        { l.next++; return l.next <= len(l.list) }
func (l *listed) At() storage.Series                { return l.list[l.next-1] }
func (l *listed) Err() error                        { return nil }
func (l *listed) Warnings() annotations.Annotations { return nil }

type warned struct {
	storage.SeriesSet
	more annotations.Annotations
}

func (w warned) Warnings() annotations.Annotations { return both(w.SeriesSet.Warnings(), w.more) }

type warnedChunks struct {
	storage.ChunkSeriesSet
	more annotations.Annotations
}

func (w warnedChunks) Warnings() annotations.Annotations {
	return both(w.ChunkSeriesSet.Warnings(), w.more)
}

func both(a, b annotations.Annotations) annotations.Annotations {
	if len(b) == 0 {
		return a
	}
	out := annotations.New()
	out.Merge(a)
	return out.Merge(b)
}

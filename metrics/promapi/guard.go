package promapi

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// readable is what of a store is read.
type readable interface {
	storage.SampleAndChunkQueryable
	storage.ExemplarQueryable
}

// guard shows of a store what the caller in the context may see, and adds the
// warning of a partial answer. All reads of the API go through it.
type guard struct {
	under   readable
	missing func(context.Context) []string
	seconds Seconds // nil: nodes keep none
}

func (g guard) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := g.under.Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	return guardedQuerier{labelGuard{g, q}, q}, nil
}

func (g guard) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	q, err := g.under.ChunkQuerier(mint, maxt)
	if err != nil {
		return nil, err
	}
	return guardedChunks{labelGuard{g, q}, q}, nil
}

// ExemplarQuerier is storage.ExemplarQueryable.
func (g guard) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	q, err := g.under.ExemplarQuerier(ctx)
	if err != nil {
		return nil, err
	}
	return guardedExemplars{g, ctx, q}, nil
}

// guardedExemplars carries the caller's context, which Select is not given.
type guardedExemplars struct {
	guard
	ctx context.Context
	q   storage.ExemplarQuerier
}

func (q guardedExemplars) Select(start, end int64, sets ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	narrowed := make([][]*labels.Matcher, 0, len(sets))
	for _, ms := range sets {
		ms, some := narrow(q.ctx, ms)
		if !some {
			return nil, nil
		}
		narrowed = append(narrowed, ms)
	}
	found, err := q.q.Select(start, end, narrowed...)
	if say, ok := q.ctx.Value(exemplarWarnings{}).(*annotations.Annotations); ok {
		*say = merge(*say, q.warnings(q.ctx))
		if w, ok := q.q.(Warned); ok {
			*say = merge(*say, w.Warnings())
		}
	}
	return found, err
}

// partial begins the warning of an answer from which series may be missing; the
// store below the guard may have such warnings too.
const partial = "partial answer: "

// Partial answers whether one of an answer's warnings says that series may be
// missing from it.
func Partial(warnings []string) bool {
	return slices.ContainsFunc(warnings, func(w string) bool { return strings.HasPrefix(w, partial) })
}

// warnings names the nodes whose newest samples are not here.
func (g guard) warnings(ctx context.Context) annotations.Annotations {
	if g.missing == nil {
		return nil
	}
	nodes := g.missing(ctx)
	if len(nodes) == 0 {
		return nil
	}
	return annotations.New().Add(fmt.Errorf(partial+"no recent samples from %s", strings.Join(nodes, ", ")))
}

// narrow adds the caller's matcher; false means that nothing is visible.
func narrow(ctx context.Context, ms []*labels.Matcher) ([]*labels.Matcher, bool) {
	a := AccessOf(ctx)
	if a.nothing() {
		return nil, false
	}
	if m := a.matcher(); m != nil {
		// A new slice: the engine shares its own between evaluations.
		ms = append(append(make([]*labels.Matcher, 0, len(ms)+1), ms...), m)
	}
	return ms, true
}

type labelGuard struct {
	guard
	q storage.LabelQuerier
}

func (l labelGuard) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	ms, some := narrow(ctx, ms)
	if !some {
		return nil, nil, nil
	}
	values, w, err := l.q.LabelValues(ctx, name, hints, ms...)
	return values, merge(w, l.warnings(ctx)), err
}

func (l labelGuard) LabelNames(ctx context.Context, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	ms, some := narrow(ctx, ms)
	if !some {
		return nil, nil, nil
	}
	names, w, err := l.q.LabelNames(ctx, hints, ms...)
	return names, merge(w, l.warnings(ctx)), err
}

func (l labelGuard) Close() error { return l.q.Close() }

type guardedQuerier struct {
	labelGuard
	q storage.Querier
}

func (q guardedQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	ms, some := narrow(ctx, ms)
	if !some {
		return storage.EmptySeriesSet()
	}
	if ms, ring := wantsRing(ms); ring {
		return warnedSeries{q.withRing(ctx, hints, ms), q.warnings(ctx)}
	}
	return warnedSeries{q.q.Select(ctx, sorted, hints, ms...), q.warnings(ctx)}
}

type guardedChunks struct {
	labelGuard
	q storage.ChunkQuerier
}

func (q guardedChunks) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.ChunkSeriesSet {
	ms, some := narrow(ctx, ms)
	if !some {
		return storage.EmptyChunkSeriesSet()
	}
	return warnedChunks{q.q.Select(ctx, sorted, hints, ms...), q.warnings(ctx)}
}

type warnedSeries struct {
	storage.SeriesSet
	more annotations.Annotations
}

func (s warnedSeries) Warnings() annotations.Annotations {
	return merge(s.SeriesSet.Warnings(), s.more)
}

type warnedChunks struct {
	storage.ChunkSeriesSet
	more annotations.Annotations
}

func (s warnedChunks) Warnings() annotations.Annotations {
	return merge(s.ChunkSeriesSet.Warnings(), s.more)
}

func merge(a, b annotations.Annotations) annotations.Annotations {
	if len(b) == 0 {
		return a
	}
	out := annotations.New()
	out.Merge(a)
	return out.Merge(b)
}

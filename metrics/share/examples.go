package share

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// sent is exemplars as they travel.
func sent(found []exemplar.QueryResult) []exampled {
	out := make([]exampled, 0, len(found))
	for _, f := range found {
		s := exampled{Series: f.SeriesLabels}
		for _, e := range f.Exemplars {
			s.Of = append(s.Of, example{e.Labels, e.Ts, math.Float64bits(e.Value)})
		}
		out = append(out, s)
	}
	return out
}

// exemplars reads those of a time; a store of an older version has none.
func (p *peer) exemplars(ctx context.Context, question examplesQuestion) (out []exemplar.QueryResult, _ error) {
	done, err := p.turn(ctx)
	if err != nil {
		return nil, p.failed(ctx, err)
	}
	defer done()
	body, err := json.Marshal(question)
	if err != nil {
		return nil, p.failed(ctx, err)
	}
	var got []exampled
	switch err := p.ask(ctx, http.MethodPost, examplesPath, body, &got); {
	case errors.Is(err, errNoDoor):
		return nil, nil
	case err != nil:
		return nil, p.failed(ctx, err)
	}
	for _, s := range got {
		r := exemplar.QueryResult{SeriesLabels: s.Series}
		for _, e := range s.Of {
			r.Exemplars = append(r.Exemplars, exemplar.Exemplar{Labels: e.With, Value: math.Float64frombits(e.Bits), Ts: e.T, HasTs: true})
		}
		out = append(out, r)
	}
	return out, nil
}

// ExemplarQuerier is storage.ExemplarQueryable over all stores. Which of them did not
// answer Select is told by Warnings, see promapi.Warned.
func (f *Fan) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	own, err := f.Store.ExemplarQuerier(ctx)
	if err != nil {
		return nil, err
	}
	return &exemplarQuerier{ctx: ctx, fan: f, here: own}, nil
}

type exemplarQuerier struct {
	ctx  context.Context // of the request, which Select is not given
	fan  *Fan
	here storage.ExemplarQuerier
	more annotations.Annotations
}

// Warnings are those of all answers of Select.
func (q *exemplarQuerier) Warnings() annotations.Annotations { return q.more }

// Select merges the exemplars of all stores: series by labels, exemplars by time.
func (q *exemplarQuerier) Select(from, to int64, sets ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	own, err := q.here.Select(from, to, sets...)
	gap := q.fan.parts.Gap()
	if err != nil || !q.fan.lacks(gap, from, to) {
		return own, err
	}
	from, to, _ = gap.within(from, to)
	lists, warning := question(q.ctx, q.fan, gap, to, func(p *peer) ([]exemplar.QueryResult, error) {
		return p.exemplars(q.ctx, examplesQuestion{from, to, sets})
	})
	q.more = both(q.more, warning)
	all := slices.Concat(append(lists, own)...)
	slices.SortStableFunc(all, func(a, b exemplar.QueryResult) int { return labels.Compare(a.SeriesLabels, b.SeriesLabels) })
	out := all[:0]
	for _, r := range all {
		if n := len(out); n == 0 || !labels.Equal(out[n-1].SeriesLabels, r.SeriesLabels) {
			out = append(out, r)
			continue
		}
		last := &out[len(out)-1]
		both := slices.Concat(last.Exemplars, r.Exemplars)
		slices.SortStableFunc(both, func(a, b exemplar.Exemplar) int {
			return cmp.Or(cmp.Compare(a.Ts, b.Ts), cmp.Compare(a.Value, b.Value), labels.Compare(a.Labels, b.Labels))
		})
		last.Exemplars = slices.CompactFunc(both, func(a, b exemplar.Exemplar) bool { return a.Equals(b) })
	}
	return out, nil
}

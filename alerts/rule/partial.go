package rule

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
)

// ErrPartial comes from Data.Query with an answer that holds, but from which series
// may be missing.
var ErrPartial = errors.New("the answer is partial")

// groupKey is where an evaluation's context has its group.
type groupKey struct{}

// whole lets no partial answer resolve an alert: what fires and is not in the
// answer goes on to fire as it did. What a partial answer has counts.
func (r *Rules) whole(query rules.QueryFunc) rules.QueryFunc {
	return func(ctx context.Context, expr string, at time.Time) (promql.Vector, error) {
		v, err := query(ctx, expr, at)
		if !errors.Is(err, ErrPartial) {
			return v, err
		}
		asks := rules.FromOriginContext(ctx)
		g, ok := ctx.Value(groupKey{}).(*rules.Group)
		if !ok || asks.Kind != rules.KindAlerting || asks.Query != expr { // a record, or a template of an alert
			return v, nil
		}
		for _, x := range g.Rules() {
			a, ok := x.(*rules.AlertingRule)
			if ok && a.Name() == asks.Name && a.Query().String() == asks.Query && labels.Equal(a.Labels(), asks.Labels) {
				held := lacking(v, a.ActiveAlerts(), a.Labels(), at)
				r.held.Add(float64(len(held)))
				return append(v, held...), nil
			}
		}
		return v, nil
	}
}

// lacking are samples that keep those of a rule's alerts firing that fire and have
// none in v. own are the labels that the rule sets.
func lacking(v promql.Vector, alerts []*rules.Alert, own labels.Labels, at time.Time) (out promql.Vector) {
	set := []string{labels.MetricName, labels.AlertName}
	own.Range(func(l labels.Label) { set = append(set, l.Name) })
	var b labels.Builder
	identity := func(l labels.Labels) uint64 {
		b.Reset(l)
		return b.Del(set...).Labels().Hash()
	}
	have := map[uint64]bool{}
	for _, s := range v {
		have[identity(s.Metric)] = true
	}
	for _, a := range alerts {
		if a.State == rules.StateFiring && !have[identity(a.Labels)] {
			b.Reset(a.Labels)
			out = append(out, promql.Sample{Metric: b.Del(labels.AlertName).Labels(), T: at.UnixMilli(), F: a.Value})
		}
	}
	return out
}

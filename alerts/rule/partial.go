package rule

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// ErrPartial comes from Data.Query with an answer that holds, but from which series
// may be missing.
var ErrPartial = errors.New("the answer is partial")

// stateLabel of ALERTS says whether an alert fires.
const stateLabel = "alertstate"

// groupKey is where an evaluation's context has its group.
type groupKey struct{}

// outage is how long this process may have been away and its alerts still be those
// of before.
const outage = time.Hour

// ruleKey names an alerting rule, whatever it asks.
type ruleKey struct{ group, name, labels string }

func keyOf(g *rules.Group, name string, own labels.Labels) ruleKey {
	return ruleKey{rules.GroupKey(g.File(), g.Name()), name, own.String()}
}

// whole lets no partial answer resolve an alert: what fires and is not in the
// answer goes on to fire as it did. What a partial answer has counts. Until the
// first whole answer that is also what fired before this process began; the values
// of that are not known any more.
func (r *Rules) whole(query rules.QueryFunc) rules.QueryFunc {
	return func(ctx context.Context, expr string, at time.Time) (promql.Vector, error) {
		v, err := query(ctx, expr, at)
		if err != nil && !errors.Is(err, ErrPartial) {
			return v, err
		}
		asks := rules.FromOriginContext(ctx)
		g, ok := ctx.Value(groupKey{}).(*rules.Group)
		if !ok || asks.Kind != rules.KindAlerting || asks.Query != expr { // a record, or a template of an alert
			return v, nil
		}
		key := keyOf(g, asks.Name, asks.Labels)
		if err == nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.before[key] = nil
			return v, nil
		}
		for _, x := range g.Rules() {
			a, ok := x.(*rules.AlertingRule)
			if ok && a.Name() == asks.Name && a.Query().String() == asks.Query && labels.Equal(a.Labels(), asks.Labels) {
				before, err := r.firedBefore(ctx, key, a, at)
				if err != nil {
					return nil, err
				}
				had := len(v)
				v = append(v, lacking(v, a.ActiveAlerts(), a.Labels(), at)...)
				v = append(v, lacking(v, before, a.Labels(), at)...)
				r.held.Add(float64(len(v) - had))
				return v, nil
			}
		}
		return v, nil
	}
}

// firedBefore reads once what a rule's alerts were when this process began; none
// after a whole answer.
func (r *Rules) firedBefore(ctx context.Context, key ruleKey, a *rules.AlertingRule, at time.Time) ([]*rules.Alert, error) {
	r.mu.Lock()
	before, known := r.before[key]
	r.mu.Unlock()
	if known {
		return before, nil
	}
	fail := func(err error) ([]*rules.Alert, error) {
		return nil, fmt.Errorf("read what rule %s said before: %w", a.Name(), err)
	}
	q, err := r.stored.Querier(at.Add(-outage).UnixMilli(), at.UnixMilli())
	if err != nil {
		return fail(err)
	}
	defer q.Close() // read only
	ms := []*labels.Matcher{
		labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, "ALERTS"),
		labels.MustNewMatcher(labels.MatchEqual, labels.AlertName, a.Name()),
		labels.MustNewMatcher(labels.MatchEqual, stateLabel, rules.StateFiring.String()),
	}
	a.Labels().Range(func(l labels.Label) {
		if !strings.Contains(l.Value, "{{") { // else it is another one for each alert
			ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value))
		}
	})
	identity, had := identities(a.Labels()), map[uint64]bool{}
	found := q.Select(ctx, false, nil, ms...)
	for found.Next() {
		last := math.Float64frombits(value.StaleNaN)
		it := found.At().Iterator(nil)
		for it.Next() == chunkenc.ValFloat {
			_, last = it.At()
		}
		if it.Err() != nil {
			return fail(it.Err())
		}
		l := labels.NewBuilder(found.At().Labels()).Del(labels.MetricName, stateLabel).Labels()
		if id := identity(l); !value.IsStaleNaN(last) && !had[id] {
			had[id] = true
			before = append(before, &rules.Alert{State: rules.StateFiring, Labels: l, Value: math.NaN()})
		}
	}
	if found.Err() != nil {
		return fail(found.Err())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before[key] = before
	return before, nil
}

// forget drops what was known of rules that are gone.
func (r *Rules) forget(groups []*rules.Group) {
	present := map[ruleKey]bool{}
	for _, g := range groups {
		for _, x := range g.Rules() {
			present[keyOf(g, x.Name(), x.Labels())] = true
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.before, func(k ruleKey, _ []*rules.Alert) bool { return !present[k] })
}

// identities tells alerts and samples apart by what the rule, which sets own, does
// not set itself.
func identities(own labels.Labels) func(labels.Labels) uint64 {
	set := []string{labels.MetricName, labels.AlertName}
	own.Range(func(l labels.Label) { set = append(set, l.Name) })
	var b labels.Builder
	return func(l labels.Labels) uint64 {
		b.Reset(l)
		return b.Del(set...).Labels().Hash()
	}
}

// lacking are samples that keep those of a rule's alerts firing that fire and have
// none in v. own are the labels that the rule sets.
func lacking(v promql.Vector, alerts []*rules.Alert, own labels.Labels, at time.Time) (out promql.Vector) {
	identity := identities(own)
	have := map[uint64]bool{}
	for _, s := range v {
		have[identity(s.Metric)] = true
	}
	for _, a := range alerts {
		if a.State == rules.StateFiring && !have[identity(a.Labels)] {
			out = append(out, promql.Sample{Metric: labels.NewBuilder(a.Labels).Del(labels.AlertName).Labels(), T: at.UnixMilli(), F: a.Value})
		}
	}
	return out
}

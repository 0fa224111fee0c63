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

	"perch/alerts/wording"
)

// ErrPartial comes from Data.Query with an answer that holds, but from which series
// may be missing.
var ErrPartial = errors.New("the answer is partial")

// stateLabel of ALERTS says whether an alert fires.
const stateLabel = "alertstate"

// groupKey is where an evaluation's context has its group.
type groupKey struct{}

// holdLimit is how long an alert goes on to fire that partial answers lack. What a
// node or a store kept while it was away has come by then, or does not come: an
// answer without a node that is dead for days is as whole as it will be.
const holdLimit = 75 * time.Minute

// outage is how long this process may have been away and its alerts still be those
// of before.
const outage = time.Hour

// ruleKey names an alerting rule.
type ruleKey struct{ group, name, labels, query string }

func keyOf(g *rules.Group, name string, own labels.Labels, query string) ruleKey {
	return ruleKey{rules.GroupKey(g.File(), g.Name()), name, own.String(), query}
}

// ruleState is what is known of an alerting rule beside its alerts; only the
// evaluation of its group touches it.
type ruleState struct {
	before []*rules.Alert       // what fired when this process began, until the first whole answer
	read   bool                 // before is known
	held   map[uint64]time.Time // alerts that partial answers lack, and since when
}

// whole lets no partial answer resolve an alert: what fires and is not in the
// answer goes on to fire as it did, for holdLimit. What a partial answer has counts.
// Until the first whole answer that is also what fired before this process began;
// the values of that are not known any more.
func (r *Rules) whole(query rules.QueryFunc) rules.QueryFunc {
	return func(ctx context.Context, expr string, at time.Time) (promql.Vector, error) {
		v, err := query(ctx, expr, at)
		if err != nil && !errors.Is(err, ErrPartial) {
			return v, err
		}
		asks := rules.FromOriginContext(ctx)
		g, ok := ctx.Value(groupKey{}).(*rules.Group)
		if !ok || asks.Kind != rules.KindAlerting || asks.Query != expr { // a record, or a template of an alert
			if ok && asks.Kind == rules.KindAlerting && len(v) > wording.MostSeries && r.home(g) != "" {
				return nil, fmt.Errorf("the query of a template in a namespace's rule finds %d series, more than %d", len(v), wording.MostSeries)
			}
			return v, nil
		}
		known := r.stateOf(keyOf(g, asks.Name, asks.Labels, asks.Query))
		if err == nil {
			*known = ruleState{read: true}
			return v, nil
		}
		for _, x := range g.Rules() {
			a, ok := x.(*rules.AlertingRule)
			if ok && a.Name() == asks.Name && a.Query().String() == asks.Query && labels.Equal(a.Labels(), asks.Labels) {
				if !known.read {
					if known.before, err = r.firedBefore(ctx, a, at); err != nil {
						return nil, err
					}
					known.read = true
				}
				held := known.hold(v, a.ActiveAlerts(), a.Labels(), at)
				r.held.Add(float64(len(held)))
				return append(v, held...), nil
			}
		}
		return v, nil
	}
}

// home is the namespace whose series alone a group sees; empty: it sees all.
func (r *Rules) home(g *rules.Group) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.homes[g.File()]
}

// stateOf is what is known of a rule.
func (r *Rules) stateOf(key ruleKey) *ruleState {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.states[key]
	if known == nil {
		known = &ruleState{}
		r.states[key] = known
	}
	return known
}

// firedBefore reads what a rule's alerts were when this process began.
func (r *Rules) firedBefore(ctx context.Context, a *rules.AlertingRule, at time.Time) (before []*rules.Alert, _ error) {
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
		labels.MustNewMatcher(labels.MatchEqual, sourceLabel, ""),
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
	return before, nil
}

// forget drops what was known of rules that are gone.
func (r *Rules) forget(groups []*rules.Group) {
	present := map[ruleKey]bool{}
	for _, g := range groups {
		for _, x := range g.Rules() {
			present[keyOf(g, x.Name(), x.Labels(), x.Query().String())] = true
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.states, func(k ruleKey, _ *ruleState) bool { return !present[k] })
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

// hold are samples that keep those alerts firing that fire, or fired before, and have
// none in v. active are the alerts of the rule, own the labels that it sets.
func (k *ruleState) hold(v promql.Vector, active []*rules.Alert, own labels.Labels, at time.Time) (out promql.Vector) {
	identity := identities(own)
	have, held := map[uint64]bool{}, map[uint64]time.Time{}
	for _, s := range v {
		have[identity(s.Metric)] = true
	}
	for _, alerts := range [][]*rules.Alert{active, k.before} {
		var fire []uint64
		for _, a := range alerts {
			id := identity(a.Labels)
			if a.State != rules.StateFiring || have[id] {
				continue
			}
			fire = append(fire, id)
			since, known := k.held[id]
			if !known {
				since = at
			}
			held[id] = since
			if at.Sub(since) < holdLimit {
				out = append(out, promql.Sample{Metric: labels.NewBuilder(a.Labels).Del(labels.AlertName).Labels(), T: at.UnixMilli(), F: a.Value})
			}
		}
		for _, id := range fire {
			have[id] = true
		}
	}
	k.held = held
	return out
}

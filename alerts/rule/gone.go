package rule

import (
	"context"
	"maps"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/rules"
)

// goneLimit is how long an alert lasts that nobody tells again: its receivers take it
// for ended then.
const goneLimit = 4 * resendDelay

// gone is an alert that fired and that no rule in force has.
type gone struct {
	alert rules.Alert
	query string // of its rule
	since time.Time
}

// firing are the alerts that fire, by the hash of their labels, without those of
// sources with a problem: who mends a file does not end its alerts.
func (r *Rules) firing() map[uint64]gone {
	broken := map[string]bool{}
	for _, p := range r.Problems() {
		broken[p.Source] = true
	}
	out := map[uint64]gone{}
	for _, g := range r.manager.RuleGroups() {
		for _, x := range g.Rules() {
			a, ok := x.(*rules.AlertingRule)
			if !ok || broken[g.File()] {
				continue
			}
			for _, x := range a.ActiveAlerts() {
				if x.State == rules.StateFiring {
					out[x.Labels.Hash()] = gone{alert: *x, query: a.Query().String()}
				}
			}
		}
	}
	return out
}

// left notes which alerts of before have no rule any more.
func (r *Rules) left(before map[uint64]gone, now time.Time) {
	for id, x := range before {
		if _, known := r.gone[id]; !known {
			x.since = now
			r.gone[id] = x
		}
	}
	r.stay()
}

// stay forgets what rules in force have.
func (r *Rules) stay() {
	for _, a := range r.manager.AlertingRules() {
		a.ForEachActiveAlert(func(x *rules.Alert) { delete(r.gone, x.Labels.Hash()) })
	}
}

// endGone tells the end of alerts whose rule is gone, once each group with a rule of
// that name has been evaluated since: the rule was moved there. What takes longer ends by
// itself.
func (r *Rules) endGone(ctx context.Context, now time.Time) {
	if len(r.gone) == 0 {
		return
	}
	oldest := map[string]time.Time{} // evaluation of a group with an alert of this name
	for _, g := range r.manager.RuleGroups() {
		for _, x := range g.Rules() {
			at := g.GetLastEvaluation()
			if x.LastError() != nil { // it said nothing
				at = time.Time{}
			}
			if first, known := oldest[x.Name()]; !known || at.Before(first) {
				oldest[x.Name()] = at
			}
		}
	}
	r.stay()
	for id, x := range maps.Clone(r.gone) {
		at, known := oldest[x.alert.Labels.Get(labels.AlertName)]
		switch {
		case now.Sub(x.since) > goneLimit:
			delete(r.gone, id)
		case !known || at.After(x.since):
			delete(r.gone, id)
			x.alert.State, x.alert.ResolvedAt = rules.StateInactive, now
			r.notify(ctx, x.query, &x.alert)
		}
	}
}

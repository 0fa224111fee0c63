package rule

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// restoreLimit is how long a group may read when its alerts began.
const restoreLimit = 5 * time.Second

// beginnings gives the alerts of a group the beginning that they had when the process
// before ended, if their rules have no `for` or a short one. Prometheus does so for
// longer ones only, after the second evaluation of a group; until then no sample
// overwrites what is read here.
func (r *Rules) beginnings(ctx context.Context, g *rules.Group, at time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, restoreLimit) // stores that are away must not hold up what fires now
	defer cancel()
	for _, x := range g.Rules() {
		a, ok := x.(*rules.AlertingRule)
		if !ok || a.Restored() || a.HoldDuration() >= r.cfg.Interval || a.ActiveAlertsCount() == 0 {
			continue
		}
		began, err := r.beganBefore(ctx, a, at)
		if err != nil {
			return fmt.Errorf("read when alerts of %s began: %w", a.Name(), err)
		}
		a.ForEachActiveAlert(func(x *rules.Alert) {
			if t, ok := began[x.Labels.Hash()]; ok && t.Before(x.ActiveAt) {
				x.ActiveAt = t
				if !x.FiredAt.IsZero() {
					x.FiredAt = t.Add(a.HoldDuration())
				}
			}
		})
	}
	return nil
}

// beganBefore reads since when a rule's alerts were active, by the hash of their labels.
func (r *Rules) beganBefore(ctx context.Context, a *rules.AlertingRule, at time.Time) (map[uint64]time.Time, error) {
	q, err := r.stored.Querier(at.Add(-outage).UnixMilli(), at.UnixMilli())
	if err != nil {
		return nil, err
	}
	defer q.Close() // read only
	found, err := a.QueryForStateSeries(ctx, q)
	if err != nil {
		return nil, err
	}
	out := map[uint64]time.Time{}
	for found.Next() {
		var last float64
		it := found.At().Iterator(nil)
		for it.Next() == chunkenc.ValFloat {
			_, last = it.At()
		}
		if it.Err() != nil {
			return nil, it.Err()
		}
		if !value.IsStaleNaN(last) {
			out[labels.NewBuilder(found.At().Labels()).Del(labels.MetricName).Labels().Hash()] = time.Unix(int64(last), 0).UTC()
		}
	}
	return out, found.Err()
}

package rule

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
)

// sourceLabel of ALERTS is outside for alerts that no rule makes, so that a rule of
// the same name does not take them for its own after a restart.
const sourceLabel = "alertsource"

// mostOutside limits the series for alerts that no rule makes; more have none.
const mostOutside = 1000

// Outside writes the series ALERTS for alerts that no rule makes, as rules do for
// theirs: previews of silences, charts and people's dashboards ask for it.
type Outside struct {
	every   time.Duration
	firing  func() []map[string]string // labels of those that fire now
	store   storage.Appendable
	log     *slog.Logger
	without prometheus.Counter
	refused prometheus.Counter

	last   map[uint64]labels.Labels // Run's own
	lacked bool                     // the newest write had refused samples; Run's own
}

// NewOutside makes one that writes at every interval.
func NewOutside(every time.Duration, firing func() []map[string]string, store storage.Appendable, log *slog.Logger, reg prometheus.Registerer) *Outside {
	o := &Outside{every: every, firing: firing, store: store, log: log, last: map[uint64]labels.Labels{},
		without: prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_rule_outside_left_out_total", Help: "Samples of ALERTS not written because too many alerts from outside fire."})}
	o.refused = prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_rule_outside_refused_total", Help: "Samples of ALERTS for alerts from outside that the store refused, for example because a namespace has as many series as it may."})
	reg.MustRegister(o.without, o.refused)
	return o
}

// Run writes until ctx ends. Series of alerts that end meanwhile end with a marker,
// those that end while nobody runs after the usual five minutes.
func (o *Outside) Run(ctx context.Context) error {
	tick := time.NewTicker(o.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if err := o.write(ctx, now); err != nil && ctx.Err() == nil {
				o.log.Warn("alerts from outside were not written as series", "err", err)
			}
		}
	}
}

func (o *Outside) write(ctx context.Context, now time.Time) error {
	have, fresh := map[uint64]labels.Labels{}, map[uint64]labels.Labels{}
	for _, l := range o.firing() {
		series := labels.NewBuilder(labels.FromMap(l)).Set(labels.MetricName, "ALERTS").Set(stateLabel, rules.StateFiring.String()).Set(sourceLabel, "outside").Labels()
		to := fresh
		if id := series.Hash(); !o.last[id].IsEmpty() { // these stay: the alerts come in no order
			to = have
		}
		to[series.Hash()] = series
	}
	for id, series := range fresh {
		if len(have) == mostOutside {
			o.without.Inc()
			continue
		}
		have[id] = series
	}
	if len(have) == 0 && len(o.last) == 0 {
		return nil
	}
	to := o.store.Appender(ctx)
	var why error
	put := func(series labels.Labels, v float64) bool {
		_, err := to.Append(0, series, now.UnixMilli(), v)
		if err != nil { // one sample that cannot be stored costs no other
			o.refused.Inc()
			why = cmp.Or(why, fmt.Errorf("append %s: %w", series, err))
		}
		return err == nil
	}
	for id, series := range have {
		if !put(series, 1) && o.last[id].IsEmpty() {
			delete(have, id) // it has no series that would have to end
		}
	}
	for id, series := range o.last {
		if have[id].IsEmpty() {
			put(series, math.Float64frombits(value.StaleNaN))
		}
	}
	if why != nil && !o.lacked {
		o.log.Warn("some alerts from outside were not written as series", "err", why)
	}
	o.lacked = why != nil
	if err := to.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	o.last = have
	return nil
}

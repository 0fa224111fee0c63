package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"

	"perch/controlplane/event"
	metricstore "perch/metrics/store"
)

// tellOffenders makes an event of a namespace whose new series the store of this
// node refuses, when that begins and every ten minutes while it goes on.
func tellOffenders(store *metricstore.Store, node string, tell event.Tell) func(context.Context) error {
	type told struct {
		refused uint64
		at      time.Time
	}
	return func(ctx context.Context) error {
		known := map[string]told{}
		tick := time.NewTicker(10 * time.Second)
		defer tick.Stop()
		for {
			now := map[string]told{}
			for _, o := range store.Offenders() {
				was := known[o.Namespace]
				if o.Refused > was.refused && time.Since(was.at) > 10*time.Minute {
					was = told{o.Refused, time.Now()}
					tell(seriesRefused(node, o))
				}
				now[o.Namespace] = was
			}
			known = now
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	}
}

// tellStopped makes an event and a log line when the store of this node takes nothing,
// when that begins and every ten minutes while it goes on.
func tellStopped(stopped func(time.Time) time.Time, node, dir string, tell event.Tell, log *slog.Logger) func(context.Context) error {
	return func(ctx context.Context) error {
		var told time.Time
		twice := false // a clock is set in small steps, too
		tick := time.NewTicker(10 * time.Second)
		defer tick.Stop()
		for {
			now := time.Now()
			until := stopped(now)
			if until.IsZero() {
				told = time.Time{}
			} else if twice && now.Sub(told) > 10*time.Minute {
				told = now
				log.Error("no metrics are stored, the newest sample is of a time to come: the clock was ahead or is behind now", "until", until)
				tell(event.Record{Component: "perch-metrics", Type: event.Warning, Reason: "MetricsStopped", Object: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node},
					Message: fmt.Sprintf("node %s stores no metrics until %s: it has samples of a time to come, so its clock was ahead or is behind now. If the clock is right, to go on at once stop perch, move wal, wbl, chunks_head and blocks of that time out of %s, and start it: what was in memory only is lost",
						node, until.UTC().Format(time.RFC3339), dir)})
			}
			twice = !until.IsZero()
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	}
}

func seriesRefused(node string, o metricstore.Offender) event.Record {
	e := event.Record{Component: "perch-metrics", Type: event.Warning, Reason: "SeriesRefused",
		Object: corev1.ObjectReference{APIVersion: "v1", Kind: "Namespace", Name: o.Namespace, Namespace: o.Namespace}}
	whose := "of this namespace"
	if o.Namespace == "" {
		e.Object, whose = corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node}, "of no namespace"
	}
	e.Message = fmt.Sprintf("node %s keeps %d series %s, as many as it may; %d new ones were refused, the last %s", node, o.Series, whose, o.Refused, o.Last)
	if o.All > 0 {
		e.Message = fmt.Sprintf("node %s keeps %d series, as many as it may; %d new ones %s were refused, the last %s", node, o.All, o.Refused, whose, o.Last)
	}
	return e
}

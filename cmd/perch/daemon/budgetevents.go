package daemon

import (
	"context"
	"fmt"
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

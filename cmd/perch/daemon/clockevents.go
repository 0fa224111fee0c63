package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"

	"perch/controlplane/event"
)

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

package daemon

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"perch/controlplane/event"
)

func TestAStoreThatTakesNothingIsToldOfNowAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ends := time.Now().Add(15 * time.Minute)
		stopped := func(now time.Time) time.Time {
			if now.Before(ends) {
				return ends
			}
			return time.Time{}
		}
		var told []string
		ended := make(chan error, 1)
		go func() {
			ended <- tellStopped(stopped, "n1", "/d/metrics", func(e event.Record) { told = append(told, e.Reason+" "+e.Object.Name+" "+e.Message) }, slog.New(slog.DiscardHandler))(ctx)
		}()
		time.Sleep(time.Hour)
		if len(told) != 2 || !strings.HasPrefix(told[0], "MetricsStopped n1 node n1 stores no metrics until 2000-01-01T00:15:00Z") || !strings.Contains(told[0], "/d/metrics") {
			t.Errorf("told %q", told)
		}
		synctest.Wait()
		ends = time.Now().Add(time.Minute)
		time.Sleep(5 * time.Second)
		ends = time.Now() // once is not told
		time.Sleep(time.Minute)
		if len(told) != 2 {
			t.Errorf("a small step is told: %q", told)
		}
		synctest.Wait()
		ends = time.Now().Add(time.Minute)
		time.Sleep(time.Minute)
		if len(told) != 3 {
			t.Errorf("another time is told %d times", len(told)-2)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

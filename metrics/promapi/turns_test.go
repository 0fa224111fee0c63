package promapi

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestRulesDoNotWaitForDashboards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(6, prometheus.NewRegistry())
		asked := context.WithValue(t.Context(), askedKey{}, true)
		take := func(ctx context.Context) (int, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			return turns.Insert(ctx, "up")
		}
		var running []int
		for range 4 {
			turn, err := take(asked)
			if err != nil {
				t.Fatal(err)
			}
			running = append(running, turn)
		}
		if _, err := take(asked); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one more from outside: %v", err)
		}
		for range 2 {
			turn, err := take(t.Context())
			if err != nil {
				t.Fatal("a rule waits: ", err)
			}
			running = append(running, turn)
		}
		if _, err := take(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("more than all: %v", err)
		}
		for _, turn := range running {
			turns.Delete(turn)
		}
		if len(turns.slots) != 0 || len(turns.asked) != 0 {
			t.Errorf("%d and %d turns are still taken", len(turns.slots), len(turns.asked))
		}
	})
}

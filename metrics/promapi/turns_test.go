package promapi

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
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

// The autoscaler and `kubectl top` come over HTTP, on perch's own socket.
func TestPerchsOwnQuestionsDoNotWaitForDashboards(t *testing.T) {
	api, _ := newAPI(t, Parts{})
	for range cap(api.turns.asked) {
		turn, err := api.turns.Insert(context.WithValue(t.Context(), askedKey{}, true), "")
		if err != nil {
			t.Fatal(err)
		}
		defer api.turns.Delete(turn)
	}
	ask := func(ctx context.Context, patience time.Duration) (int, error) {
		ctx, cancel := context.WithTimeout(WithAccess(ctx, Everything()), patience)
		defer cancel()
		w := httptest.NewRecorder()
		api.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/query?query=1", nil).WithContext(ctx))
		return w.Code, ctx.Err()
	}
	if code, err := ask(t.Context(), 100*time.Millisecond); code == http.StatusOK || err == nil {
		t.Errorf("a dashboard more than there are turns for: %d", code)
	}
	if code, err := ask(WithOwnTurn(t.Context()), time.Minute); code != http.StatusOK {
		t.Errorf("a question of perch: %d, %v", code, err)
	}
}

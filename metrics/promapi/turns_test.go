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
		if len(turns.slots) != 0 || len(turns.asked) != 0 || len(turns.others) != 0 {
			t.Errorf("%d, %d and %d turns are still taken", len(turns.slots), len(turns.asked), len(turns.others))
		}
	})
}

func TestRulesOfTheClusterDoNotWaitForThoseOfNamespaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(6, prometheus.NewRegistry())
		asked := context.WithValue(t.Context(), askedKey{}, true)
		in := func(namespace string) context.Context {
			return WithAccess(t.Context(), Access{Namespaces: []string{namespace}})
		}
		wide := WithAccess(t.Context(), Everything())
		var running []int
		take := func(what string, ctx context.Context, want bool) {
			t.Helper()
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			turn, err := turns.Insert(ctx, "up")
			if err == nil {
				running = append(running, turn)
			} else if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(what, err)
			}
			if (err == nil) != want {
				t.Errorf("%s: %v", what, err)
			}
		}
		for range 4 {
			take("a dashboard", asked, true)
		}
		take("a namespace's beside dashboards", in("shop"), true)
		take("its second", in("shop"), false)
		take("another's, before the last of the cluster's", in("bank"), false)
		take("the cluster's", wide, true)
		take("more than all", wide, false)
		for _, turn := range running[:2] {
			turns.Delete(turn)
		}
		running = running[2:]
		take("another's", in("bank"), true)
		take("a third's", in("pub"), false)
		take("the cluster's beside them", wide, true)
		for _, turn := range running {
			turns.Delete(turn)
		}
		for name, c := range map[string]chan struct{}{"all": turns.slots, "asked": turns.asked, "namespaces": turns.spaced, "others": turns.others} {
			if len(c) != 0 {
				t.Errorf("%d turns of %s are still taken", len(c), name)
			}
		}
		if len(turns.spaces) != 0 || len(turns.held) != 0 {
			t.Errorf("%d namespaces and %d turns are still known", len(turns.spaces), len(turns.held))
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

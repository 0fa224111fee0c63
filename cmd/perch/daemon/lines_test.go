package daemon

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"

	"perch/cmd/perch/daemon/door"
	"perch/logs/query"
)

// Tails are few, of one caller fewer, and hold up no questions.
func TestTailsHaveTurnsOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		h := inTurns("", tails, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == query.Prefix+"tail" {
				<-r.Context().Done()
			}
		}), prometheus.NewRegistry())
		ask := func(caller, path string) *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, query.Prefix+path, nil).WithContext(door.WithUser(ctx, door.User{Name: caller})))
			return w
		}
		for range tails.Each {
			go ask("red", "tail")
		}
		synctest.Wait()
		if w := ask("red", "tail"); w.Code != http.StatusServiceUnavailable {
			t.Errorf("one tail too many of a caller: status %d", w.Code)
		}
		for _, caller := range []string{"green", "blue", "black"} {
			for range tails.Each {
				go ask(caller, "tail")
			}
		}
		synctest.Wait()
		if w := ask("white", "tail"); w.Code != http.StatusServiceUnavailable {
			t.Errorf("one tail too many of all: status %d", w.Code)
		}
		for range 2 * questions.All {
			if w := ask("red", "query"); w.Code != http.StatusOK {
				t.Fatalf("a question beside tails: status %d", w.Code)
			}
		}
		cancel()
	})
}

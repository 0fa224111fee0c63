package door

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestTurnsAreSharedByCallersAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let, reg := make(chan struct{}), prometheus.NewRegistry()
		turns := NewTurns("test", Limit{All: 3, Each: 2, Wait: 10 * time.Second, Exchange: time.Minute}, reg)
		h := turns.Limit(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-let }), func(r *http.Request) bool { return r.URL.Path == "/tail" })
		ask := func(ctx context.Context, caller, path string) chan int {
			done := make(chan int, 1)
			go func() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, nil).WithContext(WithUser(ctx, User{Name: caller})))
				done <- w.Code
			}()
			synctest.Wait()
			return done
		}
		wants := func(c chan int, code int) {
			t.Helper()
			synctest.Wait()
			select {
			case have := <-c:
				if have != code {
					t.Errorf("status %d, want %d", have, code)
				}
			default:
				t.Errorf("no answer yet, want %d", code)
			}
		}
		gone, leave := context.WithCancel(t.Context())
		var red []chan int
		for range 3 {
			red = append(red, ask(t.Context(), "red", "/"))
		}
		left := ask(gone, "red", "/")
		blue := ask(t.Context(), "blue", "/") // the third turn, though red waits for one
		tail := ask(t.Context(), "blue", "/tail")
		leave()
		wants(left, http.StatusServiceUnavailable)
		time.Sleep(9 * time.Second)
		patient := ask(t.Context(), "blue", "/")
		time.Sleep(2 * time.Second)
		wants(red[2], http.StatusServiceUnavailable)
		if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP perch_door_turns_refused_total Requests that were refused because they waited for too long, or whose client left meanwhile.
# TYPE perch_door_turns_refused_total counter
perch_door_turns_refused_total{kind="test"} 2
# HELP perch_door_turns_taken Requests that are being answered, of those that must wait for a turn.
# TYPE perch_door_turns_taken gauge
perch_door_turns_taken{kind="test"} 3
# HELP perch_door_turns_waiting Requests that wait because enough others are being answered.
# TYPE perch_door_turns_waiting gauge
perch_door_turns_waiting{kind="test"} 1
`)); err != nil {
			t.Error(err)
		}
		close(let)
		for _, c := range []chan int{red[0], red[1], blue, tail, patient} {
			wants(c, http.StatusOK)
		}
		if len(turns.each) != 0 || len(turns.room) != 0 {
			t.Errorf("%d callers and %d turns are left", len(turns.each), len(turns.room))
		}
	})
}

// Perch's own requests, which have no caller, are not held to one caller's share.
func TestRequestsWithoutACallerHaveAllTurns(t *testing.T) {
	turns := NewTurns("test", Limit{All: 3, Each: 1, Wait: time.Minute, Exchange: time.Minute}, prometheus.NewRegistry())
	for range 3 {
		done, err := turns.take(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer done()
	}
}

func TestATurnEndsWhenABodyDoesNotArrive(t *testing.T) {
	turns := NewTurns("test", Limit{All: 1, Each: 1, Wait: time.Minute, Exchange: 50 * time.Millisecond}, prometheus.NewRegistry())
	ended := make(chan error, 1)
	srv := httptest.NewServer(turns.Limit(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := r.Body.Read(make([]byte, 1))
		ended <- err
	}), nil))
	defer srv.Close()
	body, pipe := io.Pipe()
	defer pipe.Close()
	go func() {
		if resp, err := http.Post(srv.URL, "text/plain", body); err == nil {
			_ = resp.Body.Close()
		}
	}()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a body that never came was read")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the turn lasts")
	}
}

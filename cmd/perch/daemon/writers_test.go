package daemon

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/cmd/perch/daemon/door"
	"perch/metrics/promapi"
)

func TestNobodyWritesEverywhereWithoutTheRightTo(t *testing.T) {
	var got promapi.Access
	h := writers(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = promapi.AccessOf(r.Context()) }), newWriteTurns(prometheus.NewRegistry()))
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", nil)
	if h.ServeHTTP(w, r); w.Code != http.StatusForbidden || got.Write {
		t.Errorf("without a namespace: %d %+v", w.Code, got)
	}
	h.ServeHTTP(httptest.NewRecorder(), r.WithContext(door.WithScope(r.Context(), door.Scope{All: true})))
	if !got.All || !got.Write || got.Into != "" {
		t.Errorf("with the right: %+v", got)
	}
}

func TestWhatReadsSeriesWaitsForItsTurnAndNothingElseDoes(t *testing.T) {
	turns := door.NewTurns("test", door.Limit{All: 1, Each: 1, Wait: time.Millisecond, Exchange: time.Minute}, prometheus.NewRegistry())
	held, release := make(chan struct{}), make(chan struct{})
	h := readers(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.FormValue("hold") != "" {
			close(held)
			<-release
		}
	}), turns)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/api/v1/query?hold=1", nil))
	}()
	<-held
	for path, want := range map[string]int{"/api/v1/query": 503, "/api/v1/query_range": 503, "/api/v1/query_exemplars": 503, "/api/v1/series": 503, "/api/v1/labels": 503,
		"/api/v1/label/job/values": 503, "/api/v1/read": 503, "/federate": 503,
		"/api/v1/rules": 200, "/api/v1/targets": 200, "/api/v1/status/buildinfo": 200, "/api/v1/metadata": 200} {
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil)); w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
	close(release)
	<-ended
}

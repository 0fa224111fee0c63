package daemon

import (
	"net/http"
	"net/http/httptest"
	"testing"

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

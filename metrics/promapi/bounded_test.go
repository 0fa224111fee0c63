package promapi

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TestAnswersHaveTheirEnd: what the engine may look at is more than what is written.
func TestAnswersHaveTheirEnd(t *testing.T) {
	_, s := newAPI(t, Parts{})
	cfg := Default()
	cfg.Points, cfg.Listed = 4, 1
	api, err := New(cfg, Parts{Store: s}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	now := at.Format(time.RFC3339)
	start := at.Add(-time.Minute).Format(time.RFC3339)
	const cut = "results truncated due to limit"
	for _, tc := range []struct {
		path string
		form []string
		code int
		has  string
	}{
		{"/api/v1/query", []string{"query", "use", "time", now}, 200, "success"},
		{"/api/v1/query_range", []string{"query", "sum(use)", "start", start, "end", now, "step", "30s"}, 200, "success"},
		{"/api/v1/query_range", []string{"query", "sum(use)", "start", start, "end", now, "step", "15s"}, 422, "the answer has 6 points; 4 are allowed"},
		{"/api/v1/query", []string{"query", "use[1m]", "time", now}, 422, "4 are allowed"},
		{"/api/v1/series", []string{"match[]", "use"}, 200, cut},
		{"/api/v1/series", []string{"match[]", "use", "limit", "0"}, 200, cut},
		{"/api/v1/series", []string{"match[]", "use", "limit", "100000"}, 200, cut},
		{"/api/v1/series", []string{"match[]", "use", "limit", "99999999999999999999"}, 200, cut},
		{"/api/v1/series", []string{"match[]", "use", "limit", "x"}, 400, "limit"},
		{"/api/v1/labels", nil, 200, cut},
		{"/api/v1/label/namespace/values", nil, 200, cut},
	} {
		if code, body := get(t, api, Everything(), tc.path, tc.form...); code != tc.code || !strings.Contains(body, tc.has) {
			t.Errorf("%s %v: %d %s", tc.path, tc.form, code, body)
		}
	}
}

func TestListsWaitForATurn(t *testing.T) {
	_, s := newAPI(t, Parts{})
	cfg := Default()
	cfg.Timeout, cfg.Concurrency = 20*time.Millisecond, 1
	api, err := New(cfg, Parts{Store: s}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	turn, err := api.turns.Insert(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/api/v1/series", "/api/v1/labels", "/api/v1/label/job/values"} {
		if code, body := get(t, api, Everything(), path, "match[]", "use"); code != http.StatusServiceUnavailable || !strings.Contains(body, "no turn") {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	api.turns.Delete(turn)
	if code, body := get(t, api, Everything(), "/api/v1/status/flags"); code != 200 {
		t.Error(code, body)
	}
}

package promapi

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/scrape"

	"perch/metrics/store"
)

func TestEveryReadOfSeriesIsInTheQueryLog(t *testing.T) {
	var got []Finished
	api, _ := newAPI(t, Parts{QueryLog: func(_ context.Context, f Finished) { got = append(got, f) }})
	ask := prompb.ReadRequest{Queries: []*prompb.Query{{StartTimestampMs: 0, EndTimestampMs: at.UnixMilli(), Matchers: []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_RE, Name: "__name__", Value: "use.*"}}}}}
	raw, err := ask.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		path string
		form url.Values
		read []byte // posted
		who  Access
		want []Finished
	}{
		{"/api/v1/query", url.Values{"query": {"use"}}, nil, Everything(), []Finished{{Path: "/api/v1/query", Query: "use", Status: 200}}},
		{"/api/v1/query", url.Values{"query": {"use("}}, nil, Everything(), []Finished{{Path: "/api/v1/query", Query: "use(", Status: 400}}},
		{"/federate", url.Values{"match[]": {"use", `{a="b"}`}}, nil, Everything(), []Finished{{Path: "/federate", Query: `use {a="b"}`, Status: 200}}},
		{"/api/v1/series", url.Values{"match[]": {"use"}}, nil, Everything(), []Finished{{Path: "/api/v1/series", Query: "use", Status: 200}}},
		{"/api/v1/labels", nil, nil, Everything(), []Finished{{Path: "/api/v1/labels", Status: 200}}},
		{"/api/v1/label/namespace/values", url.Values{"match[]": {"use"}}, nil, Everything(), []Finished{{Path: "/api/v1/label/namespace/values", Query: "use", Status: 200}}},
		{"/api/v1/read", nil, snappy.Encode(nil, raw), Everything(), []Finished{{Path: "/api/v1/read", Query: `{__name__=~"use.*"}`, Status: 200}}},
		{"/api/v1/read", nil, []byte("garbage"), Everything(), []Finished{{Path: "/api/v1/read", Status: 400}}},
		{"/api/v1/status/flags", nil, nil, Everything(), nil},
		{"/api/v1/targets", nil, nil, Everything(), nil},
	} {
		got = nil
		r := httptest.NewRequest(http.MethodGet, tc.path+"?"+tc.form.Encode(), nil)
		if tc.read != nil {
			r = httptest.NewRequest(http.MethodPost, tc.path, bytes.NewReader(tc.read))
			r.Header.Set("Content-Encoding", "snappy")
		}
		api.ServeHTTP(httptest.NewRecorder(), r.WithContext(WithAccess(r.Context(), tc.who)))
		for i := range got {
			got[i].Took = 0
		}
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: told %+v, want %+v", tc.path, got, tc.want)
		}
	}
}

func TestFederationIsAQueryLikeOthers(t *testing.T) {
	_, s := newAPI(t, Parts{})
	now := time.Now().UnixMilli()
	if _, err := s.Inlet("t").Append(t.Context(), []store.Sample{{Labels: labels.FromStrings("__name__", "fresh"), T: now - 5, V: 3}, {Labels: labels.FromStrings("__name__", "fresh", "i", "2"), T: now - 5, V: 3}}); err != nil {
		t.Fatal(err)
	}
	cfg := Default()
	cfg.Timeout, cfg.Concurrency, cfg.Points = 20*time.Millisecond, 1, 1
	api, err := New(cfg, Parts{Store: s, Missing: func(context.Context) []string { return []string{"n7"} }}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	turn, err := api.turns.Insert(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if code, body := get(t, api, Everything(), "/federate", "match[]", "fresh"); code != http.StatusServiceUnavailable || !strings.Contains(body, "no turn") {
		t.Errorf("while another runs: %d %s", code, body)
	}
	api.turns.Delete(turn)

	cfg.Timeout = time.Minute
	if api, err = New(cfg, Parts{Store: s, Missing: func(context.Context) []string { return []string{"n7"} }}, slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	if code, body := get(t, api, Everything(), "/federate", "match[]", "fresh"); code != http.StatusUnprocessableEntity || !strings.Contains(body, "more than 1 series") {
		t.Errorf("too much: %d %s", code, body)
	}
	r := httptest.NewRequest(http.MethodGet, "/federate?match[]=fresh{i='2'}", nil)
	w := httptest.NewRecorder()
	api.ServeHTTP(w, r.WithContext(WithAccess(r.Context(), Everything())))
	if w.Code != 200 || !strings.HasPrefix(w.Body.String(), "# partial answer: no recent samples from n7\n# TYPE fresh untyped\nfresh{") || !strings.Contains(w.Header().Get("Warning"), "n7") {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	if len(api.turns.slots) != 0 {
		t.Error("its turn does not end")
	}
}

// onePool is a Targets with one scrape pool.
type onePool struct{}

func (onePool) TargetsActive() map[string][]*scrape.Target  { return nil }
func (onePool) TargetsDropped() map[string][]*scrape.Target { return nil }
func (onePool) TargetsDroppedCounts() map[string]int        { return nil }
func (onePool) ScrapePools() []string                       { return []string{"pods"} }
func (onePool) ScrapePoolConfig(name string) (*config.ScrapeConfig, error) {
	c := config.DefaultScrapeConfig
	c.JobName = name
	return &c, nil
}

func TestStatusPagesTellWhatIs(t *testing.T) {
	_, s := newAPI(t, Parts{})
	cfg := Default()
	cfg.Kept = Kept{Age: 30 * 24 * time.Hour, Bytes: 20 << 30, Series: 5000, OutOfOrder: 70 * time.Minute, Exemplars: 7}
	api, err := New(cfg, Parts{Store: s, Targets: onePool{}}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]string{
		"/api/v1/status/flags":       {`"storage.tsdb.retention.time":"30d"`, `"storage.tsdb.retention.size":"20GiB"`, `"metric-series":"5000"`},
		"/api/v1/status/runtimeinfo": {`"storageRetention":"30d or 20GiB"`, `"corruptionCount":0`, `"CWD":"/`},
		"/api/v1/status/config":      {"job_name: pods", "out_of_order_time_window: 1h10m", "max_exemplars: 7", "size: 20GiB"},
		"/api/v1/status/walreplay":   {`"min":0,"max":0,"current":0`},
	} {
		code, body := get(t, api, Everything(), path)
		var answer struct{ Status string }
		if err := json.Unmarshal([]byte(body), &answer); err != nil || code != 200 || answer.Status != "success" {
			t.Errorf("%s: %d %s", path, code, body)
		}
		for _, part := range want {
			if !strings.Contains(body, part) {
				t.Errorf("%s has no %s: %s", path, part, body)
			}
		}
		if code, _ := get(t, api, Access{Namespaces: []string{"red"}}, path); code != http.StatusForbidden {
			t.Errorf("%s for a caller of one namespace: %d", path, code)
		}
	}
}

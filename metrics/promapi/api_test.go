package promapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/prompb"

	"perch/metrics/store"
)

var update = flag.Bool("update", false, "write golden files")

// at is a fixed moment, so that answers can be golden.
var at = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newAPI(t testing.TB, parts Parts) (*API, *store.Store) {
	t.Helper()
	cfg := store.Default()
	cfg.Dir = t.TempDir()
	cfg.Retention = 100 * 365 * 24 * time.Hour
	log := slog.New(slog.DiscardHandler)
	s, err := store.New(cfg, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	parts.Store = s
	api, err := New(Default(), parts, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	var batch []store.Sample
	add := func(v float64, name string, pairs ...string) {
		l := labels.FromStrings(append([]string{"__name__", name}, pairs...)...)
		for k := range int64(5) {
			batch = append(batch, store.Sample{Labels: l, T: at.UnixMilli() - 60_000 + 15_000*k, V: v + float64(k)})
		}
	}
	add(10, "use", "namespace", "red", "pod", "a")
	add(20, "use", "namespace", "blue", "pod", "b")
	add(30, "use", "node", "n1")
	add(1, "red_only", "namespace", "red")
	if done, err := s.Inlet("test").Append(t.Context(), batch); err != nil || done.Refused > 0 {
		t.Fatal(done, err)
	}
	return api, s
}

func get(t testing.TB, api http.Handler, who Access, path string, form ...string) (int, string) {
	t.Helper()
	v := url.Values{}
	for i := 0; i < len(form); i += 2 {
		v.Add(form[i], form[i+1])
	}
	r := httptest.NewRequest("GET", path+"?"+v.Encode(), nil)
	r = r.WithContext(WithAccess(r.Context(), who))
	w := httptest.NewRecorder()
	api.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestAnswersHavePrometheusShape(t *testing.T) {
	api, _ := newAPI(t, Parts{})
	now := at.Format(time.RFC3339)
	start := at.Add(-30 * time.Second).Format(time.RFC3339)
	for _, c := range []struct {
		file, path string
		form       []string
	}{
		{"vector", "/api/v1/query", []string{"query", "sum by (namespace) (use)", "time", now}},
		{"scalar", "/api/v1/query", []string{"query", "1+1", "time", now}},
		{"string", "/api/v1/query", []string{"query", `"x"`, "time", now}},
		{"matrix", "/api/v1/query_range", []string{"query", "use", "start", start, "end", now, "step", "15s"}},
		{"parse-error", "/api/v1/query", []string{"query", "sum(use", "time", now}},
		{"bad-time", "/api/v1/query", []string{"query", "use", "time", "noon"}},
		{"too-many-points", "/api/v1/query_range", []string{"query", "use", "start", "0", "end", now, "step", "1s"}},
		{"series", "/api/v1/series", []string{"match[]", "use", "start", start, "end", now}},
		{"labels", "/api/v1/labels", nil},
		{"values", "/api/v1/label/namespace/values", nil},
		{"metadata", "/api/v1/metadata", nil},
		{"targets", "/api/v1/targets", nil},
		{"rules", "/api/v1/rules", nil},
		{"alerts", "/api/v1/alerts", nil},
		{"alertmanagers", "/api/v1/alertmanagers", nil},
		{"exemplars", "/api/v1/query_exemplars", []string{"query", "use", "start", start, "end", now}},
		{"format", "/api/v1/format_query", []string{"query", "sum(use)by(pod)"}},
		{"parse", "/api/v1/parse_query", []string{"query", "use > 1"}},
		{"flags", "/api/v1/status/flags", nil},
	} {
		t.Run(c.file, func(t *testing.T) {
			code, body := get(t, api, Everything(), c.path, c.form...)
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, []byte(body), "", "  "); err != nil {
				t.Fatalf("not JSON: %v: %s", err, body)
			}
			got := http.StatusText(code) + "\n" + pretty.String() + "\n"
			name := filepath.Join("testdata", c.file+".golden")
			if *update {
				_ = os.MkdirAll("testdata", 0o755)
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name)
			if err != nil || got != string(want) {
				t.Errorf("%v\ngot %s\nwant %s", err, got, want)
			}
		})
	}
	for _, path := range []string{"buildinfo", "config", "runtimeinfo", "tsdb", "walreplay"} {
		if code, body := get(t, api, Everything(), "/api/v1/status/"+path); code != 200 || !strings.Contains(body, `"success"`) {
			t.Errorf("status/%s: %d %s", path, code, body)
		}
	}
}

func TestItAnswersThatItAnswers(t *testing.T) {
	api, _ := newAPI(t, Parts{})
	for _, path := range []string{"/-/healthy", "/-/ready"} {
		if code, body := get(t, api, Access{}, path); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

func TestACallerSeesOnlyItsNamespaces(t *testing.T) {
	api, _ := newAPI(t, Parts{})
	now := at.Format(time.RFC3339)
	red, none := Access{Namespaces: []string{"red"}}, Access{}
	machine := Access{Namespaces: []string{"red"}, Unlabelled: true}
	for _, c := range []struct {
		name string
		who  Access
		path string
		form []string
		has  string // must be in the answer
		not  string // must not
	}{
		{"a plain selector", red, "/api/v1/query", []string{"query", "use", "time", now}, `"red"`, "blue"},
		{"a selector that asks for another namespace", red, "/api/v1/query", []string{"query", `use{namespace="blue"}`, "time", now}, `"result":[]`, "24"},
		{"an or of matchers", red, "/api/v1/query", []string{"query", `{namespace="blue"} or {namespace=~".+"}`, "time", now}, `"red"`, "blue"},
		{"a subquery", red, "/api/v1/query", []string{"query", `sum(max_over_time(use[1m:15s]))`, "time", now}, `"13"`, "63"},
		{"absent", red, "/api/v1/query", []string{"query", `absent(use{namespace="blue"})`, "time", now}, `"1"`, `"24"`},
		{"an aggregation over all", red, "/api/v1/query", []string{"query", `count(use)`, "time", now}, `"1"`, `"3"`},
		{"a range query", red, "/api/v1/query_range", []string{"query", `use`, "start", now, "end", now, "step", "15s"}, `"red"`, "n1"},
		{"series", red, "/api/v1/series", []string{"match[]", `{__name__=~".+"}`, "start", "0"}, `"red"`, "blue"},
		{"label values", red, "/api/v1/label/namespace/values", nil, `"red"`, "blue"},
		{"label values with a matcher", red, "/api/v1/label/pod/values", []string{"match[]", `use`}, `"a"`, `"b"`},
		{"label names", red, "/api/v1/labels", nil, `"pod"`, `"node"`},
		{"machine series with the right to them", machine, "/api/v1/query", []string{"query", "use", "time", now}, `"n1"`, "blue"},
		{"no right at all", none, "/api/v1/query", []string{"query", "use", "time", now}, `"result":[]`, "red"},
		{"no right at all, values", none, "/api/v1/label/namespace/values", nil, `[]`, "red"},
		{"status of the whole store", red, "/api/v1/status/tsdb", nil, `"forbidden"`, "success"},
		{"remote write without the right", machine, "/api/v1/write", nil, `"forbidden"`, "success"},
		{"everything", Everything(), "/api/v1/query", []string{"query", "count(use)", "time", now}, `"3"`, "error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, body := get(t, api, c.who, c.path, c.form...)
			if !strings.Contains(body, c.has) || strings.Contains(body, c.not) {
				t.Errorf("want %s and not %s in %s", c.has, c.not, body)
			}
		})
	}
}

func TestAMissingNodeIsAWarningOfEveryAnswer(t *testing.T) {
	api, _ := newAPI(t, Parts{Missing: func(context.Context) []string { return []string{"n2", "n3"} }})
	for _, path := range []string{"/api/v1/query", "/api/v1/series", "/api/v1/labels"} {
		_, body := get(t, api, Everything(), path, "query", "use", "match[]", "use", "start", "0")
		if !strings.Contains(body, `"warnings":["partial answer: no recent samples from n2, n3"]`) {
			t.Errorf("%s: no warning in %s", path, body)
		}
	}
	v, warnings, err := api.Instant(WithAccess(t.Context(), Everything()), "sum(use)", at)
	if err != nil || len(v) != 1 || v[0].F != 72 || len(warnings) != 1 {
		t.Error(v, warnings, err)
	}
}

func TestLimitsEndAQueryWithItsReason(t *testing.T) {
	_, s := newAPI(t, Parts{})
	cfg := Default()
	cfg.MaxSamples = 3
	small, err := New(cfg, Parts{Store: s}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	code, body := get(t, small, Everything(), "/api/v1/query", "query", "use[1m]", "time", at.Format(time.RFC3339))
	if code != http.StatusUnprocessableEntity || !strings.Contains(body, "too many samples") {
		t.Error(code, body)
	}
}

func TestRemoteWriteIsStored(t *testing.T) {
	api, _ := newAPI(t, Parts{})
	req := prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels:  []prompb.Label{{Name: "__name__", Value: "pushed"}, {Name: "namespace", Value: "red"}},
		Samples: []prompb.Sample{{Value: 4, Timestamp: at.UnixMilli()}},
	}}}
	raw, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("POST", "/api/v1/write", bytes.NewReader(snappy.Encode(nil, raw)))
	r.Header.Set("Content-Type", "application/x-protobuf")
	r.Header.Set("Content-Encoding", "snappy")
	r = r.WithContext(WithAccess(r.Context(), Everything()))
	w := httptest.NewRecorder()
	api.ServeHTTP(w, r)
	if w.Code != http.StatusNoContent {
		text, _ := io.ReadAll(w.Body)
		t.Fatal(w.Code, string(text))
	}
	v, _, err := api.Instant(WithAccess(t.Context(), Everything()), "pushed", at)
	if err != nil || len(v) != 1 || v[0].F != 4 {
		t.Error(v, err)
	}
}

func TestExemplarsAreKeptAndOnlyThoseOfVisibleSeriesShown(t *testing.T) {
	api, s := newAPI(t, Parts{})
	app := s.Appender(t.Context())
	for _, ns := range []string{"red", "blue"} {
		l := labels.FromStrings("__name__", "traced", "namespace", ns)
		ref, err := app.Append(0, l, at.UnixMilli(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := app.AppendExemplar(ref, l, exemplar.Exemplar{Labels: labels.FromStrings("trace_id", "of-"+ns), Value: 1, Ts: at.UnixMilli(), HasTs: true}); err != nil {
			t.Fatal(err)
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	ask := []string{"query", "traced", "start", at.Add(-time.Minute).Format(time.RFC3339), "end", at.Format(time.RFC3339)}
	if _, body := get(t, api, Everything(), "/api/v1/query_exemplars", ask...); !strings.Contains(body, "of-red") || !strings.Contains(body, "of-blue") {
		t.Error(body)
	}
	if _, body := get(t, api, Access{Namespaces: []string{"red"}}, "/api/v1/query_exemplars", ask...); !strings.Contains(body, "of-red") || strings.Contains(body, "blue") {
		t.Error(body)
	}
	if _, body := get(t, api, Access{}, "/api/v1/query_exemplars", ask...); strings.Contains(body, "of-") {
		t.Error(body)
	}
}

func TestFederateGivesNewestSamplesOfVisibleSeries(t *testing.T) {
	api, s := newAPI(t, Parts{})
	now := time.Now().UnixMilli()
	l := func(ns string) labels.Labels {
		return labels.FromStrings("__name__", "fresh", "namespace", ns, "q", `a"b\c`)
	}
	if _, err := s.Inlet("t").Append(t.Context(), []store.Sample{{Labels: l("red"), T: now - 10, V: 1}, {Labels: l("red"), T: now - 5, V: 2}, {Labels: l("blue"), T: now - 5, V: 3}}); err != nil {
		t.Fatal(err)
	}
	code, body := get(t, api, Access{Namespaces: []string{"red"}}, "/federate", "match[]", "fresh")
	if code != 200 || !strings.Contains(body, `fresh{namespace="red",q="a\"b\\c",instance=""} 2 `) || strings.Contains(body, "blue") || strings.Count(body, "\n") != 2 {
		t.Error(code, body)
	}
	if code, _ := get(t, api, Everything(), "/federate", "match[]", "{"); code != http.StatusBadRequest {
		t.Error(code)
	}
}

func TestFederateWritesNamesAsTheReaderTakesThem(t *testing.T) {
	api, s := newAPI(t, Parts{})
	l := labels.FromStrings("__name__", "http.requests", "service.name", `a"b`)
	if _, err := s.Inlet("t").Append(t.Context(), []store.Sample{{Labels: l, T: time.Now().UnixMilli() - 10, V: 2}}); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ about, accept, kind, want string }{
		{"one that says nothing", "", "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", "# TYPE http_requests untyped\nhttp_requests{service_name=\"a\\\"b\",instance=\"\"} 2 "},
		{"Prometheus 3", "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
			"text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8", "# TYPE \"http.requests\" untyped\n{\"http.requests\",\"service.name\"=\"a\\\"b\",instance=\"\"} 2 "},
	} {
		req := httptest.NewRequest(http.MethodGet, "/federate?match[]={__name__=~%22.%2B%22}", nil)
		req.Header.Set("Accept", tc.accept)
		w := httptest.NewRecorder()
		api.ServeHTTP(w, req.WithContext(WithAccess(req.Context(), Everything())))
		if kind := w.Header().Get("Content-Type"); kind != tc.kind || !strings.HasPrefix(w.Body.String(), tc.want) {
			t.Errorf("%s gets %q, %s", tc.about, kind, w.Body)
		}
		p, err := textparse.New(w.Body.Bytes(), w.Header().Get("Content-Type"), labels.NewSymbolTable(), textparse.ParserOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := p.Next(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s cannot read it: %v", tc.about, err)
			}
		}
	}
}

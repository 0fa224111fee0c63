package promapi

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"perch/metrics/family"
)

func TestClientsReadWhatThisPrometheusCan(t *testing.T) {
	api, _ := newAPI(t, Parts{})
	code, body := get(t, api, Access{Namespaces: []string{"red"}}, "/api/v1/features")
	var got struct{ Data map[string]map[string]bool }
	if err := json.Unmarshal([]byte(body), &got); err != nil || code != http.StatusOK {
		t.Fatal(code, err, body)
	}
	for _, want := range []struct {
		category, name string
		on             bool
	}{{"promql", "subqueries", true}, {"promql", "at_modifier", true}, {"promql_functions", "histogram_quantile", true}, {"promql_functions", "limitk", false},
		{"api", "admin", false}, {"api", "remote_write_receiver", true}, {"tsdb", "exemplar_storage", true}, {"templating_functions", "humanize", true}, {"rules", "keep_firing_for", true}} {
		if got.Data[want.category][want.name] != want.on {
			t.Errorf("%s of %s is %v", want.name, want.category, !want.on)
		}
	}
}

func TestErrorsAreJSONWhateverIsInThem(t *testing.T) {
	w := httptest.NewRecorder()
	answerError(w, http.StatusBadRequest, "bad_data", "a\x01\a\U000e0001\"")
	var got struct{ Status, ErrorType, Error string }
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Status != "error" || got.ErrorType != "bad_data" || got.Error != "a\x01\a\U000e0001\"" {
		t.Errorf("%v: %s", err, w.Body)
	}
}

func TestWhatIsLargeIsCompressed(t *testing.T) {
	book, err := family.NewBook(family.DefaultLimits(), nil)
	if err != nil {
		t.Fatal(err)
	}
	api, _ := newAPI(t, Parts{Families: book})
	for path, want := range map[string]string{"/federate?match[]=use": "", "/api/v1/metadata": `"status":"success"`, "/api/v1/status/config": "global"} {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("Accept-Encoding", "gzip")
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r.WithContext(WithAccess(r.Context(), Everything())))
		z, err := gzip.NewReader(w.Body)
		if err != nil || w.Header().Get("Content-Encoding") != "gzip" {
			t.Fatal(path, err, w.Header())
		}
		if body, err := io.ReadAll(z); err != nil || !strings.Contains(string(body), want) {
			t.Errorf("%s: %v %s", path, err, body)
		}
	}
}

func TestDashboardsFindTheirPrometheus(t *testing.T) {
	reg := prometheus.NewRegistry()
	_, s := newAPI(t, Parts{})
	if _, err := New(Default(), Parts{Store: s}, slog.New(slog.DiscardHandler), reg); err != nil {
		t.Fatal(err)
	}
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == "prometheus_build_info" {
			for _, l := range f.GetMetric()[0].GetLabel() {
				if l.GetName() == "version" && strings.HasPrefix(l.GetValue(), "3.") && f.GetMetric()[0].GetGauge().GetValue() == 1 {
					return
				}
			}
			t.Fatal(f)
		}
	}
	t.Fatal("no prometheus_build_info")
}

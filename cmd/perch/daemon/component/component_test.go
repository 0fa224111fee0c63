package component

import (
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// series are the lines of a path without comments and values.
func series(t *testing.T, h http.Handler) (out []string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != http.StatusOK {
		t.Fatal(w.Body.String())
	}
	for l := range strings.Lines(w.Body.String()) {
		if !strings.HasPrefix(l, "#") {
			out = append(out, l[:strings.LastIndexByte(l, ' ')])
		}
	}
	return out
}

func TestEverySeriesHasOneJobAndThoseOfTheProcessHaveAll(t *testing.T) {
	reg := prometheus.NewRegistry()
	for _, name := range []string{"kubelet_running_pods", "kubernetes_build_info", "prober_probe_total", "kubeproxy_x", "coredns_x", "perch_x", "go_goroutines", "go_threads"} {
		reg.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: name}))
	}
	want := map[string][]string{
		"/metrics":            {"go_goroutines", "go_threads", "perch_x"},
		"/metrics/kubelet":    {"go_goroutines", "kubelet_running_pods", "kubernetes_build_info"},
		"/metrics/probes":     {"prober_probe_total"},
		"/metrics/cadvisor":   nil,
		"/metrics/kube-proxy": {"go_goroutines", "kubeproxy_x"},
		"/metrics/coredns":    {"coredns_x", "go_goroutines"},
	}
	got := map[string][]string{}
	for path, h := range Handlers(reg, Agent()) {
		got[path] = series(t, h)
	}
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

type answers struct {
	code int
	err  error
}

func (a answers) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: a.code}, a.err
}

func TestRequestsCountForTheirComponent(t *testing.T) {
	reg := prometheus.NewRegistry()
	schedules, controls := Count("kube-scheduler", reg), Count("kube-controller-manager", reg)
	req := httptest.NewRequest("PATCH", "https://api:6443/x", nil)
	_, _ = schedules(answers{code: 409}).RoundTrip(req)
	if _, err := controls(answers{err: errors.New("refused")}).RoundTrip(req); err == nil {
		t.Error("the error is lost")
	}
	// Twice: gathering must not change what the registry has.
	for range 2 {
		h := Handlers(reg, Server())
		for path, want := range map[string]string{
			"/metrics/kube-scheduler":          `rest_client_requests_total{code="409",host="api:6443",method="PATCH"}`,
			"/metrics/kube-controller-manager": `rest_client_requests_total{code="<error>",host="api:6443",method="PATCH"}`,
		} {
			got := series(t, h[path])
			if !slices.Contains(got, want) || len(slices.DeleteFunc(got, func(s string) bool { return !strings.HasPrefix(s, "rest_client_requests_total") })) != 1 {
				t.Errorf("%s: %v, want %s", path, got, want)
			}
		}
		if got := series(t, h["/metrics"]); len(got) > 0 {
			t.Errorf("/metrics: %v", got)
		}
	}
}

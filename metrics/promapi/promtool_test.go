package promapi

import (
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"perch/build/debiantest"
)

// TestPromtoolAsks drives the API by Prometheus' own tool, an old one of a
// distribution: scripts and people have it.
func TestPromtoolAsks(t *testing.T) {
	tool := debiantest.Tool(t, "promtool")
	api, _ := newAPI(t, Parts{})
	door := httptest.NewServer(http.StripPrefix("/prometheus", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		api.ServeHTTP(w, r.WithContext(WithAccess(r.Context(), Access{Namespaces: []string{"red", "blue"}})))
	})))
	defer door.Close()
	server, now, before := door.URL+"/prometheus", at.Format(time.RFC3339), at.Add(-time.Minute).Format(time.RFC3339)
	run := func(args ...string) (string, error) {
		out, err := exec.Command(tool, args...).CombinedOutput()
		return string(out), err
	}
	for name, tc := range map[string]struct {
		args        []string
		want, lacks string
	}{
		"a moment":          {[]string{"query", "instant", "--time=" + now, server, "sum by (namespace) (use)"}, `{namespace="red"} => 14 @[`, "n1"},
		"a moment as JSON":  {[]string{"query", "instant", "-o", "json", "--time=" + now, server, `use{namespace="blue"}`}, `"pod":"b"`, "red"},
		"a number":          {[]string{"query", "instant", "--time=" + now, server, "1+1"}, "scalar: 2", ""},
		"a time":            {[]string{"query", "range", "--start=" + before, "--end=" + now, "--step=15s", server, `use{pod="a"}`}, "14 @[", "n1"},
		"which series":      {[]string{"query", "series", "--match=use", "--start=" + before, "--end=" + now, server}, `pod="b"`, "n1"},
		"values of a label": {[]string{"query", "labels", "--start=" + before, "--end=" + now, server, "namespace"}, "blue", "n1"},
	} {
		out, err := run(tc.args...)
		if err != nil || !strings.Contains(out, tc.want) || tc.lacks != "" && strings.Contains(out, tc.lacks) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	if out, err := run("query", "instant", server, "sum("); err == nil || !strings.Contains(out, "parse error") {
		t.Errorf("no query: %v\n%s", err, out)
	}
}

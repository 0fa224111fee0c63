package daemon

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/alerts/evidence"
	"perch/logs/query"
	"perch/metrics/dashboard"
)

// TestEvidenceAsksTheLanguageOfLogsAndLinksToPlacesOfThePage holds evidence, which
// knows neither, against the language, the shipped dashboards and the page's paths.
func TestEvidenceAsksTheLanguageOfLogsAndLinksToPlacesOfThePage(t *testing.T) {
	boards, err := dashboard.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	variables := map[string][]string{}
	for _, b := range boards {
		var g struct {
			UID        string
			Templating struct{ List []struct{ Name string } }
		}
		if err := json.Unmarshal([]byte(b.JSON), &g); err != nil {
			t.Fatal(err)
		}
		for _, v := range g.Templating.List {
			variables[g.UID] = append(variables[g.UID], v.Name)
		}
	}
	paths, err := os.ReadFile("../../../ui/web/src/main.tsx")
	if err != nil {
		t.Fatal(err)
	}
	page, err := url.Parse("https://perch.example")
	if err != nil {
		t.Fatal(err)
	}
	good := func(text string) {
		t.Helper()
		if _, err := query.Parse(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for name, labels := range map[string]map[string]string{
		"a pod":       {"namespace": "shop", "pod": `we"b`, "container": "a"},
		"deployment":  {"namespace": "shop", "deployment": "web"},
		"a job":       {"namespace": "shop", "job_name": "mail"},
		"autoscaler":  {"namespace": "shop", "horizontalpodautoscaler": "web"},
		"a claim":     {"namespace": "shop", "persistentvolumeclaim": "data"},
		"a node":      {"node": "n1.example"},
		"a namespace": {"namespace": "shop"},
		"nothing":     {},
	} {
		var mu sync.Mutex
		var asked []string
		from := evidence.Sources{
			Lines: func(_ context.Context, text string, _, _ time.Time, _ int) ([]evidence.Line, error) {
				mu.Lock()
				defer mu.Unlock()
				asked = append(asked, text)
				return nil, nil
			},
			Values: func(_ context.Context, expr string, _ time.Time) ([]evidence.Value, error) {
				return []evidence.Value{{Labels: map[string]string{"namespace": "shop", "owner_kind": "ReplicaSet", "owner_name": "web-5d"}}}, nil
			},
		}
		out := make(chan evidence.Alert, 1)
		c := evidence.New(evidence.Default(page), from, nil, func(_ context.Context, in ...evidence.Alert) error {
			out <- in[0]
			return nil
		}, func(context.Context, evidence.Transition) {}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		if err := c.Deliver(ctx, evidence.Alert{Labels: labels, Starts: time.Now(), Ends: time.Now().Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if len(asked) == 0 && (labels["node"] != "" || len(labels) > 1) {
			t.Errorf("%s: nothing is asked", name)
		}
		for _, text := range asked {
			good(text)
		}
		notes := (<-out).Annotations
		for _, note := range []string{"perch_link", "perch_logs"} {
			if notes[note] == "" {
				continue
			}
			u, err := url.Parse(notes[note])
			if err != nil {
				t.Fatal(err)
			}
			first := "/" + strings.Split(u.Path, "/")[1]
			if !strings.Contains(string(paths), "'"+first+"'") {
				t.Errorf("%s: the page has no %s", name, u.Path)
			}
			if q := u.Query().Get("q"); q != "" {
				good(q)
			}
			if uid, ok := strings.CutPrefix(u.Path, "/dash/"); ok {
				for k := range u.Query() {
					if v, ok := strings.CutPrefix(k, "var-"); ok && !slices.Contains(variables[uid], v) || k == "ns" && !slices.Contains(variables[uid], "namespace") {
						t.Errorf("%s: dashboard %q has %v, no %s", name, uid, variables[uid], k)
					}
				}
			}
		}
	}
}

package rule

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
)

func TestAPartialAnswerResolvesNoAlert(t *testing.T) {
	var mu sync.Mutex // guards what follows
	var answer promql.Vector
	var partial error
	firing := map[string]string{} // what is said of each pod, by its name
	ask := func(err error, pods ...string) {
		mu.Lock()
		defer mu.Unlock()
		answer, partial = nil, err
		for _, p := range pods {
			answer = append(answer, promql.Sample{Metric: labels.FromStrings("__name__", "down", "pod", p, "severity", "its own"), F: float64(len(p))})
		}
	}
	d := data(t)
	d.Query = func(_ context.Context, expr string, at time.Time) (promql.Vector, error) {
		mu.Lock()
		defer mu.Unlock()
		if expr != "down" {
			return nil, nil
		}
		out := slices.Clone(answer)
		for i := range out {
			out[i].T = at.UnixMilli()
		}
		return out, partial
	}
	page, err := url.Parse("https://perch.example")
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	const text = `groups: [{name: g, rules: [
		{record: pods, expr: down},
		{alert: Other, expr: down, for: 1h},
		{alert: Down, expr: down, labels: {severity: '{{ if gt $value 3.0 }}high{{ else }}low{{ end }}'}, annotations: {summary: '{{ $labels.pod }} is {{ $value }}'}}]}]`
	rs := New(Config{Interval: 20 * time.Millisecond, ExternalURL: page}, d, func() []Source { return []Source{{Name: "f", Text: text}} },
		func(context.Context, ...Alert) error { return nil }, slog.New(slog.DiscardHandler), reg)
	defer run(t, rs)()
	evaluations := func() (n float64) {
		all, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			if f.GetName() == "prometheus_rule_group_iterations_total" {
				for _, m := range f.GetMetric() {
					if m.GetLabel()[0].GetValue() == "f;g" {
						n = m.GetCounter().GetValue()
					}
				}
			}
		}
		return n
	}
	fires := func(about string, want ...string) {
		t.Helper()
		wait := func(good func() bool) {
			t.Helper()
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for end := time.Now().Add(time.Minute); !good(); <-tick.C {
				if time.Now().After(end) {
					t.Fatalf("%s: %v fire, want %v", about, firing, want)
				}
			}
		}
		began := evaluations()
		wait(func() bool { return evaluations() >= began+3 }) // at least one began after the answer changed
		clear(firing)
		for _, a := range rs.Manager().AlertingRules() {
			for _, x := range a.ActiveAlerts() {
				if a.Name() == "Down" && x.State == rules.StateFiring {
					firing[x.Labels.Get("pod")] = x.Labels.Get("severity") + ", " + x.Annotations.Get("summary")
				}
			}
		}
		var got []string
		for _, said := range firing {
			got = append(got, said)
		}
		slices.Sort(got)
		if strings.Join(got, "; ") != strings.Join(want, "; ") {
			t.Errorf("%s: %q fire, want %q", about, got, want)
		}
		for _, r := range rs.Manager().Rules() {
			if r.LastError() != nil {
				t.Errorf("%s: %s: %v", about, r.Name(), r.LastError())
			}
		}
	}
	ask(nil, "a", "long")
	fires("both", "high, long is 4", "low, a is 1")
	ask(ErrPartial, "a")
	fires("one is missing", "high, long is 4", "low, a is 1")
	ask(ErrPartial)
	fires("all are missing", "high, long is 4", "low, a is 1")
	ask(ErrPartial, "b")
	fires("another begins meanwhile", "high, long is 4", "low, a is 1", "low, b is 1")
	ask(nil, "b")
	fires("the answer is whole again", "low, b is 1")
	ask(ErrPartial, "b")
	fires("and who resolved does not come back", "low, b is 1")
}

func TestOnlyWhatFiresAndIsLackingIsHeld(t *testing.T) {
	own := labels.FromStrings("team", "{{ $labels.app }}")
	alert := func(state rules.AlertState, pairs ...string) *rules.Alert {
		return &rules.Alert{State: state, Labels: labels.FromStrings(append(pairs, "alertname", "A", "team", "shop")...), Value: 7}
	}
	at := time.UnixMilli(5000)
	for _, tc := range []struct {
		about  string
		have   []labels.Labels
		alerts []*rules.Alert
		want   string
	}{
		{"nothing fires", nil, nil, ""},
		{"it is there, by another name and with a label that the rule sets", []labels.Labels{labels.FromStrings("__name__", "x", "pod", "a", "team", "z")},
			[]*rules.Alert{alert(rules.StateFiring, "pod", "a")}, ""},
		{"it is lacking", []labels.Labels{labels.FromStrings("pod", "b")}, []*rules.Alert{alert(rules.StateFiring, "pod", "a")}, `{pod="a", team="shop"} 7 5000`},
		{"one with a label more is another", []labels.Labels{labels.FromStrings("pod", "a", "node", "n")}, []*rules.Alert{alert(rules.StateFiring, "pod", "a")}, `{pod="a", team="shop"} 7 5000`},
		{"it waits to fire", nil, []*rules.Alert{alert(rules.StatePending, "pod", "a")}, ""},
	} {
		var v promql.Vector
		for _, l := range tc.have {
			v = append(v, promql.Sample{Metric: l})
		}
		var got []string
		for _, s := range new(ruleState).hold(v, tc.alerts, own, at) {
			got = append(got, fmt.Sprint(s.Metric, " ", s.F, " ", s.T))
		}
		if strings.Join(got, ";") != tc.want {
			t.Errorf("%s: got %q, want %q", tc.about, got, tc.want)
		}
	}
}

package rule

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

func TestATextOfANamespaceThatMayNotEndIsLeftOut(t *testing.T) {
	const text = `groups:
- name: g
  labels: {team: '%s'}
  rules:
  - {alert: Good, expr: up == 0, annotations: {summary: '{{ $labels.pod }} {{ range query "up" }}{{ .Labels.pod }}{{ end }}'}}
  - {alert: Long, expr: vector(1), annotations: {summary: '{{range 10000000000}}xxxxxxxxxxxxxxxx{{end}}'}}
  - {alert: Label, expr: vector(1), labels: {x: '{{range 9000000000000000000}}{{end}}'}}
  - {record: a:b, expr: up, labels: {x: '{{range 9000000000000000000}}{{end}}'}}
`
	mine := Source{Name: "PrometheusRule/shop/r", Namespace: "shop", Text: fmt.Sprintf(text, "a")}
	var say []string
	for _, p := range Check(mine) {
		say = append(say, fmt.Sprint(p.Rule, " ", p.Number, " ", strings.Split(p.Error, ":")[0]))
	}
	if want := []string{"Long 2 annotation summary", "Label 3 label x"}; !slices.Equal(say, want) {
		t.Errorf("%q, want %q", say, want)
	}
	if left, _ := Alerts(mine); len(left) != 1 || left[0].Name != "Good" {
		t.Errorf("in force: %v", left)
	}
	mine.Text = fmt.Sprintf(text, "{{range 9000000000000000000}}{{end}}")
	if p := Check(mine); len(p) != 3 || !strings.HasPrefix(p[0].Error, "label team: ") {
		t.Errorf("a label of the group: %v", p)
	}
	mine.Namespace = ""
	if p := Check(mine); len(p) != 0 {
		t.Errorf("the cluster's own: %v", p)
	}
}

func TestANamespaceRecordsNoAlerts(t *testing.T) {
	s := Source{Name: "PrometheusRule/shop/r", Namespace: "shop", Text: `groups: [{name: g, rules: [{record: ALERTS, expr: vector(1), labels: {alertname: NodeDown, alertstate: firing}},
		{record: ALERTS_FOR_STATE, expr: vector(1)}, {record: shop:ALERTS, expr: ALERTS}]}]`}
	if p := Check(s); len(p) != 2 || p[0].Rule != "ALERTS" || p[1].Rule != "ALERTS_FOR_STATE" || !strings.Contains(p[0].Error, "record under another name") {
		t.Errorf("%v", p)
	}
	if s.Namespace = ""; len(Check(s)) > 0 {
		t.Errorf("the cluster's own: %v", Check(s))
	}
}

func TestATextOfANamespaceReadsSoManySeries(t *testing.T) {
	var series atomic.Int64
	d := data(t)
	d.Query = func(_ context.Context, expr string, at time.Time) (out promql.Vector, _ error) {
		n := int64(1)
		if expr == "many" {
			n = series.Load()
		}
		for i := range n {
			out = append(out, promql.Sample{Metric: labels.FromStrings("pod", fmt.Sprint(i)), T: at.UnixMilli(), F: 1})
		}
		return out, nil
	}
	page, err := url.Parse("https://perch.example")
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 1000)
	text := `groups: [{name: g, rules: [{alert: A, expr: few, annotations: {summary: '{{ query "many" | len }}'}}]}]`
	rs := New(Config{Interval: 20 * time.Millisecond, ExternalURL: page}, d, func() []Source {
		return []Source{{Name: "wide", Text: text}, {Name: "shop", Namespace: "shop", Text: text}}
	},
		func(_ context.Context, alerts ...Alert) error {
			for _, a := range alerts {
				if a.Labels["alertname"] != "A" {
					continue
				}
				told <- fmt.Sprint(a.Labels["namespace"], " ", a.Annotations["summary"])
			}
			return nil
		}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	series.Store(101)
	defer run(t, rs)()
	want := map[string]string{"": "101", "shop": "finds 101 series, more than 100"}
	for len(want) > 0 {
		select {
		case got := <-told:
			ns, summary, _ := strings.Cut(got, " ")
			if say, open := want[ns]; open && !strings.Contains(summary, say) {
				t.Errorf("%q says %q, want %q", ns, summary, say)
			}
			delete(want, ns)
		case <-time.After(20 * time.Second):
			t.Fatalf("no alerts of %v", want)
		}
	}
}

func TestGroupsOfANamespaceAreNotEvaluatedAllTheTime(t *testing.T) {
	s := Source{Name: "PrometheusRule/shop/a", Namespace: "shop", Text: `groups: [{name: fast, interval: 1ms, rules: [{record: a, expr: vector(1)}]}, {name: often, interval: 1s, rules: [{record: b, expr: vector(1)}]}, {name: as all, rules: [{record: c, expr: vector(1)}]}]`}
	if p := Check(s); len(p) != 1 || !strings.Contains(p[0].Error, `group "fast": interval 1ms: rules of a namespace are evaluated every 1s at most`) {
		t.Error(p)
	}
	good, _ := parse([]Source{s}, parser.NewParser(parser.Options{}))
	for i, n := range []int{0, 1, 1} {
		if g := good[s.Name].Groups[i]; len(g.Rules) != n {
			t.Errorf("%s has %d rules", g.Name, len(g.Rules))
		}
	}
	if s.Namespace = ""; len(Check(s)) > 0 {
		t.Error("the cluster's may")
	}
}

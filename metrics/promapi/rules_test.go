package promapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
)

type oneGroup struct{ g *rules.Group }

func (o oneGroup) RuleGroups() []*rules.Group           { return []*rules.Group{o.g} }
func (o oneGroup) AlertingRules() []*rules.AlertingRule { return o.g.AlertingRules() }

// evaluated is a group of a file with rules about red and blue, and a record.
func evaluated(t *testing.T, file string, names ...string) *rules.Group {
	t.Helper()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr("use > 0")
	if err != nil {
		t.Fatal(err)
	}
	found := func(context.Context, string, time.Time) (promql.Vector, error) {
		return promql.Vector{{Metric: labels.FromStrings("namespace", "red"), F: 1}, {Metric: labels.FromStrings("namespace", "blue"), F: 1}}, nil
	}
	var all []rules.Rule
	for _, name := range names {
		rule := rules.NewAlertingRule(name, expr, 0, 0, labels.EmptyLabels(), labels.EmptyLabels(), labels.EmptyLabels(), "", true, slog.New(slog.DiscardHandler))
		if strings.HasPrefix(name, "Firing") {
			if _, err := rule.Eval(t.Context(), 0, at, found, &url.URL{}, 0); err != nil {
				t.Fatal(err)
			}
		}
		if strings.HasPrefix(name, "Broken") {
			rule.SetLastError(errors.New("two series of blue"))
			rule.SetHealth(rules.HealthBad)
		}
		if !strings.HasPrefix(name, "New") {
			rule.SetEvaluationTimestamp(at)
		}
		all = append(all, rule)
	}
	all = append(all, rules.NewRecordingRule("record:"+strings.ReplaceAll(file, "/", "_"), expr, labels.EmptyLabels()))
	return rules.NewGroup(rules.GroupOptions{Name: "g", File: file, Rules: all, Opts: &rules.ManagerOptions{Logger: slog.New(slog.DiscardHandler)}})
}

type groups []*rules.Group

func (g groups) RuleGroups() []*rules.Group { return g }
func (g groups) AlertingRules() (out []*rules.AlertingRule) {
	for _, x := range g {
		out = append(out, x.AlertingRules()...)
	}
	return out
}

func TestACallerSeesTheRulesOfItsNamespacesFiringOrNot(t *testing.T) {
	all := groups{evaluated(t, "PrometheusRule/red/x", "QuietRed", "BrokenRed", "NewRed"), evaluated(t, "PrometheusRule/blue/x", "QuietBlue"),
		evaluated(t, "shipped", "QuietShipped", "FiringShipped", "BrokenShipped"), evaluated(t, "/etc/rules.yaml", "QuietFile", "FiringFile")}
	whose := func(file string) RuleSource {
		if p := strings.Split(file, "/"); p[0] == "PrometheusRule" {
			return RuleSource{Namespace: p[1]}
		}
		return RuleSource{Common: file == "shipped", Wide: true}
	}
	api, _ := newAPI(t, Parts{Rules: func(context.Context) Rules { return all }, RuleSources: whose})
	names := func(who Access, form ...string) map[string]string {
		t.Helper()
		code, text := get(t, api, who, "/api/v1/rules", form...)
		var got struct {
			Data struct {
				Groups []struct {
					Rules []struct {
						Name, State, LastError string
						Alerts                 []Alert
					}
				}
			}
		}
		if err := json.Unmarshal([]byte(text), &got); err != nil || code != 200 {
			t.Fatalf("%v %d %s", err, code, text)
		}
		out := map[string]string{}
		for _, g := range got.Data.Groups {
			for _, r := range g.Rules {
				out[r.Name] = strings.TrimSpace(fmt.Sprintf("%s %d %s", r.State, len(r.Alerts), r.LastError))
			}
		}
		return out
	}
	red := Access{Namespaces: []string{"red"}}
	const secret = "the reason is told to who sees all namespaces"
	shared := map[string]string{"QuietShipped": "inactive 0", "FiringShipped": "firing 1", "BrokenShipped": "inactive 0 " + secret, "record:shipped": "0"}
	want := maps.Clone(shared)
	maps.Copy(want, map[string]string{"QuietRed": "inactive 0", "NewRed": "unknown 0", "BrokenRed": "inactive 0 two series of blue", "record:PrometheusRule_red_x": "0", "FiringFile": "firing 1"})
	if got := names(red); !maps.Equal(got, want) {
		t.Errorf("who sees red sees %v, want %v", got, want)
	}
	want["FiringShipped"], want["FiringFile"] = "firing 0", "firing 0"
	if got := names(red, "exclude_alerts", "true"); !maps.Equal(got, want) {
		t.Errorf("without alerts %v, want %v", got, want)
	}
	shared["FiringShipped"] = "inactive 0"
	if got := names(Access{Namespaces: []string{"green"}}); !maps.Equal(got, shared) {
		t.Errorf("who sees green sees %v, want %v", got, shared)
	}
	if got := names(Everything()); len(got) != 13 || got["BrokenShipped"] != "inactive 0 two series of blue" {
		t.Errorf("who sees all sees %v", got)
	}
}

func TestAlertsFromOutsideAreListedWithThoseOfRules(t *testing.T) {
	all := groups{evaluated(t, "f", "Firing")}
	api, _ := newAPI(t, Parts{Rules: func(context.Context) Rules { return all }, Outside: func() []Alert {
		return []Alert{
			{Labels: map[string]string{"alertname": "Posted", "namespace": "red"}, Annotations: map[string]string{"summary": "s"}, ActiveAt: at},
			{Labels: map[string]string{"alertname": "Posted", "namespace": "blue"}},
			{Labels: map[string]string{"alertname": "Posted"}},
			{Labels: map[string]string{"alertname": "Firing", "namespace": "red"}}, // the rule makes it too
		}
	}})
	for name, tc := range map[string]struct {
		who  Access
		want string
	}{
		"everything":    {Everything(), "Firing/blue Firing/red Posted/ Posted/blue Posted/red"},
		"one":           {Access{Namespaces: []string{"red"}}, "Firing/red Posted/red"},
		"only the rest": {Access{Unlabelled: true}, "Posted/"},
		"nothing":       {Access{}, ""},
	} {
		code, text := get(t, api, tc.who, "/api/v1/alerts")
		var got struct{ Data struct{ Alerts []Alert } }
		if err := json.Unmarshal([]byte(text), &got); err != nil || code != 200 {
			t.Fatalf("%v %d %s", err, code, text)
		}
		var list []string
		for _, a := range got.Data.Alerts {
			list = append(list, a.Labels["alertname"]+"/"+a.Labels["namespace"])
			if a.State != "firing" || a.Labels["alertname"] == "Posted" && a.Labels["namespace"] == "red" && (a.Annotations["summary"] != "s" || !a.ActiveAt.Equal(at)) {
				t.Errorf("%+v", a)
			}
		}
		slices.Sort(list)
		if strings.Join(list, " ") != tc.want {
			t.Errorf("%s: %v, want %s", name, list, tc.want)
		}
	}
}

func TestACallerSeesOnlyTheAlertsOfItsNamespaces(t *testing.T) {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr("use > 0")
	if err != nil {
		t.Fatal(err)
	}
	rule := rules.NewAlertingRule("Full", expr, 0, 0, labels.EmptyLabels(), labels.EmptyLabels(), labels.EmptyLabels(), "", true, slog.New(slog.DiscardHandler))
	found := func(context.Context, string, time.Time) (promql.Vector, error) {
		return promql.Vector{{Metric: labels.FromStrings("namespace", "red"), F: 1}, {Metric: labels.FromStrings("namespace", "blue"), F: 1}}, nil
	}
	if _, err := rule.Eval(t.Context(), 0, at, found, &url.URL{}, 0); err != nil {
		t.Fatal(err)
	}
	group := rules.NewGroup(rules.GroupOptions{Name: "g", File: "f", Rules: []rules.Rule{rule}, Opts: &rules.ManagerOptions{Logger: slog.New(slog.DiscardHandler)}})
	api, _ := newAPI(t, Parts{Rules: func(context.Context) Rules { return oneGroup{group} }})
	for _, path := range []string{"/api/v1/alerts", "/api/v1/rules"} {
		for name, tc := range map[string]struct {
			who       Access
			red, blue bool
		}{
			"everything":    {Everything(), true, true},
			"one":           {Access{Namespaces: []string{"red"}}, true, false},
			"another":       {Access{Namespaces: []string{"green"}}, false, false},
			"nothing":       {Access{}, false, false},
			"only the rest": {Access{Unlabelled: true}, false, false},
		} {
			code, text := get(t, api, tc.who, path)
			if code != 200 || strings.Contains(text, `"red"`) != tc.red || strings.Contains(text, `"blue"`) != tc.blue {
				t.Errorf("%s for %s: %d %s", path, name, code, text)
			}
			if path == "/api/v1/rules" && strings.Contains(text, "Full") != (tc.red || tc.blue) {
				t.Errorf("the rule for %s: %s", name, text)
			}
		}
	}
}

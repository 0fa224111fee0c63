package promapi

import (
	"context"
	"log/slog"
	"net/url"
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

package rule

import (
	"fmt"
	"log/slog"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

// Source is one text with rule groups.
type Source struct {
	Name string // file path, or PrometheusRule/namespace/name: shown as the group's file
	Text string // YAML with a top-level `groups`
}

// Problem is why a source is not in force.
type Problem struct {
	Source string `json:"source"`
	Error  string `json:"error"`
}

// parse splits sources into those that hold and the problems of those that do
// not. A name that occurs twice is a problem of the second.
func parse(sources []Source, p parser.Parser) (map[string]*rulefmt.RuleGroups, []Problem) {
	good := map[string]*rulefmt.RuleGroups{}
	var bad []Problem
	for _, s := range sources {
		if good[s.Name] != nil {
			bad = append(bad, Problem{s.Name, "two sources have this name"})
			continue
		}
		groups, errs := rulefmt.Parse([]byte(s.Text), false, model.UTF8Validation, p, slog.New(slog.DiscardHandler))
		for _, err := range errs {
			bad = append(bad, Problem{s.Name, err.Error()})
		}
		if len(errs) == 0 {
			good[s.Name] = groups
		}
	}
	return good, bad
}

// loaded is a rules.GroupLoader over parsed sources.
type loaded struct {
	groups map[string]*rulefmt.RuleGroups
	parser parser.Parser
}

// Load implements rules.GroupLoader.
func (l loaded) Load(name string, _ bool, _ model.ValidationScheme) (*rulefmt.RuleGroups, []error) {
	g, ok := l.groups[name]
	if !ok {
		return nil, []error{fmt.Errorf("BUG: rule source %s was not parsed", name)}
	}
	return g, nil
}

// Parse implements rules.GroupLoader.
func (l loaded) Parse(query string) (parser.Expr, error) { return l.parser.ParseExpr(query) }

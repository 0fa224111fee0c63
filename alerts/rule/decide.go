package rule

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
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

// stateReaders names the groups (as rules.GroupKey) whose rules read the state
// of objects, series with kube_ in front, themselves or through a series that
// another rule records.
func stateReaders(sources map[string]*rulefmt.RuleGroups, p parser.Parser) map[string]bool {
	state := map[string]bool{} // recorded series that carry state
	out := map[string]bool{}
	for more := true; more; {
		more = false
		for file, groups := range sources {
			for _, g := range groups.Groups {
				for _, r := range g.Rules {
					if r.Record != "" && state[r.Record] || !readsState(r.Expr, state, p) {
						continue
					}
					out[rules.GroupKey(file, g.Name)] = true
					if r.Record != "" {
						state[r.Record], more = true, true
					}
				}
			}
		}
	}
	return out
}

func readsState(text string, recorded map[string]bool, p parser.Parser) bool {
	expr, err := p.ParseExpr(text)
	if err != nil {
		return false // parse has named it
	}
	found := false
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok {
			name := v.Name
			for _, m := range v.LabelMatchers {
				if m.Name == model.MetricNameLabel {
					name = m.Value
				}
			}
			found = found || strings.HasPrefix(name, "kube_") || recorded[name]
		}
		return nil
	})
	return found
}

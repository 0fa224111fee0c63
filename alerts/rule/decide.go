package rule

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
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

	Unread string // why there is no text, of a file

	// Namespace whose series alone the rules may read, see Data.Within, and
	// whose label all their alerts and series get. Empty: they see everything.
	Namespace string
}

// Problem is a rule, or a whole source, that is not in force, and why.
type Problem struct {
	Source   string `json:"source"`
	Group    string `json:"group,omitempty"`
	Rule     string `json:"rule,omitempty"`     // its name; empty: all of the source
	Number   int    `json:"number,omitempty"`   // of the rule in its group, from 1
	Position string `json:"position,omitempty"` // line:column in the source
	Error    string `json:"error"`
}

// String is the problem in one line.
func (p Problem) String() string {
	out := p.Source
	if p.Position != "" {
		out += ":" + p.Position
	}
	if p.Group != "" {
		out += fmt.Sprintf(": group %q, rule %d %q", p.Group, p.Number, p.Rule)
	}
	return out + ": " + p.Error
}

// parse splits sources into the rules that hold and the problems of those that
// do not: a broken rule is left out of its group, a source that is no rules at
// all is left out whole. A name that occurs twice is a problem of the second.
func parse(sources []Source, p parser.Parser) (map[string]*rulefmt.RuleGroups, []Problem) {
	good := map[string]*rulefmt.RuleGroups{}
	var bad []Problem
	for _, s := range sources {
		if good[s.Name] != nil {
			bad = append(bad, Problem{Source: s.Name, Error: "two sources have this name"})
			continue
		}
		if s.Unread != "" {
			bad = append(bad, Problem{Source: s.Name, Error: s.Unread})
			continue
		}
		groups, errs := rulefmt.Parse([]byte(s.Text), false, model.UTF8Validation, p, slog.New(slog.DiscardHandler))
		broken := map[brokenRule]bool{}
		whole := groups == nil
		for _, err := range errs {
			x := Problem{Source: s.Name, Error: err.Error()}
			var at *rulefmt.Error
			if errors.As(err, &at) && at.Group != "" && at.Rule > 0 {
				x.Group, x.Rule, x.Number = at.Group, at.RuleName, at.Rule
				before, reason, _ := strings.Cut(x.Error, fmt.Sprintf("group %q, rule %d, %q: ", at.Group, at.Rule, at.RuleName))
				x.Position, x.Error = strings.TrimSuffix(before, ": "), reason
				broken[brokenRule{at.Group, at.Rule - 1}] = true
			} else {
				whole = true
			}
			bad = append(bad, x)
		}
		if whole {
			continue
		}
		if s.Namespace != "" {
			if err := tooMany(groups); err != nil {
				bad = append(bad, Problem{Source: s.Name, Error: err.Error()})
				continue
			}
		}
		for i := range groups.Groups {
			g := &groups.Groups[i]
			var keep []rulefmt.Rule
			if err := tooOften(*g); s.Namespace != "" && err != nil {
				bad = append(bad, Problem{Source: s.Name, Error: err.Error()})
				g.Interval, g.Rules = 0, nil
			}
			for n, r := range g.Rules {
				if broken[brokenRule{g.Name, n}] {
					continue
				}
				if s.Namespace != "" {
					if err := mayRun(*g, r); err != nil {
						bad = append(bad, Problem{Source: s.Name, Group: g.Name, Rule: r.Record + r.Alert, Number: n + 1, Error: err.Error()})
						continue
					}
					r.Labels = maps.Clone(r.Labels)
					if r.Labels == nil {
						r.Labels = map[string]string{}
					}
					r.Labels["namespace"] = s.Namespace
				}
				keep = append(keep, r)
			}
			g.Rules = keep
		}
		good[s.Name] = groups
	}
	return good, bad
}

type brokenRule struct {
	group string
	index int
}

// Check names what is wrong with one source.
func Check(s Source) []Problem {
	_, bad := parse([]Source{s}, parser.NewParser(parser.Options{}))
	return bad
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

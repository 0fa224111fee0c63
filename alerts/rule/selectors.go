package rule

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"
)

// Selectors lists what the shipped rules read from the store, each once: what
// they record themselves is left out.
func Selectors() ([]string, error) {
	all, err := Shipped()
	if err != nil {
		return nil, err
	}
	p := parser.NewParser(parser.Options{})
	groups, problems := parse(all, p)
	if len(problems) > 0 {
		return nil, fmt.Errorf("read shipped rules: %s: %s", problems[0].Source, problems[0].Error)
	}
	found, recorded := map[string]string{}, map[string]bool{"ALERTS": true} // name by selector
	for _, g := range groups {
		for _, group := range g.Groups {
			for _, r := range group.Rules {
				recorded[r.Record] = true
				e, err := p.ParseExpr(r.Expr)
				if err != nil {
					return nil, fmt.Errorf("read rule %s: %w", r.Record+r.Alert, err)
				}
				parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
					if v, ok := n.(*parser.VectorSelector); ok {
						bare := &parser.VectorSelector{Name: v.Name, LabelMatchers: v.LabelMatchers}
						found[bare.String()] = v.Name
					}
					return nil
				})
			}
		}
	}
	maps.DeleteFunc(found, func(sel, name string) bool { return recorded[name] || strings.Contains(name, ":") })
	return slices.Sorted(maps.Keys(found)), nil
}

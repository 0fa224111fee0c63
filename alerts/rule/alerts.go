package rule

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// AlertRule is one alerting rule of a source.
type AlertRule struct {
	Group, Name, Expr string
	For, KeepFiring   time.Duration
	Interval          time.Duration // of its group; zero: the default

	// Past is Expr with the expressions of the records of the same source that it
	// reads in their places, so that it can be asked about a time when nothing
	// recorded them. Recorded are those records that it reads all the same, by labels,
	// at another time or under a name that several have: of them only what is stored
	// can answer.
	Past     string
	Recorded []string
}

// Alerts lists the alerting rules of a source that hold, in order, and what is
// wrong with the rest.
func Alerts(s Source) ([]AlertRule, []Problem) {
	p := parser.NewParser(parser.Options{})
	good, bad := parse([]Source{s}, p)
	var out []AlertRule
	if groups := good[s.Name]; groups != nil {
		known := records{parser: p, expr: map[string]string{}, other: map[string]bool{}}
		for _, g := range groups.Groups {
			for _, r := range g.Rules {
				if r.Record == "" {
					continue
				}
				if known.expr[r.Record] != "" || len(r.Labels)+len(g.Labels) > 0 {
					known.other[r.Record] = true
				}
				known.expr[r.Record] = r.Expr
			}
		}
		for _, g := range groups.Groups {
			for _, r := range g.Rules {
				if r.Alert != "" {
					read := map[string]bool{}
					out = append(out, AlertRule{Group: g.Name, Name: r.Alert, Expr: r.Expr, For: time.Duration(r.For), KeepFiring: time.Duration(r.KeepFiringFor), Interval: time.Duration(g.Interval),
						Past: known.inline(r.Expr, nil, read), Recorded: slices.Sorted(maps.Keys(read))})
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b AlertRule) int { return cmp.Compare(a.Group, b.Group) })
	return out, bad
}

// records are the recording rules of a source.
type records struct {
	parser parser.Parser
	expr   map[string]string // by name
	other  map[string]bool   // names whose series are not just their expression
}

// longestPast is the longest expression that is put together, in bytes.
const longestPast = 16 << 10

// inline puts expressions in the places of the records that expr reads, but for those
// in within, which are being put in. read gets the names of those that stay.
func (k records) inline(expr string, within []string, read map[string]bool) string {
	tree, err := k.parser.ParseExpr(expr)
	if err != nil {
		panic("BUG: a rule that holds: " + err.Error())
	}
	type place struct {
		from, to int
		text     string
	}
	var places []place
	parser.Inspect(tree, func(n parser.Node, path []parser.Node) error {
		v, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		name := k.name(v, read)
		if name == "" {
			return nil
		}
		pos, ranged := v.PosRange, ""
		if len(path) > 0 {
			if m, ok := path[len(path)-1].(*parser.MatrixSelector); ok {
				pos, ranged = m.PositionRange(), "["+model.Duration(m.Range).String()+":]"
			}
		}
		if k.other[name] || len(v.LabelMatchers) > 1 || v.OriginalOffset != 0 || v.Timestamp != nil || v.StartOrEnd != 0 || slices.Contains(within, name) {
			read[name] = true
			return nil
		}
		inner := k.inline(k.expr[name], append(slices.Clone(within), name), read)
		places = append(places, place{int(pos.Start), int(pos.End), "(" + inner + ")" + ranged})
		return nil
	})
	slices.SortFunc(places, func(a, b place) int { return cmp.Compare(b.from, a.from) }) // the last first: the others stay where they are
	out := expr
	for _, p := range places {
		out = out[:p.from] + p.text + out[p.to:]
	}
	if len(out) > longestPast {
		parser.Inspect(tree, func(n parser.Node, _ []parser.Node) error {
			if v, ok := n.(*parser.VectorSelector); ok {
				if name := k.name(v, read); name != "" {
					read[name] = true
				}
			}
			return nil
		})
		return expr
	}
	return out
}

// name is the record that a selector reads; empty: none. read gets the names of those
// that a pattern finds.
func (k records) name(v *parser.VectorSelector, read map[string]bool) string {
	for _, m := range v.LabelMatchers {
		switch {
		case m.Name != labels.MetricName:
		case m.Type == labels.MatchEqual && k.expr[m.Value] != "":
			return m.Value
		case m.Type != labels.MatchEqual:
			for name := range k.expr {
				if m.Matches(name) {
					read[name] = true
				}
			}
		}
	}
	return ""
}

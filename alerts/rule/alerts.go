package rule

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
)

// AlertRule is one alerting rule of a source.
type AlertRule struct {
	Group, Name, Expr string
	For, KeepFiring   time.Duration
	Interval          time.Duration // of its group; zero: the default
}

// Alerts lists the alerting rules of a source that hold, in order, and what is
// wrong with the rest.
func Alerts(s Source) ([]AlertRule, []Problem) {
	good, bad := parse([]Source{s}, parser.NewParser(parser.Options{}))
	var out []AlertRule
	if groups := good[s.Name]; groups != nil {
		for _, g := range groups.Groups {
			for _, r := range g.Rules {
				if r.Alert != "" {
					out = append(out, AlertRule{g.Name, r.Alert, r.Expr, time.Duration(r.For), time.Duration(r.KeepFiringFor), time.Duration(g.Interval)})
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b AlertRule) int { return cmp.Compare(a.Group, b.Group) })
	return out, bad
}

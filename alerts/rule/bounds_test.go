package rule

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

func TestAnObjectOfANamespaceHasSoManyGroupsAndRules(t *testing.T) {
	group := func(name, interval string, rules int) string {
		return fmt.Sprintf("- {name: %s, interval: %s, rules: [%s]}\n", name, interval, strings.TrimSuffix(strings.Repeat("{record: a, expr: b}, ", rules), ", "))
	}
	many := func(n, rules int) (out string) {
		for i := range n {
			out += group(fmt.Sprint("g", i), "1m", rules)
		}
		return out
	}
	for _, x := range []struct {
		groups, why string
		left        int // groups in force; -1: no source
	}{
		{many(101, 1), "it has 101 groups", -1},
		{many(100, 20), "", 100},
		{many(2, 1000) + group("h", "1m", 1), "it has 2001 rules", -1},
	} {
		s := Source{Name: "PrometheusRule/shop/r", Namespace: "shop", Text: "groups:\n" + x.groups}
		in, problems := parse([]Source{s}, parser.NewParser(parser.Options{}))
		left := -1
		if in[s.Name] != nil {
			left = len(in[s.Name].Groups)
		}
		if x.why == "" && len(problems) > 0 || x.why != "" && (len(problems) != 1 || !strings.HasPrefix(problems[0].Error, x.why)) || left != x.left {
			t.Errorf("%.80s: %v, %d groups, want %q and %d", x.groups, problems, left, x.why, x.left)
		}
		if s.Namespace = ""; len(Check(s)) > 0 {
			t.Errorf("%.80s: the cluster's own: %v", x.groups, Check(s))
		}
	}
}

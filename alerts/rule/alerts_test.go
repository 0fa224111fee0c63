package rule

import (
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

func TestABacktestReadsNoRecordsThatNobodyRecordedYet(t *testing.T) {
	for name, tc := range map[string]struct {
		records, expr  string
		past, recorded string
	}{
		"no record":               {``, `up == 0`, `up == 0`, ``},
		"a record":                {`{record: a, expr: sum(up)}`, `a > 1 and on () b > a`, `(sum(up)) > 1 and on () b > (sum(up))`, ``},
		"a record over a time":    {`{record: a, expr: sum(up)}`, `max_over_time(a[10m]) > 1`, `max_over_time((sum(up))[10m:]) > 1`, ``},
		"a record of a record":    {`{record: b, expr: a * 2}, {record: a, expr: sum(up)}`, `b > 1`, `((sum(up)) * 2) > 1`, ``},
		"a record by labels":      {`{record: a, expr: sum by (x) (up)}`, `a{x="1"} > 1`, `a{x="1"} > 1`, `a`},
		"a record of an hour ago": {`{record: a, expr: sum(up)}`, `a > a offset 1h`, `(sum(up)) > a offset 1h`, `a`},
		"a record with labels":    {`{record: a, expr: sum(up), labels: {x: y}}`, `a > 1`, `a > 1`, `a`},
		"two of one name":         {`{record: a, expr: sum(up)}, {record: a, expr: sum(down)}`, `a > 1`, `a > 1`, `a`},
		"a record of itself":      {`{record: a, expr: a or sum(up)}`, `a > 1`, `(a or sum(up)) > 1`, `a`},
		"a record in a subquery":  {`{record: a, expr: sum(up)}`, `max_over_time(a[10m:1m]) > 1`, `max_over_time((sum(up))[10m:1m]) > 1`, ``},
		"the name as text":        {`{record: a, expr: sum(up)}`, `{__name__="a"} > 1`, `(sum(up)) > 1`, ``},
		"names by a pattern":      {`{record: a, expr: sum(up)}`, `{__name__=~"a|c"} > 1`, `{__name__=~"a|c"} > 1`, `a`},
	} {
		text := "groups: [{name: g, rules: [" + tc.records
		if tc.records != "" {
			text += ","
		}
		got, bad := Alerts(Source{Name: "f", Text: text + "{alert: A, expr: '" + tc.expr + "'}]}]"})
		if len(bad) > 0 || len(got) != 1 {
			t.Fatalf("%s: %v", name, bad)
		}
		if got[0].Past != tc.past || strings.Join(got[0].Recorded, " ") != tc.recorded || got[0].Expr != tc.expr {
			t.Errorf("%s: %q, of records %v, want %q, %q", name, got[0].Past, got[0].Recorded, tc.past, tc.recorded)
		}
		if _, err := parser.NewParser(parser.Options{}).ParseExpr(got[0].Past); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestShippedAlertsCanBeAskedAboutThePast(t *testing.T) {
	all, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		got, bad := Alerts(s)
		if len(bad) > 0 {
			t.Fatal(bad)
		}
		for _, r := range got {
			if _, err := parser.NewParser(parser.Options{}).ParseExpr(r.Past); err != nil {
				t.Errorf("%s: %s: %v", r.Name, r.Past, err)
			}
		}
	}
}

package recorded

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/record"
)

func TestBrokenRulesAreNamedWithTheWayOut(t *testing.T) {
	good := Rule{Namespace: "shop", Object: "a", Record: "x_total", Query: "level:error", By: []string{"pod", "http.status"}, Labels: map[string]string{"team": "web"}, Limit: 10}
	for _, c := range []struct {
		name   string
		change func(*Rule)
		want   string
	}{
		{"a good one", func(*Rule) {}, ""},
		{"an empty query counts all lines", func(r *Rule) { r.Query = "" }, ""},
		{"a broken query", func(r *Rule) { r.Query = "level:error (a or" }, "query: query position 17: expected"},
		{"a broken expression", func(r *Rule) { r.Query = "~[a" }, "query: query position"},
		{"a record with a space", func(r *Rule) { r.Record = "x total" }, `record "x total": use the name of a series`},
		{"no record", func(r *Rule) { r.Record = "" }, `record ""`},
		{"a record that says which alerts fire", func(r *Rule) { r.Record = "ALERTS" }, "use another name"},
		{"a record of perch", func(r *Rule) { r.Record = "perch_x_total" }, "perch_ is perch's own"},
		{"by the node, which is there", func(r *Rule) { r.By = []string{"node"} }, `by "node": every series has it`},
		{"by the namespace, which is there", func(r *Rule) { r.By = []string{"namespace"} }, ""},
		{"by the namespace of all lines", func(r *Rule) { r.By, r.All = []string{"namespace"}, true }, ""},
		{"by a label of the scrape", func(r *Rule) { r.By = []string{"instance"} }, `by "instance": the label is not free`},
		{"by names that become one", func(r *Rule) { r.By = []string{"a.b", "a_b"} }, "label a_b is there twice"},
		{"too many names", func(r *Rule) { r.By = strings.Split("a b c d e f", " ") }, "by has 6 names; 5 are allowed"},
		{"a label that is not free", func(r *Rule) { r.Labels = map[string]string{"namespace": "bank"} }, `label "namespace" is not free`},
		{"a label with a dot", func(r *Rule) { r.Labels = map[string]string{"a.b": "x"} }, `label "a.b": use letters`},
		{"a label that is in by", func(r *Rule) { r.Labels = map[string]string{"pod": "x"} }, `label "pod" is in by too`},
		{"too many series", func(r *Rule) { r.Limit = 5000 }, "limit 5000: use 1 to 1000 series"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := good
			c.change(&r)
			err := Check(r)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestRulesOfAnObjectAreNamedByTheirNumber(t *testing.T) {
	rule := func(record, query string) Rule { return Rule{Record: record, Query: query} }
	err := CheckObject([]Rule{rule("a_total", "x"), rule("b_total", "level:error (a or"), rule("a_total", "y")})
	if err == nil || err.Error() != "rule 2 \"b_total\": query: query position 17: expected a word, a phrase, field:value, not or (, found the end\nrule 3 \"a_total\": another rule of the object has the same record and labels" {
		t.Error(err)
	}
	if err := CheckObject([]Rule{rule("a_total", "x"), rule("b_total", "x")}); err != nil {
		t.Error(err)
	}
}

// Costs of looking at a line, without storing it.
func BenchmarkLook(b *testing.B) {
	var lines []record.Record
	s := &record.Stream{Namespace: "shop", Pod: "web-1", Node: "n1", Kind: "log"}
	for i := range 1000 {
		lines = append(lines, record.Record{Stream: s, Level: record.Info, Body: fmt.Appendf(nil, "2026-11-20T10:00:00.123Z INFO request served method=GET path=/api/v1/cart/%d status=200 took=%dms user=u%d trace=4bf92f3577b34da6a3ce929d0e0e4736", i, i%90, i%40)})
	}
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprint(n, " rules"), func(b *testing.B) {
			var rules []*rule
			for i := range n {
				x, err := newRule(Rule{Namespace: "shop", Object: "a", Record: fmt.Sprintf("r%d_total", i), Query: []string{`level:error "payment failed"`, "timeout or refused", "status:>=500", `"request served"`}[i%4], By: []string{"pod"}})
				if err != nil {
					b.Fatal(err)
				}
				rules = append(rules, x)
			}
			r, err := New(Default(), nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				x, _ := r.batch.Get().(*batch)
				x.look(rules, lines)
				x.release(&r.batch)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/line")
		})
	}
}

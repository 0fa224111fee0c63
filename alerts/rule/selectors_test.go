package rule

import (
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// ofNamespaces are the series of perch that tell of one namespace's things, and
// have its label.
var ofNamespaces = regexp.MustCompile(`^(kube_(pod|deployment|replicaset|statefulset|daemonset|job|horizontalpodautoscaler)_|container_|kubelet_volume_stats_` +
	`|perch_(tail_container|scrape_target|recorded)_|namespace|node_namespace|cluster:namespace:)`)

// TestShippedRulesReadWhatPerchSays walks every selector. What a namespace's pods
// answer, what its people write and what its rules record has its label; a second
// exporter has another job. So neither raises or hides an alert about the cluster,
// and none is counted twice.
func TestShippedRulesReadWhatPerchSays(t *testing.T) {
	all, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	p := parser.NewParser(parser.Options{})
	groups, problems := parse(all, p)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	told := map[string][]labels.Labels{}
	for _, s := range readRecording(t, "testdata/healthy.txt").series {
		name := s.labels.Get(labels.MetricName)
		told[name] = append(told[name], s.labels)
	}
	n := 0
	for _, g := range groups {
		for _, group := range g.Groups {
			for _, r := range group.Rules {
				e, err := p.ParseExpr(r.Expr)
				if err != nil {
					t.Fatal(err)
				}
				parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
					if v, ok := node.(*parser.VectorSelector); ok {
						n++
						bounded(t, r.Alert+r.Record, v, told[v.Name])
					}
					return nil
				})
			}
		}
	}
	if n < 150 {
		t.Errorf("only %d selectors were seen", n)
	}
}

// bounded says what a selector of a rule would take from others, and whether it takes
// what was recorded of perch.
func bounded(t *testing.T, rule string, v *parser.VectorSelector, told []labels.Labels) {
	t.Helper()
	if v.Name == "up" { // of all targets, those of namespaces too
		return
	}
	byJob, byNamespace := false, false
	var both []*labels.Matcher
	for _, m := range v.LabelMatchers {
		switch m.Name {
		case "job":
			byJob = m.Type == labels.MatchEqual && m.Value != ""
			both = append(both, m)
		case "namespace":
			byNamespace = m.Type == labels.MatchEqual && m.Value == ""
			both = append(both, m)
		}
	}
	if recorded := strings.Contains(v.Name, ":"); !byJob && !recorded {
		t.Errorf("%s: %s is of any job", rule, v)
	}
	if of := ofNamespaces.MatchString(v.Name); !byNamespace && !of {
		t.Errorf("%s: %s may be said by any namespace; namespace=\"\" is missing", rule, v)
	}
	for _, l := range told {
		if labels.Selector(both).Matches(l) {
			return
		}
	}
	if len(told) > 0 {
		t.Errorf("%s: %s is not what perch says, for example %s", rule, v, told[0])
	}
}

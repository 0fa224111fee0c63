package rule

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"

	"perch/build/debiantest"
)

func TestShippedRulesPassTheirTestsAndEachAlertIsSeenToFire(t *testing.T) {
	files, err := filepath.Glob("content/tests/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no unit tests: %v", err)
	}
	tested := ""
	for _, file := range files {
		results, err := Test(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			for _, f := range r.Failures {
				t.Errorf("%s: %s: %s", filepath.Base(r.File), r.Name, f)
			}
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tested += string(text)
	}
	shipped, err := fs.Glob(content, "content/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	alerts := 0
	for _, name := range shipped {
		text, err := content.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		good, bad := parse([]Source{{Name: name, Text: string(text)}}, parser.NewParser(parser.Options{}))
		if len(bad) > 0 {
			t.Fatal(bad)
		}
		for _, g := range good[name].Groups {
			for _, r := range g.Rules {
				if r.Alert == "" {
					continue
				}
				alerts++
				if !strings.Contains(tested, `alertname="`+r.Alert+`"`) {
					t.Errorf("no test shows %s firing", r.Alert)
				}
				if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || r.Labels["severity"] == "" {
					t.Errorf("%s lacks a summary, a description of what to do, or a severity", r.Alert)
				}
			}
		}
	}
	t.Logf("%d alerts", alerts)
}

func TestAUnitTestThatDoesNotHoldSaysWhatWasWantedAndWhatIs(t *testing.T) {
	load := func(string) ([]Source, error) {
		return []Source{{Name: "r", Text: `groups: [{name: g, rules: [{alert: Down, expr: up == 0, for: 1m, labels: {a: b}, annotations: {summary: '{{ $labels.job }} is down'}}, {record: ups, expr: sum(up)}]}]`}}, nil
	}
	file := `rule_files: [r]
evaluation_interval: 30s
tests:
- name: right
  interval: 30s
  input_series: [{series: 'up{job="x"}', values: '1 0x10'}]
  alert_rule_test:
  - {eval_time: 1m, alertname: Down, exp_alerts: []}
  - {eval_time: 100s, alertname: Down, exp_alerts: [{exp_labels: {a: b, job: x}, exp_annotations: {summary: x is down}}]}
  promql_expr_test:
  - {expr: ups + 2, eval_time: 30s, exp_samples: [{labels: '{}', value: 2}]}
- name: wrong
  interval: 30s
  input_series: [{series: 'up{job="x"}', values: '1 0x10'}]
  alert_rule_test: [{eval_time: 2m, alertname: Down, exp_alerts: []}]
  promql_expr_test: [{expr: ups, eval_time: 0s, exp_samples: [{labels: 'ups', value: 3}]}]
`
	got, err := testText("t", []byte(file), load)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || len(got[0].Failures) != 0 || len(got[1].Failures) != 2 ||
		!strings.Contains(got[1].Failures[0], `x is down`) || !strings.Contains(got[1].Failures[1], `{__name__="ups"} 1`) {
		t.Errorf("%+v", got)
	}
	for text, want := range map[string]string{
		"tests: [{input_seris: []}]": "input_seris",
		"rule_files: [r]\ntests: [{input_series: [{series: 'up{', values: '1'}]}]":      "input series up{",
		"rule_files: [r]\ntests: [{alert_rule_test: [{eval_time: 1m}]}]":                "no alertname",
		"rule_files: [r]\ntests: [{promql_expr_test: [{expr: 'sum(', eval_time: 1m}]}]": "expr sum(",
	} {
		if _, err := testText("t", []byte(text), load); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestABrokenRuleIsNamedAndTheRestOfItsGroupIsInForce(t *testing.T) {
	p := parser.NewParser(parser.Options{})
	text := `groups:
- name: shop
  rules:
  - {alert: A, expr: up == 0}
  - alert: B
    expr: sum(up
  - {record: 'c', expr: sum(up), for: 1m}
  - {alert: D, expr: up == 1, annotations: {summary: '{{ $labels.x'}}
- name: other
  rules: [{alert: E, expr: up}]
`
	good, bad := parse([]Source{{Name: "rules/shop.yaml", Text: text}}, p)
	if len(bad) != 3 || bad[0].String() != `rules/shop.yaml:6:11: group "shop", rule 2 "B": could not parse expression: 1:7: parse error: unclosed left parenthesis` {
		t.Errorf("problems %v", bad)
	}
	groups := good["rules/shop.yaml"].Groups
	if len(groups) != 2 || len(groups[0].Rules) != 1 || groups[0].Rules[0].Alert != "A" || len(groups[1].Rules) != 1 {
		t.Errorf("in force %+v", groups)
	}
	if !replaces("PrometheusRule/kube-system/perch-pods", "perch/pods.yaml") || replaces("PrometheusRule/shop/perch-pods", "perch/pods.yaml") {
		t.Error("which objects stand for shipped rules")
	}
}

// TestPromtoolAcceptsShippedRules asks Prometheus' own tool, an old one of a
// distribution: people check copies of these files with it.
func TestPromtoolAcceptsShippedRules(t *testing.T) {
	tool := debiantest.Tool(t, "promtool")
	files, err := filepath.Glob("content/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tool, append([]string{"check", "rules", "--lint-fatal"}, files...)...).CombinedOutput()
	if err != nil || strings.Count(string(out), "SUCCESS") != len(files) {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
	if files, err = filepath.Glob("content/tests/*.yaml"); err != nil {
		t.Fatal(err)
	}
	out, err = exec.Command(tool, append([]string{"test", "rules"}, files...)...).CombinedOutput()
	if err != nil || strings.Count(string(out), "SUCCESS") != len(files) {
		t.Errorf("promtool test rules: %v\n%s", err, out)
	}
}

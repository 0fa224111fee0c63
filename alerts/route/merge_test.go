package route

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/alertmanager/dispatch"
	"github.com/prometheus/common/model"
)

const mergeBase = `# ours
global: {smtp_smarthost: 'mail.example:25', smtp_from: 'perch@example.org'}
route:
  receiver: ops # gets the rest
  routes:
    - {matchers: ['severity="critical"'], receiver: pager}
receivers: [{name: ops}, {name: pager}]
`

func receiversOf(t *testing.T, text string, labels model.LabelSet) string {
	t.Helper()
	conf, err := config.Load(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var out []string
	for _, r := range dispatch.NewRoute(conf.Route, nil).Match(labels) {
		out = append(out, r.RouteOpts.Receiver)
	}
	return strings.Join(out, " ")
}

func TestNamespacesRouteTheirOwnAlerts(t *testing.T) {
	shop := Own{"shop", "team", `
route:
  receiver: chat
  mute_time_intervals: [night]
  routes: [{matchers: ['alertname="Slow"'], receiver: nobody}]
receivers: [{name: chat, webhook_configs: [{url: 'http://chat.example/'}]}, {name: nobody}]
time_intervals: [{name: night, time_intervals: [{times: [{start_time: '22:00', end_time: '24:00'}]}]}]
inhibit_rules: [{source_matchers: ['severity="critical"'], target_matchers: ['severity="warning"'], equal: [pod]}]
`}
	bank := Own{"bank", "team", "route: {receiver: chat}\nreceivers: [{name: chat}]\n"}
	text, problems := Merge(mergeBase, []Own{shop, bank})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, c := range []struct {
		name   string
		labels model.LabelSet
		want   string
	}{
		{"an alert of a namespace goes to its receiver", model.LabelSet{"namespace": "shop"}, "shop/team/chat"},
		{"routes below are followed", model.LabelSet{"namespace": "shop", "alertname": "Slow"}, "shop/team/nobody"},
		{"the cluster's routes still get it", model.LabelSet{"namespace": "shop", "severity": "critical"}, "shop/team/chat pager"},
		{"another namespace has another receiver", model.LabelSet{"namespace": "bank"}, "bank/team/chat"},
		{"what belongs to nobody goes to the top", model.LabelSet{"node": "n1"}, "ops"},
	} {
		if got := receiversOf(t, text, c.labels); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	conf, err := config.Load(text)
	if err != nil {
		t.Fatal(err)
	}
	rule := conf.InhibitRules[0]
	if s, d := rule.SourceMatchers, rule.TargetMatchers; len(s) != 2 || len(d) != 2 || s[0].Name != "namespace" || s[0].Value != "shop" || d[0].Name != "namespace" || d[0].Value != "shop" {
		t.Errorf("inhibition of a namespace: %v, %v", s, d)
	}
	if !strings.Contains(text, "# gets the rest") {
		t.Error("the comments of the cluster's configuration are gone")
	}
}

func TestABrokenConfigurationOfANamespaceIsLeftOut(t *testing.T) {
	good := Own{"shop", "good", "route: {receiver: a}\nreceivers: [{name: a}]"}
	for name, c := range map[string]struct{ text, say string }{
		"a text that never ends":          {"receivers: [{name: a, webhook_configs: [{url: 'http://x/', max_alerts: 1}], slack_configs: [{api_url: 'http://x/', text: '{{range 9000000000000000000}}{{end}}'}]}]", "receivers[0].slack_configs[0].text: template"},
		"a payload's key that never ends": {"receivers: [{name: a, webhook_configs: [{url: 'http://x/', payload: {'{{range 9000000000000000000}}{{end}}': a}}]}]", "payload"},
		"a receiver that does not exist":  {"route: {receiver: gone}", "undefined receiver"},
		"a receiver of the cluster":       {"route: {receiver: pager}", "undefined receiver"},
		"global settings":                 {"global: {}", "field global not found"},
		"templates":                       {"templates: ['/etc/*']", "field templates not found"},
		"a file of the server":            {"route: {receiver: a}\nreceivers: [{name: a, webhook_configs: [{url: 'http://x.example', http_config: {basic_auth: {username: u, password_file: /etc/shadow}}}]}]", "password_file"},
		"a certificate that is none":      {"route: {receiver: a}\nreceivers: [{name: a, webhook_configs: [{url: 'http://x.example', http_config: {tls_config: {ca: none}}}]}]", "build receiver a: "},
		"a route without receiver":        {"route: {}\nreceivers: [{name: a}]", "no receiver"},
		"no YAML":                         {"{", "read route"},
		"a matcher that cannot be read":   {"route: {receiver: a, matchers: ['=']}\nreceivers: [{name: a}]", "bad matcher"},
		"matchers that are no list":       {"route: {receiver: a, routes: 7}\nreceivers: [{name: a}]", "cannot unmarshal"},
		"an unknown setting":              {"route: {receiver: a, colour: red}\nreceivers: [{name: a}]", "colour"},
		"routes nested without end":       {"route: " + strings.Repeat("{receiver: a, routes: [", 30) + strings.Repeat("]}", 30) + "\nreceivers: [{name: a}]", "nested"},
	} {
		text, problems := Merge(mergeBase, []Own{{"shop", "bad", c.text}, good})
		if err := problems["shop/bad"]; err == nil || !strings.Contains(err.Error(), c.say) || len(problems) != 1 {
			t.Errorf("%s: %v", name, problems)
		}
		if got := receiversOf(t, text, model.LabelSet{"namespace": "shop"}); got != "shop/good/a" {
			t.Errorf("%s: the good one beside it routes to %s", name, got)
		}
	}
}

func TestMergeOfNothingIsTheText(t *testing.T) {
	if text, problems := Merge(mergeBase, nil); text != mergeBase || len(problems) != 0 {
		t.Errorf("%q, %v", text, problems)
	}
	text, problems := Merge("route: {receiver: a, routes: }\nreceivers: &x [{name: a}]", []Own{{"shop", "t", "route: {receiver: b}\nreceivers: [{name: b}]"}})
	if got := receiversOf(t, text, model.LabelSet{"namespace": "shop"}); got != "shop/t/b" || len(problems) > 0 {
		t.Errorf("empty routes of the cluster: %s, %v", got, problems)
	}
	if text, problems := Merge("not: [yaml", []Own{{"shop", "t", "route: {receiver: b}"}}); text != "not: [yaml" || len(problems) != 1 {
		t.Errorf("a broken base: %q, %v", text, problems)
	}
}

func TestAReceiverOfBeforeWhoseTextMayNotEndGetsNothing(t *testing.T) {
	const kept = `# ours
route: {receiver: ops, routes: [{receiver: shop/team/chat, matchers: ['namespace="shop"']}]}
receivers:
    - name: ops
      slack_configs: [{api_url: 'http://x/', text: '{{range 3}}x{{end}}'}]
    - {name: shop/team/good, slack_configs: [{api_url: 'http://x/', text: '{{range .Alerts}}{{.Status}}{{end}}'}]}
    - {name: shop/team/chat, slack_configs: [{api_url: 'http://x/', text: '%s'}]}
`
	for text, want := range map[string]int{"{{range 9000000000000000000}}{{end}}": 2, "{{ .Status }}": 3} {
		dir := t.TempDir()
		before := strings.Replace(kept, "%s", text, 1)
		if err := os.WriteFile(filepath.Join(dir, "config"), []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		r, stop := open(t, dir, "")
		stop()
		got := r.Text()
		if n := strings.Count(got, "slack_configs"); n != want || !strings.Contains(got, "name: shop/team/chat") || !strings.Contains(got, "{{range 3}}") || want == 3 && got != before {
			t.Errorf("%s: %d receivers, want %d:\n%s", text, n, want, got)
		}
	}
}

package route

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
)

func TestOnlyWhatAnAlertNeedsIsHandedOn(t *testing.T) {
	text := `
global: {smtp_smarthost: 'mail.example:25', smtp_from: a@b.example, smtp_auth_password: mailpass, slack_api_url: 'https://slack.example/slackpass', opsgenie_api_key: opspass, resolve_timeout: 3m}
templates: ['/etc/perch/*.tmpl']
route:
  receiver: ops
  routes:
  - {receiver: shop, matchers: ['team="shop"']}
  - {receiver: pager, matchers: ['severity="critical"'], continue: true, group_wait: 7s}
receivers:
- &ops {name: ops, email_configs: [{to: ops@b.example}]}
- {name: shop, webhook_configs: [{url: 'http://shop.example/shoppass'}]}
- {name: pager, slack_configs: [{channel: '#pager'}], webhook_configs: [{url: 'http://pager.example/'}]}
`
	for _, c := range []struct {
		name    string
		labels  map[string]string
		keeps   []string
		secrets []string // that must not be there
	}{
		{"a critical one goes to the pager", map[string]string{"severity": "critical"}, []string{"slackpass", "pager.example", "group_wait: 7s"}, []string{"mailpass", "shoppass", "opspass"}},
		{"the rest goes by mail", map[string]string{"severity": "info"}, []string{"mailpass", "ops@b.example"}, []string{"slackpass", "shoppass", "opspass", "pager.example"}},
		{"a team's goes to the team", map[string]string{"team": "shop", "severity": "critical"}, []string{"shoppass"}, []string{"slackpass", "mailpass", "opspass"}},
	} {
		got, err := Only(text, c.labels)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		for _, want := range c.keeps {
			if !strings.Contains(got, want) {
				t.Errorf("%s: lacks %s:\n%s", c.name, want, got)
			}
		}
		for _, secret := range append(c.secrets, ".tmpl") {
			if strings.Contains(got, secret) {
				t.Errorf("%s: has %s:\n%s", c.name, secret, got)
			}
		}
		labels := model.LabelSet{}
		for k, v := range c.labels {
			labels[model.LabelName(k)] = model.LabelValue(v)
		}
		if a, b := receiversOf(t, text, labels), receiversOf(t, got, labels); a != b {
			t.Errorf("%s: is routed to %s, not %s", c.name, b, a)
		}
	}
	if got, err := Only(Default, nil); err != nil || got != "" {
		t.Errorf("the default leads to nobody: %s, %v", got, err)
	}
	if _, err := Only("route: {}", nil); err == nil {
		t.Error("a broken configuration is handed on")
	}
}

func TestSilencesOfAnAlertThatDoesNotFireYet(t *testing.T) {
	r, _ := open(t, t.TempDir(), Default)
	h := r.Handler("/am")
	end := time.Now().Add(2 * time.Hour).UTC()
	for _, d := range []time.Duration{-time.Hour, 0} {
		if code, text := ask(h, "POST", "/am/api/v2/silences", `{"matchers":[{"name":"alertname","value":"Gone","isRegex":false}],"startsAt":"`+time.Now().UTC().Format(time.RFC3339Nano)+
			`","endsAt":"`+end.Add(d).Format(time.RFC3339Nano)+`","createdBy":"kim","comment":"upgrade"}`); code != 200 {
			t.Fatal(text)
		}
	}
	if got, err := r.SilencedUntil(context.Background(), map[string]string{"alertname": "Gone", "node": "n1"}); err != nil || got.Sub(end).Abs() > time.Second {
		t.Errorf("silenced until %s (%v), want %s", got, err, end)
	}
	if got, err := r.SilencedUntil(context.Background(), map[string]string{"alertname": "Other"}); err != nil || !got.IsZero() {
		t.Errorf("another alert: %s, %v", got, err)
	}
}

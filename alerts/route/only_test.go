package route

import (
	"context"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/common/model"
)

func TestOnlyWhatAnAlertNeedsIsHandedOn(t *testing.T) {
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	template := file("a.tmpl", `{{define "my.text"}}mine{{end}}`)
	text := `
global: {smtp_smarthost: 'mail.example:25', smtp_from: a@b.example, smtp_auth_password_file: '` + file("mail", "mailpass\n") + `', slack_api_url: 'https://slack.example/slackpass', opsgenie_api_key: opspass, resolve_timeout: 3m}
templates: ['` + filepath.Join(filepath.Dir(template), "*.tmpl") + `']
route:
  receiver: ops
  routes:
  - {receiver: shop, matchers: ['team="shop"']}
  - {receiver: pager, matchers: ['severity="critical"'], continue: true, group_wait: 7s}
receivers:
- &ops {name: ops, email_configs: [{to: ops@b.example}]}
- {name: shop, webhook_configs: [{url: 'http://shop.example/shoppass'}]}
- {name: pager, slack_configs: [{channel: '#pager'}], webhook_configs: [{url: 'http://pager.example/', http_config: {
    authorization: {credentials_file: '` + file("token", "tokenpass") + `'}, tls_config: {ca_file: '` + file("ca", certificate(t)) + `'}, http_headers: {X-Key: {secrets: [headerpass], files: ['` + file("key", "keypass\n") + `']}}}}],
    pagerduty_configs: [{routing_key_file: '` + file("routing", "routingpass") + `', details: {log_file: /var/log/x}}], telegram_configs: [{bot_token: b, chat_id_file: '` + file("chat", "-17\n") + `'}]}
`
	for _, c := range []struct {
		name    string
		labels  map[string]string
		keeps   []string
		secrets []string // that must not be there
	}{
		{"a critical one goes to the pager", map[string]string{"severity": "critical"}, []string{"slackpass", "pager.example", "group_wait: 7s", "tokenpass", "CERTIFICATE", "headerpass", "keypass", "routingpass", "log_file: /var/log/x", "chat_id: -17"},
			[]string{"mailpass", "shoppass", "opspass", "credentials_file", "ca_file", "files"}},
		{"the rest goes by mail", map[string]string{"severity": "info"}, []string{"mailpass", "ops@b.example"}, []string{"slackpass", "shoppass", "opspass", "pager.example"}},
		{"a team's goes to the team", map[string]string{"team": "shop", "severity": "critical"}, []string{"shoppass"}, []string{"slackpass", "mailpass", "opspass", "tokenpass"}},
	} {
		got, templates, err := Only(text, c.labels)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if len(templates) != 1 || !strings.Contains(templates[0], "my.text") {
			t.Errorf("%s: templates %q", c.name, templates)
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
	if got, templates, err := Only(Default, nil); err != nil || got != "" || len(templates) > 0 {
		t.Errorf("the default leads to nobody: %s, %v", got, err)
	}
	if _, _, err := Only("route: {}", nil); err == nil {
		t.Error("a broken configuration is handed on")
	}
	for _, path := range []string{"/none/here", "/dev/zero"} {
		if _, _, err := Only("route: {receiver: a}\nreceivers: [{name: a, webhook_configs: [{url_file: "+path+"}]}]", nil); err == nil || !strings.Contains(err.Error(), "read url_file: ") {
			t.Errorf("a file that cannot be read: %v", err)
		}
	}
}

// certificate is one in PEM.
func certificate(t *testing.T) string {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// TestEveryFileStandsForASetting fails when a newer Alertmanager names a file that
// inline would not read as it is meant.
func TestEveryFileStandsForASetting(t *testing.T) {
	settings, files := map[string]bool{}, map[string]bool{}
	keysOf(reflect.TypeOf(struct {
		Global    config.GlobalConfig `yaml:"global"`
		Receivers []config.Receiver   `yaml:"receivers"`
	}{}), nil, nil, func(path []string, f reflect.StructField) {
		at := strings.Join(path, ".")
		settings[at] = true
		if strings.HasSuffix(at, "_file") {
			files[at] = true
		}
		if f.Type.Kind() == reflect.Map && f.Type.Elem().Kind() != reflect.Struct && !ownKeys[path[len(path)-1]] {
			t.Errorf("the keys of %s are their author's, and would be read", at)
		}
	})
	for at := range files {
		if !settings[strings.TrimSuffix(at, "_file")] {
			t.Errorf("%s stands for no setting", at)
		}
	}
	if len(files) < 100 {
		t.Errorf("only %d files were seen", len(files))
	}
}

func TestATemplateThatIsHandedOnIsUsed(t *testing.T) {
	got := make(chan string, 1)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		select {
		case got <- string(b):
		default:
		}
	}))
	defer hook.Close()
	path := filepath.Join(t.TempDir(), "a.tmpl")
	if err := os.WriteFile(path, []byte(`{{define "my.text"}}in my words{{end}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	text, templates, err := Only("route: {receiver: a, group_wait: 0s}\ntemplates: ['"+path+"']\nreceivers: [{name: a, slack_configs: [{api_url: '"+hook.URL+"', text: '{{template \"my.text\" .}}'}]}]", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil { // the other machine has no such file
		t.Fatal(err)
	}
	r, _ := open(t, t.TempDir(), Default)
	if err := r.ApplyWith(text, []string{"{{"}); err == nil || !strings.Contains(err.Error(), "notification template 1") {
		t.Errorf("a broken template: %v", err)
	}
	if err := r.ApplyWith(text, templates); err != nil {
		t.Fatal(err)
	}
	if err := r.Receive(t.Context(), Alert{Labels: map[string]string{"alertname": "A"}, Starts: time.Now(), Ends: time.Now().Add(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	select {
	case text := <-got:
		if !strings.Contains(text, "in my words") {
			t.Errorf("was told %s", text)
		}
	case <-time.After(time.Minute):
		t.Error("nothing was told")
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

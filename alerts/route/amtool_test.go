package route

import (
	"bytes"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"perch/build/debiantest"
)

// TestAmtoolWorks drives the API by Alertmanager's own tool, an old one of a
// distribution: scripts and people have it.
func TestAmtoolWorks(t *testing.T) {
	tool := debiantest.Tool(t, "amtool")
	conf := `# kept as written
global: {resolve_timeout: 3m}
route:
  receiver: night
  group_by: [alertname]
  routes:
  - {receiver: shop, matchers: [team="shop"], continue: true}
  - {receiver: pager, matchers: [severity=~"critical|page"], mute_time_intervals: [weekend]}
inhibit_rules:
- {source_matchers: [alertname="NodeNotReady"], target_matchers: [severity="warning"], equal: [node]}
time_intervals:
- {name: weekend, time_intervals: [{weekdays: [saturday, sunday]}]}
receivers:
- {name: night, webhook_configs: [{url: 'http://user:pw@127.0.0.1:1/x'}]}
- {name: shop, slack_configs: [{api_url: 'https://127.0.0.1/x', channel: '#shop'}]}
- {name: pager, pagerduty_configs: [{routing_key: k}], email_configs: [{to: a@example.com, from: b@example.com, smarthost: 'localhost:25'}], telegram_configs: [{bot_token: t, chat_id: 1}], opsgenie_configs: [{api_key: k}]}
`
	r, _ := open(t, t.TempDir(), conf)
	door := httptest.NewServer(r.Handler("/alertmanager"))
	defer door.Close()
	file := filepath.Join(t.TempDir(), "alertmanager.yml")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(tool, append([]string{"--alertmanager.url=" + door.URL + "/alertmanager"}, args...)...)
		var said bytes.Buffer
		cmd.Stderr = &said // a test's binary does not know the version of its libraries: a warning
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("amtool %s: %v\n%s", strings.Join(args, " "), err, said.String())
		}
		return string(out)
	}
	has := func(text, want string) {
		t.Helper()
		if !strings.Contains(text, want) {
			t.Errorf("want %q in\n%s", want, text)
		}
	}
	run("alert", "add", "PodDown", "pod=web-1", "severity=warning", "node=n1", "--annotation=summary=gone")
	run("alert", "add", "DiskFull", "node=n2", "severity=critical")
	has(run("alert"), "PodDown")
	has(run("alert", "query", "pod=~web.*", "-o", "extended"), `pod="web-1"`)
	has(run("alert", "query", "--inhibited", "-o", "json"), "[]")
	run("alert", "add", "NodeNotReady", "node=n1", "severity=critical")
	has(run("alert", "query", "--inhibited"), "PodDown") // the inhibition of the file
	id := strings.TrimSpace(run("silence", "add", "alertname=DiskFull", "--author=kim", "--comment=new disk comes", "--duration=1h"))
	if !regexp.MustCompile(`^[0-9a-f-]{36}$`).MatchString(id) {
		t.Errorf("id of the silence: %q", id)
	}
	has(run("silence", "query"), "new disk comes")
	has(run("alert", "query", "--silenced"), "DiskFull")
	id = strings.TrimSpace(run("silence", "update", "--comment=it came", "-o", "json", id))
	has(run("silence", "query", "-o", "json"), "it came")
	for _, s := range regexp.MustCompile(`[0-9a-f-]{36}`).FindAllString(run("silence", "query", "-q"), -1) {
		run("silence", "expire", s)
	}
	if text := run("silence", "query", "-q"); strings.TrimSpace(text) != "" {
		t.Errorf("silences left: %s", text)
	}
	has(run("config", "show"), "resolve_timeout: 3m")
	has(run("config", "show"), "# kept as written")
	has(run("config", "routes", "show"), "receiver: pager")
	has(run("config", "routes", "test", "severity=page"), "pager")
	has(run("config", "routes", "test", "team=shop"), "shop")
	has(run("cluster", "show"), "")
	has(run("check-config", file), "SUCCESS")
	out, err := exec.Command(tool, "--alertmanager.url="+door.URL+"/alertmanager", "silence", "add", "a=b", "--comment=c", "--start=2020-01-01T00:00:00Z", "--end=2019-01-01T00:00:00Z").CombinedOutput()
	if err == nil {
		t.Errorf("a silence that ends before it starts: %s", out)
	}
}

func TestTheConfigurationIsShownAsWrittenButForSecrets(t *testing.T) {
	conf := `# who gets what
global:
  smtp_auth_password: s3cret
route: &r {receiver: a, routes: [{receiver: a, matchers: [x="s3cretless"]}]}
receivers:
- name: a
  webhook_configs:
  - url: http://user:s3cret@example.com/s3cret # the shop
    http_config: {basic_auth: {username: u, password: "s3cret"}}
    max_alerts: 3
  pagerduty_configs:
  - routing_key: |
      s3cret
`
	r, _ := open(t, t.TempDir(), conf)
	_, text := ask(r.Handler("/am"), "GET", "/am/api/v2/status", "")
	for _, want := range []string{"# who gets what", "# the shop", "max_alerts: 3", "s3cretless", "\\u003csecret\\u003e"} {
		if !strings.Contains(text, want) {
			t.Errorf("want %q in %s", want, text)
		}
	}
	if left := strings.ReplaceAll(text, "s3cretless", ""); strings.Contains(left, "s3cret") || strings.Contains(left, "http_config: {}") {
		t.Errorf("shows a secret: %s", text)
	}
	if strings.Contains(text, "slack_api_url_file") || strings.Contains(text, "follow_redirects") {
		t.Errorf("shows what was not written: %s", text)
	}
}

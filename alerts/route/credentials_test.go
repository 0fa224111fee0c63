package route

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/alertmanager/config"
)

// secretBase sets what may be set for all. Every credential has SECRET in it.
const secretBase = `
global:
  smtp_smarthost: 'mail.example:25'
  smtp_from: 'perch@example.org'
  smtp_auth_username: SECRET-user
  smtp_auth_password: SECRET-password
  smtp_auth_secret: SECRET-secret
  smtp_auth_identity: SECRET-identity
  smtp_tls_config: {server_name: kept.example, cert_file: /SECRET/cert, key_file: /SECRET/key}
  slack_app_token: SECRET-slack
  opsgenie_api_key: SECRET-opsgenie
  wechat_api_secret: SECRET-wechat
  wechat_api_corp_id: SECRET-corp
  victorops_api_key: SECRET-victorops
  telegram_bot_token: SECRET-telegram
  rocketchat_token: SECRET-rocket
  rocketchat_token_id: SECRET-rocketid
  mattermost_webhook_url: 'https://chat.example/SECRET'
  jira_api_url: 'https://jira.example/'
  http_config:
    %s
    http_headers: {X-Key: {secrets: [SECRET-header]}}
    tls_config: {server_name: kept.example, cert_file: /SECRET/cert, key_file: /SECRET/key}
    proxy_url: 'http://proxy.example:3128'
route: {receiver: nobody}
receivers: [{name: nobody}]
`

// waysToTell are the kinds of credentials that an http_config may have.
var waysToTell = []string{"authorization: {credentials: SECRET-auth}", "bearer_token: SECRET-bearer", "basic_auth: {username: SECRET-u, password: SECRET-p}",
	"oauth2: {client_id: SECRET-c, client_secret: SECRET-s, token_url: 'https://t.example'}", "http_headers: {X: {values: [SECRET-h]}}"}

// integrationsOf are, by kind, settings that are enough for it beside an address and
// credentials; the address of the namespace's choice; and its credentials.
var integrationsOf = map[string]struct{ rest, address, credentials string }{
	"webhook_configs":    {"", "url: 'http://catch.red.svc'", ""},
	"email_configs":      {"to: a@b.example", "smarthost: 'catch.red.svc:25'", "auth_username: mine, auth_password: mine, auth_secret: mine, auth_identity: mine"},
	"pagerduty_configs":  {"routing_key: mine", "url: 'http://catch.red.svc'", ""},
	"opsgenie_configs":   {"", "api_url: 'http://catch.red.svc'", "api_key: mine"},
	"wechat_configs":     {"", "api_url: 'http://catch.red.svc'", "api_secret: mine, corp_id: mine"},
	"slack_configs":      {"channel: a", "app_url: 'http://catch.red.svc'", "app_token: mine"},
	"victorops_configs":  {"routing_key: r", "api_url: 'http://catch.red.svc'", "api_key: mine"},
	"pushover_configs":   {"user_key: mine, token: mine", "", ""},
	"sns_configs":        {"topic_arn: 'arn:aws:sns:us-east-2:1:t', sigv4: {access_key: a, secret_key: b}", "api_url: 'http://catch.red.svc'", ""},
	"telegram_configs":   {"chat_id: 1", "api_url: 'http://catch.red.svc'", "bot_token: mine"},
	"discord_configs":    {"", "webhook_url: 'http://catch.red.svc'", ""},
	"webex_configs":      {"room_id: r, http_config: {authorization: {credentials: mine}}", "api_url: 'http://catch.red.svc'", ""},
	"msteams_configs":    {"", "webhook_url: 'http://catch.red.svc'", ""},
	"msteamsv2_configs":  {"", "webhook_url: 'http://catch.red.svc'", ""},
	"jira_configs":       {"project: p, issue_type: t", "api_url: 'http://catch.red.svc'", ""},
	"incidentio_configs": {"alert_source_token: mine", "url: 'http://catch.red.svc'", ""},
	"rocketchat_configs": {"channel: c", "api_url: 'http://catch.red.svc'", "token: mine, token_id: mine"},
	"mattermost_configs": {"channel: c", "webhook_url: 'http://catch.red.svc'", ""},
}

// TestEveryKindOfIntegrationIsLookedAt fails when Alertmanager gets a new one.
func TestEveryKindOfIntegrationIsLookedAt(t *testing.T) {
	of := reflect.TypeOf(config.Receiver{})
	for i := range of.NumField() {
		key, _, _ := strings.Cut(of.Field(i).Tag.Get("yaml"), ",")
		if _, ok := integrationsOf[key]; !ok && strings.HasSuffix(key, "_configs") {
			t.Errorf("%s: what does it take from global?", key)
		}
	}
}

func TestTheClustersCredentialsStayWithItsServers(t *testing.T) {
	own := func(kind string, settings ...string) Own {
		settings = slices.DeleteFunc(settings, func(s string) bool { return s == "" })
		return Own{"red", "x", fmt.Sprintf("route: {receiver: a}\nreceivers: [{name: a, %s: [{%s}]}]", kind, strings.Join(settings, ", "))}
	}
	for _, way := range waysToTell {
		base := fmt.Sprintf(secretBase, way)
		if strings.HasPrefix(way, "http_headers") {
			base = strings.Replace(base, "    http_headers: {X-Key: {secrets: [SECRET-header]}}\n", "", 1)
		}
		for _, kind := range slices.Sorted(maps.Keys(integrationsOf)) {
			c := integrationsOf[kind]
			text, problems := Merge(base, []Own{own(kind, c.rest, c.address, c.credentials)})
			if len(problems) > 0 {
				t.Errorf("%s with credentials of its own: %v", kind, problems)
				continue
			}
			if took := taken(t, text, "red/x/a"); took != "" {
				t.Errorf("%s, %s: it has the cluster's %s", kind, way, took)
			}
			if c.credentials == "" {
				continue
			}
			for _, one := range strings.Split(c.credentials, ", ") {
				rest := slices.DeleteFunc(strings.Split(c.credentials, ", "), func(s string) bool { return s == one })
				_, problems := Merge(base, []Own{own(kind, append(rest, c.rest, c.address)...)})
				field, _, _ := strings.Cut(one, ":")
				if err := problems["red/x"]; err == nil || !strings.Contains(err.Error(), `receiver "a": `+kind+"[0] names its own ") || kind != "slack_configs" && !strings.Contains(err.Error(), "its own "+field) {
					t.Errorf("%s without %s: %v", kind, one, problems)
				}
			}
		}
	}
}

// taken is what of secretBase a receiver has, empty when nothing; also when the text
// has no such receiver it fails.
func taken(t *testing.T, text, receiver string) string {
	t.Helper()
	conf, err := config.Load(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, rc := range conf.Receivers {
		if rc.Name == receiver {
			return secretIn(reflect.ValueOf(rc), map[uintptr]bool{})
		}
	}
	t.Errorf("no receiver %s in\n%s", receiver, text)
	return ""
}

func secretIn(v reflect.Value, seen map[uintptr]bool) string {
	switch v.Kind() {
	case reflect.String:
		if strings.Contains(v.String(), "SECRET") {
			return v.String()
		}
	case reflect.Pointer:
		if v.IsNil() || seen[v.Pointer()] {
			return ""
		}
		seen[v.Pointer()] = true
		return secretIn(v.Elem(), seen)
	case reflect.Interface:
		return secretIn(v.Elem(), seen)
	case reflect.Struct:
		for i := range v.NumField() {
			if s := secretIn(v.Field(i), seen); s != "" {
				return v.Type().Field(i).Name + ": " + s
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if s := secretIn(v.Index(i), seen); s != "" {
				return s
			}
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			if s := secretIn(v.MapIndex(k), seen); s != "" {
				return s
			}
		}
	}
	return ""
}

func TestWhatIsSentToTheClustersServersHasItsCredentials(t *testing.T) {
	base := fmt.Sprintf(strings.NewReplacer(", cert_file: /SECRET/cert, key_file: /SECRET/key", "").Replace(secretBase), waysToTell[0])
	for _, kind := range []string{"email_configs", "opsgenie_configs", "wechat_configs", "victorops_configs", "telegram_configs", "rocketchat_configs", "mattermost_configs", "jira_configs", "pagerduty_configs"} {
		text, problems := Merge(base, []Own{{"red", "x", fmt.Sprintf("route: {receiver: a}\nreceivers: [{name: a, %s: [{%s}]}]", kind, integrationsOf[kind].rest)}})
		if len(problems) > 0 {
			t.Errorf("%s: %v", kind, problems)
		} else if taken(t, text, "red/x/a") == "" {
			t.Errorf("%s has none", kind)
		}
	}
}

func TestCredentialsThatWouldGoElsewhere(t *testing.T) {
	for name, c := range map[string]struct{ global, settings, say string }{
		"by a proxy of its own":                      {"telegram_bot_token: x", "telegram_configs: [{chat_id: 1, http_config: {proxy_url: 'http://p.red.svc'}}]", "needs its own bot_token"},
		"an address that is a secret, by a proxy":    {"slack_api_url: 'https://s.example/x'", "slack_configs: [{channel: a, http_config: {proxy_url: 'http://p.red.svc'}}]", "needs its own api_url"},
		"a webhook that is a secret, by a proxy":     {"mattermost_webhook_url: 'https://s.example/x'", "mattermost_configs: [{http_config: {proxy_url: 'http://p.red.svc'}}]", "needs its own webhook_url"},
		"from a file":                                {"victorops_api_key_file: /etc/x", "victorops_configs: [{routing_key: r, api_url: 'http://c.red.svc'}]", "needs its own api_key"},
		"from a file that stands before its own":     {"{rocketchat_token_file: /etc/x, rocketchat_token_id: y}", "rocketchat_configs: [{api_url: 'http://c.red.svc', token: a, token_id: b}]", "rocketchat_token_file"},
		"from a file of mail":                        {"{smtp_from: a@b.example, smtp_auth_secret_file: /etc/x}", "email_configs: [{to: a@b.example, smarthost: 'c.red.svc:25', auth_secret: b}]", "smtp_auth_secret_file"},
		"none that could: own address":               {"smtp_from: a@b.example", "email_configs: [{to: a@b.example, smarthost: 'c.red.svc:25'}]", ""},
		"none that could: an own proxy, own key":     {"telegram_bot_token: x", "telegram_configs: [{chat_id: 1, bot_token: y, http_config: {proxy_url: 'http://p.red.svc'}}]", ""},
		"none that could: a webhook of Slack's":      {"slack_app_token: x", "slack_configs: [{channel: a, api_url: 'http://c.red.svc'}]", ""},
		"an integration that is null is none":        {"slack_app_token: x", "slack_configs: [null]", "slack_configs[0] is empty"},
		"an empty address is none: it is global's":   {"{smtp_smarthost: 'm.example:25', smtp_from: a@b.example, smtp_auth_username: u, smtp_auth_password: p}", "email_configs: [{to: a@b.example, smarthost: ''}]", ""},
		"an empty credential is none: it is refused": {"telegram_bot_token: x", "telegram_configs: [{chat_id: 1, api_url: 'http://c.red.svc', bot_token: ''}]", "needs its own bot_token"},
	} {
		if !strings.HasPrefix(c.global, "{") {
			c.global = "{" + c.global + "}"
		}
		base := "global: " + c.global + "\n" + Default
		own := Own{"red", "x", "route: {receiver: a}\nreceivers: [{name: a, " + c.settings + "}]"}
		_, problems := Merge(base, []Own{own})
		if err := problems["red/x"]; c.say == "" && err != nil || c.say != "" && (err == nil || !strings.Contains(err.Error(), c.say)) {
			t.Errorf("%s: %v", name, problems)
		}
		if err := Owed(base, own); (err == nil) != (c.say == "") {
			t.Errorf("%s, asked before: %v", name, err)
		}
	}
}

package route

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// kind is what Alertmanager does for one kind of integration with what the cluster's
// global settings say.
type kind struct {
	address []string          // settings that name its server; empty: global names none for it
	takes   map[string]string // by own setting: that of global which stands where there is none
	wins    []string          // settings of global that stand before the integration's own
}

// kinds are those that take an address or credentials from global. All take its
// http_config.
var kinds = map[string]kind{
	"email_configs": {address: []string{"smarthost"}, takes: map[string]string{"auth_username": "smtp_auth_username", "auth_password": "smtp_auth_password",
		"auth_secret": "smtp_auth_secret", "auth_identity": "smtp_auth_identity"}, wins: []string{"smtp_auth_secret_file"}},
	"jira_configs":       {address: []string{"api_url"}},
	"mattermost_configs": {address: []string{"webhook_url"}, takes: map[string]string{"webhook_url": "mattermost_webhook_url"}},
	"opsgenie_configs":   {address: []string{"api_url"}, takes: map[string]string{"api_key": "opsgenie_api_key"}},
	"pagerduty_configs":  {address: []string{"url"}},
	"rocketchat_configs": {address: []string{"api_url"}, takes: map[string]string{"token": "rocketchat_token", "token_id": "rocketchat_token_id"},
		wins: []string{"rocketchat_token_file", "rocketchat_token_id_file"}},
	"slack_configs":     {address: []string{"api_url", "app_url"}, takes: map[string]string{"api_url": "slack_api_url", "app_token": "slack_app_token"}},
	"telegram_configs":  {address: []string{"api_url"}, takes: map[string]string{"bot_token": "telegram_bot_token"}},
	"victorops_configs": {address: []string{"api_url"}, takes: map[string]string{"api_key": "victorops_api_key"}},
	"webex_configs":     {address: []string{"api_url"}},
	"wechat_configs":    {address: []string{"api_url"}, takes: map[string]string{"api_secret": "wechat_api_secret", "corp_id": "wechat_api_corp_id"}},
}

// bare is what remains of an http_config or a tls_config when it shows nobody who
// sends: how to connect. What proxies are told stays with them.
var (
	bareHTTP = []string{"proxy_url", "no_proxy", "proxy_from_environment", "proxy_connect_header", "follow_redirects", "enable_http2", "tls_config"}
	bareTLS  = []string{"ca", "ca_file", "server_name", "insecure_skip_verify", "min_version", "max_version"}
)

// Owed says which credentials a namespace's integrations have to bring of their own,
// beside the cluster's configuration: nil when none are missing.
func Owed(base string, o Own) error {
	global, err := globalOf(base)
	if err != nil {
		return err
	}
	var conf struct {
		Receivers []map[string]any `yaml:"receivers"`
	}
	if err := yaml.Unmarshal([]byte(o.Text), &conf); err != nil {
		return fmt.Errorf("read receivers: %w", err)
	}
	return owed(conf.Receivers, global)
}

func globalOf(base string) (map[string]any, error) {
	var doc struct {
		Global map[string]any `yaml:"global"`
	}
	if err := yaml.Unmarshal([]byte(base), &doc); err != nil {
		return nil, fmt.Errorf("read the cluster's global settings: %w", err)
	}
	return doc.Global, nil
}

// owed refuses integrations that name a server, or a proxy, of their own and have no
// credentials: Alertmanager would send it those of the cluster.
func owed(receivers []map[string]any, global map[string]any) error {
	return eachIntegration(receivers, func(receiver, of string, number int, c map[string]any) error {
		at, own := fmt.Sprintf("receiver %q: %s[%d]", receiver, of, number), elsewhere(of, c)
		if c == nil { // the library would use it all the same
			return fmt.Errorf("%s is empty", at)
		}
		if own == "" {
			return nil
		}
		k := kinds[of]
		for _, setting := range k.wins {
			if set(global[setting]) {
				return fmt.Errorf("%s names its own %s: Alertmanager would send %s of the cluster there", at, own, setting)
			}
		}
		if of == "slack_configs" && (set(c["api_url"]) || set(c["app_token"])) {
			return nil // the one stands for the other
		}
		for _, setting := range slices.Sorted(maps.Keys(k.takes)) {
			if from := k.takes[setting]; !set(c[setting]) && (set(global[from]) || set(global[from+"_file"])) {
				return fmt.Errorf("%s names its own %s and needs its own %s: that of the cluster is not sent there", at, own, setting)
			}
		}
		return nil
	})
}

// unshown gives integrations that name a server of their own the cluster's way to
// connect without what tells who connects.
func unshown(receivers *yaml.Node, global map[string]any) error {
	var list []map[string]any
	if err := receivers.Decode(&list); err != nil {
		return fmt.Errorf("read receivers: %w", err)
	}
	if err := eachIntegration(list, func(_, of string, _ int, c map[string]any) error {
		if _, known := kinds[of]; known && elsewhere(of, c) == "" {
			return nil
		}
		setting, from, keep := "http_config", "http_config", bareHTTP
		if of == "email_configs" {
			setting, from, keep = "tls_config", "smtp_tls_config", bareTLS
		}
		if have, ok := global[from].(map[string]any); ok && c[setting] == nil {
			c[setting] = bare(have, keep)
		}
		return nil
	}); err != nil {
		return err
	}
	return receivers.Encode(list)
}

func bare(m map[string]any, keep []string) map[string]any {
	out := map[string]any{}
	for _, key := range keep {
		v, ok := m[key]
		if tls, isMap := v.(map[string]any); isMap && key == "tls_config" {
			v = bare(tls, bareTLS)
		}
		if ok && v != nil {
			out[key] = v
		}
	}
	return out
}

// elsewhere is the setting by which an integration sends to a server that global does
// not name; empty when it has none.
func elsewhere(of string, c map[string]any) string {
	for _, setting := range kinds[of].address {
		if set(c[setting]) {
			return setting
		}
	}
	if h, ok := c["http_config"].(map[string]any); ok && set(h["proxy_url"]) {
		return "http_config.proxy_url" // with a certificate authority of its own it reads all
	}
	return ""
}

// set is whether Alertmanager would not put the global setting in its place.
func set(v any) bool { return v != nil && v != "" }

// eachIntegration calls do with those of all receivers, in order.
func eachIntegration(receivers []map[string]any, do func(receiver, of string, number int, c map[string]any) error) error {
	for i, r := range receivers {
		name, ok := r["name"].(string)
		if !ok {
			name = strconv.Itoa(i)
		}
		for _, of := range slices.Sorted(maps.Keys(r)) {
			list, ok := r[of].([]any)
			if !ok || !strings.HasSuffix(of, "_configs") {
				continue
			}
			for number, x := range list {
				c, ok := x.(map[string]any)
				if !ok && x != nil {
					return fmt.Errorf("receiver %q: %s[%d] is no object", name, of, number)
				}
				if err := do(name, of, number, c); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

package route

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/alertmanager/config"
	"go.yaml.in/yaml/v3"
)

// keysOf calls found with the path of every setting that a type has in YAML; keys of
// maps are x there.
func keysOf(of reflect.Type, path []string, inside []reflect.Type, found func(path []string, field reflect.StructField)) {
	switch of.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		keysOf(of.Elem(), path, inside, found)
	case reflect.Map:
		keysOf(of.Elem(), append(slices.Clip(path), "x"), inside, found)
	case reflect.Struct:
		if slices.Contains(inside, of) || of.PkgPath() == "net/url" || of.PkgPath() == "regexp" {
			return
		}
		inside = append(slices.Clip(inside), of)
		for i := range of.NumField() {
			f := of.Field(i)
			key, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if key == "-" || !f.IsExported() {
				continue
			}
			if strings.Contains(options, "inline") {
				keysOf(f.Type, path, inside, found)
				continue
			}
			if key == "" {
				key = strings.ToLower(f.Name)
			}
			at := append(slices.Clip(path), key)
			found(at, f)
			keysOf(f.Type, at, inside, found)
		}
	}
}

// tree is what YAML with this one setting is.
func tree(t *testing.T, path []string) *yaml.Node {
	t.Helper()
	var v any = "/etc/passwd"
	for _, key := range slices.Backward(path) {
		v = map[string]any{key: v}
	}
	n := &yaml.Node{}
	if err := n.Encode(v); err != nil {
		t.Fatal(err)
	}
	return n
}

// mayRead are names of settings that could be read from the server.
var mayRead = regexp.MustCompile(`(?i)file|path|dir$|directory|_ref$|command|exec|socket|environ`)

// TestNoSettingOfALibraryReadsWhatIsTheServers fails when a newer Alertmanager brings
// one that is not refused.
func TestNoSettingOfALibraryReadsWhatIsTheServers(t *testing.T) {
	harmless := map[string]bool{
		"http_config.proxy_from_environment":        true, // how the server connects, not what it says
		"http_config.oauth2.proxy_from_environment": true,
		"sigv4.profile": true, // refused by own
	}
	seen, refused := 0, 0
	keysOf(reflect.TypeOf(config.Receiver{}), nil, nil, func(path []string, f reflect.StructField) {
		seen++
		key := path[len(path)-1]
		if !mayRead.MatchString(key) && !mayRead.MatchString(f.Name) || harmless[strings.Join(path[1:], ".")] {
			return
		}
		refused++
		if serverSetting(tree(t, path)) == "" {
			t.Errorf("%s is let in, and may be read on the server", strings.Join(path, "."))
		}
	})
	if seen < 300 || refused < 100 {
		t.Errorf("%d settings seen, %d of them refused: does the walk see them all?", seen, refused)
	}
}

func TestANamespaceNamesNoFileOfTheServer(t *testing.T) {
	for settings, key := range map[string]string{
		"http_config: {http_headers: {X-A: {files: [/etc/shadow]}}}":                                                                 "http_headers.X-A.files",
		"http_config: {http_headers: {files: {files: [/dev/zero]}}}":                                                                 "http_headers.files.files",
		"http_config: {authorization: {credentials_file: /etc/shadow}}":                                                              "credentials_file",
		"http_config: {oauth2: {client_id: a, client_secret_file: /etc/shadow, token_url: 'http://t.example'}}":                      "client_secret_file",
		"http_config: {oauth2: {client_id: a, client_certificate_key_file: /etc/shadow, token_url: 'http://t.example'}}":             "client_certificate_key_file",
		"http_config: {oauth2: {client_id: a, client_secret: b, token_url: 'http://t.example', tls_config: {ca_file: /etc/shadow}}}": "ca_file",
		"http_config: {tls_config: {key_file: /etc/shadow}}":                                                                         "key_file",
		"http_config: {tls_config: {key_ref: a}}":                                                                                    "key_ref",
		"http_config: {tomorrow: a}": "tomorrow",
		"http_config: {<<: {http_headers: {X-A: {<<: {files: [/etc/shadow]}}}}}": "http_headers.X-A.files",
		"url_file: /etc/shadow": "url_file",
		"http_config: {http_headers: {X-A: {secrets: [a], values: [b]}, files: {values: [c]}}}":                                             "",
		"http_config: {oauth2: {client_id: a, client_secret: b, token_url: 'http://t.example', endpoint_params: {a_file: b, resource: c}}}": "",
		"http_config: {proxy_url: 'http://p.example', proxy_connect_header: {X-File: [a]}}":                                                 "",
	} {
		text := "route: {receiver: a}\nreceivers: [{name: a, webhook_configs: [{url: 'http://x.example', " + settings + "}]}]"
		if key == "url_file" {
			text = strings.Replace(text, "url: 'http://x.example', ", "", 1)
		}
		merged, problems := Merge(mergeBase, []Own{{"shop", "team", text}})
		err := problems["shop/team"]
		if key == "" {
			if err != nil || merged == mergeBase {
				t.Errorf("%s: %v", settings, err)
			}
			continue
		}
		if err == nil || !strings.HasSuffix(err.Error(), "names no files of the server: "+key) || merged != mergeBase {
			t.Errorf("%s: %v, want one that ends in %s", settings, err, key)
		}
	}
}

func TestWhatAnAuthorCallsFileIsNoFile(t *testing.T) {
	for receiver, want := range map[string]string{
		"pagerduty_configs: [{routing_key: a, details: {log_file: b, http_config: {c: d}}}]":                         "",
		"email_configs: [{to: 'a@b.example', from: 'c@d.example', smarthost: 'e.example:25', headers: {X_file: b}}]": "",
		"pagerduty_configs: [{routing_key_file: a, details: {log_file: b}}]":                                         "routing_key_file",
		"slack_configs: [{api_url: 'http://x.example', fields: [{title: a, value: b, c_file: d}]}]":                  "c_file",
	} {
		_, problems := Merge(mergeBase, []Own{{"shop", "team", "route: {receiver: a}\nreceivers: [{name: a, " + receiver + "}]"}})
		err := problems["shop/team"]
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasSuffix(err.Error(), "names no files of the server: "+want)) {
			t.Errorf("%s: %v, want %q", receiver, err, want)
		}
	}
}

package target

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWhatOthersFindForAnObject(t *testing.T) {
	good := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	const web, dns = `{httpSDConfigs: [{url: "http://sd/x"}]`, `{dnsSDConfigs: [{names: [web], type: A, port: 9}]`
	two := []Group{{Targets: []string{"a:1", "b"}, Labels: map[string]string{"__meta_url": "http://sd/x", "team": "a"}}}
	for name, c := range map[string]struct {
		spec   string
		found  Found
		silent bool // not asked yet
		urls   string
		labels map[string]string
		why    string
		whole  bool // nothing is scraped
	}{
		"a list": {spec: web + `, relabelings: [{sourceLabels: [__meta_url], targetLabel: from}]}`, found: Found{Good: good, Groups: two}, urls: "n0 http://a:1/metrics,n0 http://b:80/metrics",
			labels: map[string]string{"job": "scrapeConfig/red/x", "team": "a", "from": "http://sd/x", "instance": "a:1"}},
		"by https":            {spec: web + `, scheme: HTTPS}`, found: Found{Good: good, Groups: two}, urls: "n0 https://a:1/metrics,n0 https://b:443/metrics"},
		"labels are settings": {spec: web + `}`, found: Found{Good: good, Groups: []Group{{Targets: []string{"a:1"}, Labels: map[string]string{"__metrics_path__": "/m", "__scheme__": "https", "job": "j", "__address__": "127.0.0.1:1"}}}}, urls: "n0 https://a:1/m", labels: map[string]string{"job": "j"}},
		"not yet":             {spec: web + `}`, silent: true, why: "spec.httpSDConfigs[0] was not asked yet", whole: true},
		"not yet, but others": {spec: web + `, staticConfigs: [{targets: ["a:1"]}]}`, silent: true, urls: "n0 http://a:1/metrics", why: "was not asked yet"},
		"never answered":      {spec: web + `}`, found: Found{Failed: "status 500"}, why: "spec.httpSDConfigs[0]: status 500", whole: true},
		"answers no more":     {spec: web + `}`, found: Found{Failed: "status 500", Good: good, Groups: two}, urls: "n0 http://a:1/metrics,n0 http://b:80/metrics", why: "spec.httpSDConfigs[0]: status 500; what it found at 2026-11-22T12:00:00Z stays (2 targets)"},
		"answers nothing":     {spec: web + `}`, found: Found{Good: good, Note: "the answer names no target"}, why: "the answer names no target", whole: true},
		"the machine itself": {spec: web + `}`, found: Found{Good: good, Groups: []Group{{Targets: []string{"a:1", "127.0.0.1:1", "[::1]:1", "localhost:2", "169.254.169.254"}}}},
			urls: "n0 http://a:1/metrics", why: `4 of 5 targets are left out: "127.0.0.1:1" is the machine that scrapes`},
		"what is no address": {spec: web + `}`, found: Found{Good: good, Groups: []Group{{Targets: []string{"http://a/m", "", "a:0", "a:x"}}}}, why: `4 of 4 targets are left out: "http://a/m": write host:port`, whole: true},
		"a pod's address":    {spec: web + `}`, found: Found{Good: good, Groups: []Group{{Targets: []string{"10.42.0.5:9100"}, Labels: map[string]string{"namespace": "green"}}}}, urls: "n0 http://10.42.0.5:9100/metrics"},
		"a name":             {spec: dns + `}`, found: Found{Good: good, Groups: []Group{{Targets: []string{"10.42.0.5:9"}, Labels: map[string]string{"__meta_dns_name": "web"}}}}, urls: "n0 http://10.42.0.5:9/metrics"},
		"no such name":       {spec: dns + `}`, found: Found{Good: good, Note: "web has no record of type A"}, why: "spec.dnsSDConfigs[0].names[0]: web has no record of type A", whole: true},
		"the same twice":     {spec: `{httpSDConfigs: [{url: "http://sd/x"}, {url: "http://sd/x"}]}`, found: Found{Good: good, Groups: two}, urls: "n0 http://a:1/metrics,n0 http://b:80/metrics"},
		"files":              {spec: `{fileSDConfigs: [{files: [/etc/x.json]}]}`, why: "spec.fileSDConfigs does nothing: objects do not read files of the machine", whole: false},
	} {
		t.Run(name, func(t *testing.T) {
			w := world()
			o := object(t, ScrapeConfig, "red", c.spec)
			w.Found = func(key string) (Found, bool) {
				for _, s := range o.Searches(w) {
					if s.Key() == key {
						return c.found, !c.silent
					}
				}
				t.Errorf("asks for %q, which nobody looks for", key)
				return Found{}, false
			}
			jobs, left := Plan(w, []Object{o})
			var urls []string
			for _, j := range jobs {
				for _, x := range j.Targets {
					urls = append(urls, x.Node+" "+x.Scheme+"://"+x.Address+x.Path)
					if x.OfPod || x.Namespace != "red" || x.Found != "" {
						t.Errorf("%+v is not the object's own", x)
					}
				}
			}
			slices.Sort(urls)
			if got := strings.Join(urls, ","); got != c.urls {
				t.Fatalf("got %q, want %q; left %v", got, c.urls, left)
			}
			if c.labels != nil {
				have := jobs[0].Targets[0].Labels
				both := maps.Clone(have)
				maps.Copy(both, c.labels)
				if !maps.Equal(both, have) {
					t.Errorf("labels %v, want %v", have, c.labels)
				}
			}
			why := ""
			for _, l := range left {
				why += l.Reason + "\n"
				if c.why != "" && strings.Contains(l.Reason, c.why) && l.Partly == c.whole {
					t.Errorf("%q is partly %v", l.Reason, l.Partly)
				}
			}
			if (c.why == "") != (why == "") || !strings.Contains(why, c.why) {
				t.Errorf("left %v, want %q", left, c.why)
			}
		})
	}
}

func TestWhatIsAskedForAnObject(t *testing.T) {
	w := world()
	w.Account.CA = "of the cluster"
	for name, c := range map[string]struct{ spec, want string }{
		"defaults":        {`{httpSDConfigs: [{url: "http://sd/x"}], dnsSDConfigs: [{names: [a, b]}, {names: [c], type: aaaa, port: 9}]}`, "http://sd/x 1m0s {}\n;SRV a 0 30s ;SRV b 0 30s ;AAAA c 9 30s "},
		"what they say":   {`{httpSDConfigs: [{url: "https://sd", refreshInterval: 5s, followRedirects: false, enableHTTP2: false}], dnsSDConfigs: [{names: [a], refreshInterval: 1m30s, port: 7}]}`, "https://sd 5s enable_http2: false\nfollow_redirects: false\n;SRV a 0 1m30s "},
		"too often":       {`{httpSDConfigs: [{url: "https://sd", refreshInterval: 1s}], dnsSDConfigs: [{names: [a], refreshInterval: 4s}]}`, "https://sd 5s {}\n;SRV a 0 5s "},
		"with a password": {`{httpSDConfigs: [{url: "http://sd", basicAuth: {username: {name: login, key: user}, password: {name: login, key: word}}}]}`, "http://sd 1m0s basic_auth:\n  password: 'pa: ss'\n  username: u\n"},
		"without it":      {`{httpSDConfigs: [{url: "http://sd", authorization: {credentials: {name: gone, key: x}}}]}`, "http://sd 1m0s  spec.httpSDConfigs[0].authorization.credentials: Secret red/gone key x is not there"},
		"by a proxy":      {`{httpSDConfigs: [{url: "http://sd", proxyUrl: "http://proxy:3128", noProxy: x}]}`, "http://sd 1m0s no_proxy: x\nproxy_url: http://proxy:3128\n"},
		"with a file":     {`{httpSDConfigs: [{url: "http://sd", tlsConfig: {keyFile: /etc/x}}]}`, "http://sd 1m0s  spec.httpSDConfigs[0].tlsConfig.keyFile: files of the machine are not read; use a Secret or ConfigMap"},
		"a broken object": {`{httpSDConfigs: [{url: "http://sd"}], staticConfigs: [{targets: ["http://a"]}]}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, s := range object(t, ScrapeConfig, "red", c.spec).Searches(w) {
				text := fmt.Sprintf("%s %s %s", s.URL, s.Every, s.Client)
				if s.URL == "" {
					text = fmt.Sprintf("%s %s %d %s ", s.Type, s.Name, s.Port, s.Every)
				}
				if s.Lacks != "" {
					text += " " + s.Lacks
				}
				got = append(got, text)
				if s.From != "scrapeconfig/red/x" || s.Namespace != "red" || !strings.HasPrefix(s.Key(), s.From+" ") {
					t.Errorf("%+v", s)
				}
			}
			if text := strings.Join(got, ";"); text != c.want {
				t.Errorf("%q, want %q", text, c.want)
			}
		})
	}
	o := object(t, ScrapeConfig, "red", `{httpSDConfigs: [{url: "http://sd", authorization: {credentials: {name: s, key: k}}}]}`)
	if refs := o.Refs(); len(refs) != 1 || refs[0].String() != "Secret red/s key k" {
		t.Errorf("Secrets to read: %v", refs)
	}
}

func long(n int) string { return strings.Repeat("x", n) }

func words(n int) string { return "[" + strings.TrimSuffix(strings.Repeat("a,", n), ",") + "]" }

// keys are names of 1000 bytes.
func keys(n int) string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("%d%s: [{}]", i, long(999)))
	}
	return strings.Join(out, ",")
}

func services(n int) string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf(`{url: "http://sd/%d"}`, i))
	}
	return strings.Join(out, ",")
}

func zones(n, names int) string {
	return strings.TrimSuffix(strings.Repeat(`{names: `+words(names)+`},`, n), ",")
}

// TestTheNamesOfAnObjectAreBounded: of all its dnsSDConfigs together.
func TestTheNamesOfAnObjectAreBounded(t *testing.T) {
	w := world()
	w.Found = func(string) (Found, bool) { return Found{Good: time.Unix(1, 0)}, true }
	for spec, want := range map[string]struct {
		asked int
		told  string
	}{
		`{dnsSDConfigs: [` + zones(2, 100) + `]}`:                                      {200, "it finds no target"},
		`{dnsSDConfigs: [` + zones(3, 100) + `], httpSDConfigs: [{url: "http://sd"}]}`: {201, "spec.dnsSDConfigs: the first 200 of 300 names are asked for"},
	} {
		o := object(t, ScrapeConfig, "red", spec)
		if n := len(o.Searches(w)); n != want.asked {
			t.Errorf("%d are asked for, want %d", n, want.asked)
		}
		_, left := Plan(w, []Object{o})
		if len(left) != 1 || !strings.Contains(left[0].Reason, want.told) {
			t.Errorf("left %v, want %q", left, want.told)
		}
	}
}

func TestTheNamespaceOfAKey(t *testing.T) {
	for _, s := range []Search{{From: "scrapeconfig/red/x", URL: "http://a/b c"}, {From: "scrapeconfig/red/x.y", Name: "web", Type: "A"}} {
		if got := NamespaceOf(s.Key()); got != "red" {
			t.Errorf("%q: %q", s.Key(), got)
		}
	}
	if got := NamespaceOf("x"); got != "" {
		t.Errorf("of what is no key: %q", got)
	}
}

func TestWhatOfASearchIsRefused(t *testing.T) {
	const web, dns = `{httpSDConfigs: [`, `{dnsSDConfigs: [`
	for spec, want := range map[string]string{
		web + `{}]}`:                                                "spec.httpSDConfigs[0].url: want an http or https URL",
		web + `{url: "file:///etc/x"}]}`:                            "want an http or https URL",
		web + `{url: "unix:///run/x"}]}`:                            "want an http or https URL",
		web + `{url: "http://127.0.0.1:9000/"}]}`:                   `"http://127.0.0.1:9000/" is the machine that asks`,
		web + `{url: "http://u:topsecret@localhost"}]}`:             `"http://u:xxxxx@localhost" is the machine that asks`,
		web + `{url: "http://169.254.169.254/latest"}]}`:            "is the machine that asks",
		web + `{url: "ftp://u:topsecret@h/"}]}`:                     `"ftp://u:xxxxx@h/", want an http or https URL`,
		web + `{url: "http://u:topsecret@h:port/"}]}`:               "url: want an http or https URL",
		web + `{url: "u:topsecret@h"}]}`:                            "url: want an http or https URL",
		web + `{url: "http://sd/` + long(2048) + `"}]}`:             "spec.httpSDConfigs[0].url: is longer than 2048 bytes",
		web + `{url: "http://sd", noProxy: ` + long(4097) + `}]}`:   "spec.httpSDConfigs[0].noProxy: is longer than 4096 bytes",
		web + `{url: "http://sd", refreshInterval: soon}]}`:         `"soon" is no time`,
		web + `{url: "http://sd", proxyUrl: "http://[::1]:3128"}]}`: "spec.httpSDConfigs[0].proxyUrl: \"http://[::1]:3128\" is the machine",
		web + `{url: "http://sd", oauth2: {clientId: {}, clientSecret: {}, tokenUrl: "http://localhost/t"}}]}`: "spec.httpSDConfigs[0].oauth2.tokenUrl: \"http://localhost/t\" is the machine",
		web + `{url: "http://sd", basicAuth: {}, authorization: {}}]}`:                                         "spec.httpSDConfigs[0].authorization: basicAuth, authorization",
		web + `{url: "http://sd", authorization: {type: ` + long(4097) + `}}]}`:                                "spec.httpSDConfigs[0].authorization.type: is longer",
		web + `{url: "http://sd", tlsConfig: {serverName: ` + long(4097) + `}}]}`:                              "spec.httpSDConfigs[0].tlsConfig.serverName: is longer",
		web + `{url: "http://sd", proxyConnectHeader: {` + keys(5) + `}}]}`:                                    "spec.httpSDConfigs[0].proxyConnectHeader: is longer",
		web + `{url: "http://sd", oauth2: {tokenUrl: "http://t", scopes: ` + words(3000) + `}}]}`:              "spec.httpSDConfigs[0].oauth2.scopes: is longer",
		web + `{url: "http://sd", oauth2: {tokenUrl: "http://t", endpointParams: {a: ` + long(4097) + `}}}]}`:  "spec.httpSDConfigs[0].oauth2.endpointParams: is longer",
		web + services(101) + `]}`:                  "spec.httpSDConfigs: are more than 100",
		dns + zones(101, 1) + `]}`:                  "spec.dnsSDConfigs: are more than 100",
		dns + zones(1, 201) + `]}`:                  "spec.dnsSDConfigs[0].names: are more than 200",
		dns + `{names: [` + long(255) + `]}]}`:      "spec.dnsSDConfigs[0].names[0]: is longer than 254 bytes",
		dns + `{}]}`:                                "spec.dnsSDConfigs[0].names: names nothing",
		dns + `{names: [""]}]}`:                     `spec.dnsSDConfigs[0].names[0]: "" is no name of DNS`,
		dns + `{names: ["a:53"]}]}`:                 "is no name of DNS",
		dns + `{names: [a], type: TXT}]}`:           `spec.dnsSDConfigs[0].type: "TXT", want A, AAAA, SRV, MX or NS`,
		dns + `{names: [a], type: A}]}`:             "spec.dnsSDConfigs[0].port: is needed",
		dns + `{names: [a], port: 65536}]}`:         "65536 is no port",
		dns + `{names: [a], refreshInterval: 0s}]}`: `"0s" is no time`,
		dns + `{names: [a], port: x}]}`:             "spec.dnsSDConfigs.port is a string",
	} {
		o := object(t, ScrapeConfig, "red", spec)
		wrong, _ := o.Check()
		if text := strings.Join(wrong, "; "); !strings.Contains(text, want) || strings.Contains(text, "topsecret") || len(text) > 1000 {
			t.Errorf("%.100s: %.1000q, want %q", spec, text, want)
		}
		if list := o.Searches(world()); len(list) > 0 {
			t.Errorf("%s: asks %v", spec, list)
		}
	}
	for spec, want := range map[string]string{
		web + `{url: "http://sd", tlsConfig: {caFile: /etc/x}}]}`: "spec.httpSDConfigs[0].tlsConfig.caFile: files of the machine are not read",
		web + `{url: "http://sd", bearerTokenFile: /etc/x}]}`:     `unknown field "spec.httpSDConfigs[0].bearerTokenFile" does nothing`,
		web + `{url: "http://sd"}]}`:                              "",
		web + `{url: "http://sd", refreshInterval: 1s}]}`:         "spec.httpSDConfigs[0].refreshInterval is 1s, which is too often: asked every 5s",
		dns + `{names: [a], refreshInterval: 4900ms}]}`:           "spec.dnsSDConfigs[0].refreshInterval is 4900ms, which is too often: asked every 5s",
		web + services(100) + `]}`:                                "",
		dns + zones(100, 2) + `]}`:                                "",
	} {
		wrong, idle := object(t, ScrapeConfig, "red", spec).Check()
		if text := strings.Join(idle, "; "); len(wrong) > 0 || (want == "") != (text == "") || !strings.Contains(text, want) {
			t.Errorf("%s: %q, refused for %q, want %q", spec, text, wrong, want)
		}
	}
}

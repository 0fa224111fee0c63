package route

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/notify"
	"github.com/prometheus/alertmanager/template"
	"github.com/prometheus/common/model"
)

// In these tests 127.0.0.2 is what only this machine may reach, and 127.0.0.1 a
// Service of the cluster.
var (
	ownAddress = netip.MustParseAddr("127.0.0.2")
	guardOwn   = func(ip netip.Addr) bool { return ip.Unmap() == ownAddress }
)

// counted serves on an address and counts what comes.
func counted(t *testing.T, ip string, h http.Handler) (port string, came *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	came = &atomic.Int64{}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		came.Add(1)
		if h != nil {
			h.ServeHTTP(w, r)
		}
	})}}
	s.Start()
	t.Cleanup(s.Close)
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port, came
}

// talker accepts mail and says no to what follows the greeting.
func talker(t *testing.T, ip string) (port string, came *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	came = &atomic.Int64{}
	t.Cleanup(func() { l.Close() })
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			came.Add(1)
			_, _ = io.WriteString(c, "554 not today\r\n")
			c.Close()
		}
	}()
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port, came
}

func TestAReceiverOfANamespaceDoesNotReachWhatOnlyThisMachineMay(t *testing.T) {
	own, ownCame := counted(t, "127.0.0.2", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	away, awayCame := counted(t, "127.0.0.1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(w, r, "http://127.0.0.2:"+own+"/", http.StatusTemporaryRedirect)
		}
	}))
	mailOwn, mailOwnCame := talker(t, "127.0.0.2")
	mailAway, mailAwayCame := talker(t, "127.0.0.1")
	r := &Router{log: slog.New(slog.DiscardHandler), cfg: Config{Guarded: guardOwn, Resolve: func(host string) (string, bool) {
		ip, ok := map[string]string{"hook.shop.svc": "127.0.0.1", "own.shop.svc": "127.0.0.2"}[host]
		return ip, ok
	}}}
	const refused, mailed = "may not name it", "554"
	for name, tc := range map[string]struct {
		receiver, settings, global string
		err                        string
		came                       *atomic.Int64 // what is reached; nil: nothing
	}{
		"the cluster's own receiver":   {"ops", "webhook_configs: [{url: 'http://127.0.0.2:" + own + "'}]", "", "", ownCame},
		"this machine":                 {"shop/a/b", "webhook_configs: [{url: 'http://127.0.0.2:" + own + "'}]", "", refused, nil},
		"this machine as IPv6":         {"shop/a/b", "webhook_configs: [{url: 'http://[::ffff:127.0.0.2]:" + own + "'}]", "", refused, nil},
		"a name for this machine":      {"shop/a/b", "webhook_configs: [{url: 'http://own.shop.svc:" + own + "'}]", "", refused, nil},
		"a redirect":                   {"shop/a/b", "webhook_configs: [{url: 'http://127.0.0.1:" + away + "/away'}]", "", refused, nil},
		"a proxy":                      {"shop/a/b", "webhook_configs: [{url: 'http://hook.example', http_config: {proxy_url: 'http://127.0.0.2:" + own + "'}}]", "", refused, nil},
		"a giver of tokens":            {"shop/a/b", "webhook_configs: [{url: 'http://127.0.0.1:" + away + "', http_config: {oauth2: {client_id: a, client_secret: b, token_url: 'http://127.0.0.2:" + own + "'}}}]", "", refused, nil},
		"a Service":                    {"shop/a/b", "webhook_configs: [{url: 'http://hook.shop.svc:" + away + "'}]", "", "", awayCame},
		"a Service of the cluster's":   {"ops", "webhook_configs: [{url: 'http://hook.shop.svc:" + away + "'}]", "", "", awayCame},
		"what is set for all":          {"shop/a/b", "slack_configs: [{channel: a}]", "slack_api_url: 'http://127.0.0.2:" + own + "/'", "", ownCame},
		"the proxy set for all":        {"shop/a/b", "webhook_configs: [{url: 'http://hook.example'}]", "http_config: {proxy_url: 'http://127.0.0.2:" + own + "'}", "", ownCame},
		"what is set for all, named":   {"shop/a/b", "webhook_configs: [{url: 'http://127.0.0.2:" + own + "/me'}]", "slack_api_url: 'http://127.0.0.2:" + own + "/'", "", ownCame},
		"the giver of tokens for all":  {"shop/a/b", "webhook_configs: [{url: 'http://127.0.0.1:" + away + "'}]", "http_config: {oauth2: {client_id: a, client_secret: b, token_url: 'http://127.0.0.2:" + own + "'}}", "server response missing access_token", ownCame},
		"mail by this machine":         {"shop/a/b", "email_configs: [{to: a@example.com, smarthost: '127.0.0.2:" + mailOwn + "'}]", "smtp_from: a@example.com", refused, nil},
		"mail by a name for it":        {"shop/a/b", "email_configs: [{to: a@example.com, smarthost: 'localhost:" + mailOwn + "'}]", "smtp_from: a@example.com", refused, nil},
		"mail by what is set for all":  {"shop/a/b", "email_configs: [{to: a@example.com}]", "{smtp_from: a@example.com, smtp_smarthost: '127.0.0.2:" + mailOwn + "'}", mailed, mailOwnCame},
		"mail by a Service":            {"shop/a/b", "email_configs: [{to: a@example.com, smarthost: 'hook.shop.svc:" + mailAway + "'}]", "smtp_from: a@example.com", mailed, mailAwayCame},
		"mail by a Service for it":     {"shop/a/b", "email_configs: [{to: a@example.com, smarthost: 'own.shop.svc:" + mailOwn + "'}]", "smtp_from: a@example.com", refused, nil},
		"mail of the cluster's by own": {"ops", "email_configs: [{to: a@example.com, smarthost: '127.0.0.2:" + mailOwn + "'}]", "smtp_from: a@example.com", mailed, mailOwnCame},
	} {
		global := tc.global
		if global != "" && !strings.HasPrefix(global, "{") {
			global = "{" + global + "}"
		}
		if global == "" {
			global = "{}"
		}
		if strings.Contains(name, "by a name for it") { // whatever localhost is here
			r.cfg.Guarded = func(ip netip.Addr) bool { return ip.IsLoopback() }
		} else {
			r.cfg.Guarded = guardOwn
		}
		conf, err := load(fmt.Sprintf("global: %s\nroute: {receiver: '%s'}\nreceivers: [{name: '%s', %s}]\n", global, tc.receiver, tc.receiver, tc.settings))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		tmpl, err := template.FromGlobs(nil)
		if err != nil {
			t.Fatal(err)
		}
		if tmpl.ExternalURL, err = url.Parse("https://perch.example"); err != nil {
			t.Fatal(err)
		}
		built, err := r.build(conf, conf.Receivers[0], tmpl)
		if err != nil || len(built) != 1 {
			t.Fatalf("%s: %d, %v", name, len(built), err)
		}
		all := map[*atomic.Int64]int64{}
		for _, c := range []*atomic.Int64{ownCame, awayCame, mailOwnCame, mailAwayCame} {
			all[c] = c.Load()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		ctx = notify.WithGroupLabels(notify.WithReceiverName(notify.WithGroupKey(ctx, "k"), tc.receiver), model.LabelSet{})
		_, err = built[0].Notify(ctx, &alert.Alert{Alert: model.Alert{Labels: model.LabelSet{"alertname": "A"}, StartsAt: time.Now(), EndsAt: time.Now().Add(time.Hour)}})
		cancel()
		if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s: %v, want %q", name, err, tc.err)
		}
		for c, before := range all {
			if reached := c.Load() > before; c == tc.came && !reached || reached && c != tc.came && (c == ownCame || c == mailOwnCame) {
				t.Errorf("%s: reached %v", name, reached)
			}
		}
	}
}

func TestWhatIsSetForAllIsOpenByTheAddressThatIsConnected(t *testing.T) {
	open, err := Open(`global: {http_config: {proxy_url: "socks5://localhost", oauth2: {client_id: a, client_secret: b, token_url: "https://127.0.0.1/t"}}, slack_api_url: "http://127.0.0.1/x"}
route: {receiver: a}
receivers: [{name: a}]
`)
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"localhost:1080", "127.0.0.1:443", "127.0.0.1:80"} {
		if !open[address] {
			t.Errorf("%s is not open: %v", address, open)
		}
	}
}

func TestANamespaceDoesNotActWithTheRightsOfThisMachine(t *testing.T) {
	for settings, good := range map[string]bool{
		"{access_key: a, secret_key: b}": true,
		"{}":                             false,
		"{access_key: a, secret_key: b, profile: p}": false,
		"{role_arn: r}": false,
	} {
		text := "route: {receiver: a}\nreceivers: [{name: a, sns_configs: [{topic_arn: 'arn:aws:sns:us-east-2:1:t', sigv4: " + settings + "}]}]\n"
		if _, problems := Merge(Default, []Own{{Namespace: "shop", Name: "x", Text: text}}); (len(problems) == 0) != good {
			t.Errorf("%s: %v", settings, problems)
		}
		if err := Check(text); err != nil {
			t.Errorf("the cluster's own %s: %v", settings, err)
		}
	}
}

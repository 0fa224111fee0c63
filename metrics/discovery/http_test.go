package discovery

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/metrics/target"
)

// outside is an address of this machine that objects may name.
func outside(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !target.Guarded(p.Addr()) && p.Addr().Is4() {
			return p.Addr().String()
		}
	}
	t.Skip("this machine has no address but its own")
	return ""
}

// serve answers at an address, with what is left of a URL.
func serve(t *testing.T, ip string, h http.HandlerFunc) string {
	t.Helper()
	at, err := net.Listen("tcp", net.JoinHostPort(ip, "0")) //nolint:noctx // of a test
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: at, Config: &http.Server{Handler: h}} //nolint:gosec // of a test
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

func loop(t *testing.T, cfg Config, parts Parts) *Loop {
	t.Helper()
	parts.Searches, parts.Changed = func() []target.Search { return nil }, func() {}
	if parts.Machine == nil {
		parts.Machine = &net.Resolver{}
	}
	l, err := New(cfg, parts, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func ask(t *testing.T, l *Loop, s target.Search) (answer, error) {
	t.Helper()
	s.Every = time.Minute
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	f, err := l.open(t.Context(), s)
	if err != nil {
		return answer{}, err
	}
	return f(ctx)
}

func TestAServiceIsAskedAsTheObjectSays(t *testing.T) {
	ip := outside(t)
	at := serve(t, ip, func(w http.ResponseWriter, r *http.Request) {
		user, word, _ := r.BasicAuth()
		if user+":"+word != "u:w" && r.Header.Get("Authorization") != "Bearer t" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/", http.StatusFound)
		default:
			fmt.Fprintf(w, `[{"targets":["a:1"],"labels":{"every":%q}}]`, r.Header.Get("X-Prometheus-Refresh-Interval-Seconds"))
		}
	})
	tokens := serve(t, ip, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "what else is there")
			return
		}
		_, _ = io.WriteString(w, `{"access_token":"t","token_type":"Bearer","expires_in":3600}`)
	})
	const basic = "basic_auth: {username: u, password: w}\n"
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(at, "http://"))
	for name, c := range map[string]struct{ url, client, wrong string }{
		"with a password":                    {at, basic, ""},
		"with a token":                       {at, "authorization: {type: Bearer, credentials: t}\n", ""},
		"with a token that it asks for":      {at, "oauth2: {client_id: i, client_secret: s, token_url: '" + tokens + "'}\n", ""},
		"with one that it does not get":      {at, "oauth2: {client_id: i, client_secret: s, token_url: '" + tokens + "/no'}\n", "403"},
		"with nothing":                       {at, "{}\n", "status 401"},
		"at another place":                   {at + "/moved", basic, ""},
		"at another place that is not to be": {at + "/moved", basic + "follow_redirects: false\n", "status 302"},
		"by a name of a Service":             {"http://shop.red.svc:" + port, basic, ""},
		"with a password in the URL":         {strings.Replace(at, "//", "//u:nooo@", 1), "{}\n", "status 401"},
		"by a proxy":                         {"http://192.0.2.1/", basic + "proxy_url: " + at + "\n", ""},
		"with settings that are none":        {at, "oauth2: 1\n", "read settings"},
		"with a certificate that is none":    {at, "tls_config: {ca: x}\n", "build client"},
		"where nobody is":                    {"http://" + net.JoinHostPort(ip, "1"), basic, "refused"},
		"by a scheme that leads elsewhere":   {"file:///etc/passwd", basic, "unsupported protocol scheme"},
		"over TLS where there is none":       {strings.Replace(at, "http:", "https:", 1), basic, "server gave HTTP response"},
	} {
		t.Run(name, func(t *testing.T) {
			l := loop(t, Default(), Parts{Resolve: func(host string) (string, bool) { return ip, host == "shop.red.svc" }})
			got, err := ask(t, l, target.Search{URL: c.url, Client: target.Settings(c.client)})
			if c.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), c.wrong) || strings.Contains(err.Error(), "nooo") || strings.Contains(brief(err), "what else") {
					t.Fatalf("%v, want %q", err, c.wrong)
				}
				return
			}
			if err != nil || len(got.groups) != 1 || got.groups[0].Targets[0] != "a:1" || got.groups[0].Labels["__meta_url"] != c.url || got.groups[0].Labels["every"] != "60" {
				t.Fatalf("%+v, %v", got, err)
			}
		})
	}
}

// TestObjectsDoNotReachThisMachine: neither by name, nor by what others answer.
func TestObjectsDoNotReachThisMachine(t *testing.T) {
	ip := outside(t)
	var reached atomic.Int64
	private := serve(t, "127.0.0.1", func(w http.ResponseWriter, _ *http.Request) {
		reached.Add(1)
		_, _ = io.WriteString(w, `[]`)
	})
	at := serve(t, ip, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, private, http.StatusFound) })
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(private, "http://"))
	for name, s := range map[string]target.Search{
		"by address":              {URL: private},
		"by name":                 {URL: "http://localhost:" + port},
		"as an address of IPv6":   {URL: "http://[::ffff:127.0.0.1]:" + port},
		"as no address":           {URL: "http://0.0.0.0:" + port},
		"behind a redirect":       {URL: at},
		"as a name of a Service":  {URL: "http://shop.red.svc:" + port},
		"as a proxy":              {URL: at, Client: target.Settings("proxy_url: " + private + "\n")},
		"as the server of tokens": {URL: at, Client: target.Settings("oauth2: {client_id: i, client_secret: s, token_url: '" + private + "'}\n")},
		"as the tokens' proxy":    {URL: at, Client: target.Settings("oauth2: {client_id: i, client_secret: s, token_url: '" + at + "', proxy_url: '" + private + "'}\n")},
	} {
		t.Run(name, func(t *testing.T) {
			l := loop(t, Default(), Parts{Resolve: func(host string) (string, bool) { return "127.0.0.1", host == "shop.red.svc" }})
			_, err := ask(t, l, s)
			if err == nil || !strings.Contains(err.Error(), "is the machine that asks") || reached.Load() > 0 {
				t.Errorf("%v, reached %d times", err, reached.Load())
			}
		})
	}
}

func TestAnswersThatDoNotEndAreCutOff(t *testing.T) {
	ip := outside(t)
	cfg := Default()
	cfg.Body = 1000
	endless := func(w io.Writer, text string) {
		for {
			if _, err := io.WriteString(w, text); err != nil {
				return
			}
		}
	}
	for name, c := range map[string]struct {
		h     http.HandlerFunc
		wrong string
	}{
		"a body":    {func(w http.ResponseWriter, _ *http.Request) { endless(w, strings.Repeat(" ", 1<<16)) }, "longer than 1000 bytes"},
		"a head":    {raw(func(c net.Conn) { endless(c, "x: "+strings.Repeat("y", 1000)+"\r\n") }), "longer than the limit"},
		"no answer": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "deadline"},
	} {
		t.Run(name, func(t *testing.T) {
			l := loop(t, cfg, Parts{})
			s := target.Search{URL: serve(t, ip, c.h), Every: time.Minute}
			f, err := l.open(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
			if strings.Contains(c.wrong, "deadline") {
				ctx, stop = context.WithTimeout(t.Context(), 100*time.Millisecond)
			}
			defer stop()
			if _, err := f(ctx); err == nil || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%v, want %q", err, c.wrong)
			}
		})
	}
}

// raw writes what is no answer of HTTP after its first line.
func raw(f func(net.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n"); err != nil {
			return
		}
		f(c)
	}
}

// TestTokensThatDoNotComeEndWithTheLoop: the library asks for them without a
// context.
func TestTokensThatDoNotComeEndWithTheLoop(t *testing.T) {
	ip := outside(t)
	asked := make(chan struct{}, 10)
	hang := make(chan struct{})
	tokens := serve(t, ip, func(http.ResponseWriter, *http.Request) { asked <- struct{}{}; <-hang })
	t.Cleanup(func() { close(hang) }) // before the server's end
	l := loop(t, Default(), Parts{})
	ctx, stop := context.WithCancel(t.Context())
	f, err := l.open(ctx, target.Search{URL: tokens, Every: time.Minute, Client: target.Settings("oauth2: {client_id: i, client_secret: s, token_url: '" + tokens + "'}\n")})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { _, err := f(ctx); ended <- err }()
	<-asked
	stop()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it was answered")
		}
	case <-time.After(20 * time.Second): // less than the limit of one question
		t.Error("it does not end")
	}
}

package discovery

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
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
	t.Fatal("this machine has no IPv4 address beside loopback, which perch needs, too: give it one")
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
	parts.Searches, parts.Changed = func(context.Context) []target.Search { return nil }, func() {}
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
	f, err := l.open(s)
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
			_, _ = io.WriteString(w, `{"error":"topsecret","error_description":"topsecret, too"}`)
			return
		}
		if r.URL.Path == "/none" {
			_, _ = io.WriteString(w, `{"topsecret":"t"}`)
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
		"with one that it does not get":      {at, "oauth2: {client_id: i, client_secret: s, token_url: '" + tokens + "/no'}\n", "ask " + at + ": the server of tokens gives none, with status 403"},
		"with one that is none":              {at, "oauth2: {client_id: i, client_secret: s, token_url: '" + tokens + "/none'}\n", "ask " + at + ": the server of tokens gives none"},
		"with nothing":                       {at, "{}\n", "status 401"},
		"at another place":                   {at + "/moved", basic, ""},
		"at another place that is not to be": {at + "/moved", basic + "follow_redirects: false\n", "status 302"},
		"by a name of a Service":             {"http://shop.red.svc:" + port, basic, ""},
		"with a password in the URL":         {strings.Replace(at, "//", "//u:nooo@", 1), "{}\n", "status 401"},
		"by a proxy":                         {"http://192.0.2.1/", basic + "proxy_url: " + at + "\n", ""},
		"with settings that are none":        {at, "oauth2: 1\n", "read settings"},
		"with a certificate that is none":    {at, "tls_config: {ca: x}\n", "build client"},
		"where nobody is":                    {"http://" + net.JoinHostPort(ip, "1"), basic, "ask http://" + net.JoinHostPort(ip, "1") + ": " + net.JoinHostPort(ip, "1") + ": connection refused"},
		"by a scheme that leads elsewhere":   {"file:///etc/passwd", basic, "no http or https URL"},
		"over TLS where there is none":       {strings.Replace(at, "http:", "https:", 1), basic, "it does not speak TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			l := loop(t, Default(), Parts{Resolve: knows("shop.red.svc", ip)})
			got, err := ask(t, l, target.Search{URL: c.url, Client: target.Settings(c.client)})
			if c.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), c.wrong) || strings.Contains(err.Error(), "nooo") || strings.Contains(err.Error(), "topsecret") {
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

// knows is a name of the cluster.
func knows(name, ip string) func(context.Context, string) (string, bool, error) {
	return func(_ context.Context, host string) (string, bool, error) { return ip, host == name, nil }
}

// TestObjectsDoNotReachThisMachine: neither by name, nor by what others answer.
func TestObjectsDoNotReachThisMachine(t *testing.T) {
	var reached atomic.Int64
	private := serve(t, "127.0.0.1", func(w http.ResponseWriter, _ *http.Request) {
		reached.Add(1)
		_, _ = io.WriteString(w, `[]`)
	})
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(private, "http://"))
	dns := &names{records: map[string][]string{"sd.test. A": {"127.0.0.1"}}}
	const nobody = "http://192.0.2.1"
	for name, c := range map[string]struct {
		target.Search
		elsewhere bool // the URL is of a server that redirects to it
	}{
		"by address":              {Search: target.Search{URL: private}},
		"by name":                 {Search: target.Search{URL: "http://localhost:" + port}},
		"by another name":         {Search: target.Search{URL: "http://sd.test.:" + port}},
		"as an address of IPv6":   {Search: target.Search{URL: "http://[::ffff:127.0.0.1]:" + port}},
		"as no address":           {Search: target.Search{URL: "http://0.0.0.0:" + port}},
		"behind a redirect":       {elsewhere: true},
		"as a name of a Service":  {Search: target.Search{URL: "http://shop.red.svc:" + port}},
		"as a proxy":              {Search: target.Search{URL: nobody, Client: target.Settings("proxy_url: " + private + "\n")}},
		"as the server of tokens": {Search: target.Search{URL: nobody, Client: target.Settings("oauth2: {client_id: i, client_secret: s, token_url: '" + private + "'}\n")}},
		"as the tokens' proxy":    {Search: target.Search{URL: nobody, Client: target.Settings("oauth2: {client_id: i, client_secret: s, token_url: '" + nobody + "', proxy_url: '" + private + "'}\n")}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.elsewhere {
				c.URL = serve(t, outside(t), func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, private, http.StatusFound) })
			}
			l := loop(t, Default(), Parts{Resolve: knows("shop.red.svc", "127.0.0.1"), Machine: dns.resolver(t)})
			_, err := ask(t, l, c.Search)
			if err == nil || !strings.Contains(err.Error(), "is the machine that asks") || reached.Load() > 0 {
				t.Errorf("%v, reached %d times", err, reached.Load())
			}
			if c.elsewhere && !strings.Contains(err.Error(), ": where it leads is the machine that asks") {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestANameOfTheClusterIsAskedOfNobodyElse: it may be told to a resolver elsewhere, or
// be found there.
func TestANameOfTheClusterIsAskedOfNobodyElse(t *testing.T) {
	machine := &names{records: map[string][]string{"shop.red.svc.cluster.local. A": {"127.0.0.1"}}}
	for cause, want := range map[error]string{
		errors.New("read udp 10.0.0.1:43210: topsecret"):                                       "shop.red.svc.cluster.local.:80: the cluster has no such name",
		&net.DNSError{Err: "no such host", IsNotFound: true, Name: "x", Server: "10.0.0.1:53"}: "no such host",
		&net.DNSError{Err: "read udp 10.0.0.1:43210: i/o timeout", IsTimeout: true, Name: "x"}: "the name was not answered for in time",
	} {
		l := loop(t, Default(), Parts{Machine: machine.resolver(t), Resolve: func(context.Context, string) (string, bool, error) { return "", true, cause }})
		_, err := ask(t, l, target.Search{URL: "http://shop.red.svc.cluster.local./"})
		if err == nil || !strings.HasSuffix(err.Error(), want) || strings.Contains(err.Error(), "43210") {
			t.Errorf("%v, want %q", err, want)
		}
	}
	machine.mu.Lock()
	defer machine.mu.Unlock()
	if len(machine.asked) > 0 {
		t.Errorf("the machine's resolver was asked for %v", machine.asked)
	}
}

// TestAFailureHasNoWordOfTheOtherSide, nor a port of this one: it is told to who reads
// the object, and the same failure is no news.
func TestAFailureHasNoWordOfTheOtherSide(t *testing.T) {
	ip := outside(t)
	line := func(text string) string {
		return serve(t, ip, whole(func(c net.Conn) { _, _ = io.WriteString(c, text) }))
	}
	secret := httptest.NewUnstartedServer(http.NotFoundHandler())
	secret.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	_ = secret.Listener.Close()
	var err error
	if secret.Listener, err = net.Listen("tcp", net.JoinHostPort(ip, "0")); err != nil { //nolint:noctx // of a test
		t.Fatal(err)
	}
	secret.StartTLS()
	t.Cleanup(secret.Close)
	good := serve(t, ip, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `[]`) })
	proxy := serve(t, ip, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusProxyAuthRequired) })
	dns := &names{records: map[string][]string{}}
	for name, c := range map[string]struct{ url, client, want string }{
		"no HTTP":               {url: line("topsecret\r\n\r\n"), want: "it does not speak HTTP"},
		"no status":             {url: line("HTTP/1.1 topsecret\r\n\r\n"), want: "it does not speak HTTP"},
		"no header":             {url: line("HTTP/1.1 200 OK\r\ntopsecret\r\n\r\n"), want: "it does not speak HTTP"},
		"no length":             {url: line("HTTP/1.1 200 OK\r\nContent-Length: topsecret\r\n\r\n"), want: "it does not speak HTTP"},
		"no word":               {url: line(""), want: "it ends the connection without an answer"},
		"half a body":           {url: line("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[topsecret"), want: "it ends the connection without an answer"},
		"a status of its own":   {url: line("HTTP/1.1 555 topsecret\r\nContent-Length: 0\r\n\r\n"), want: "it answers with status 555"},
		"a redirect to a name":  {url: line("HTTP/1.1 302 Found\r\nLocation: http://topsecret.test./\r\n\r\n"), want: "where it leads: no such host"},
		"to a file":             {url: line("HTTP/1.1 302 Found\r\nLocation: topsecret:/etc/x\r\n\r\n"), want: "it redirects to what is no http or https URL"},
		"to no URL":             {url: line("HTTP/1.1 302 Found\r\nLocation: http://%topsecret\r\n\r\n"), want: "it redirects to what is no http or https URL"},
		"to itself":             {url: line("HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /topsecret\r\n\r\n"), want: "it redirects more than 10 times"},
		"a name that is not":    {url: "http://sd.test.:81/", want: "sd.test.:81: no such host"},
		"a strange certificate": {url: secret.URL, client: "tls_config: {server_name: example.com}\n", want: "its certificate is signed by an authority that is not known"},
		"a proxy that does not": {url: secret.URL, client: "proxy_url: " + proxy + "\n", want: "the proxy answers with status 407"},
		"another name":          {url: secret.URL, client: "tls_config: {server_name: sd.test, ca: " + quoted(secret) + "}\n", want: "its certificate is for another name"},
		"no TLS":                {url: strings.Replace(good, "http:", "https:", 1), want: "it does not speak TLS"},
		"other TLS":             {url: secret.URL, client: "tls_config: {min_version: TLS10, max_version: TLS10, insecure_skip_verify: true}\n", want: "it refuses TLS: tls: protocol version not supported"},
		"a token in no JSON":    {url: good, client: "oauth2: {client_id: i, client_secret: s, token_url: '" + line("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\ntopsecret") + "'}\n", want: "the server of tokens gives none"},
		"a token in no HTTP":    {url: good, client: "oauth2: {client_id: i, client_secret: s, token_url: '" + line("topsecret\r\n") + "'}\n", want: "it does not speak HTTP"},
		"no server of tokens":   {url: good, client: "oauth2: {client_id: i, client_secret: s, token_url: 'http://" + net.JoinHostPort(ip, "1") + "'}\n", want: net.JoinHostPort(ip, "1") + ": connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			l := loop(t, Default(), Parts{Machine: dns.resolver(t)})
			_, err := ask(t, l, target.Search{URL: c.url, Client: target.Settings(c.client)})
			if err == nil || err.Error() != "ask "+c.url+": "+c.want {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// quoted is a server's certificate in YAML.
func quoted(s *httptest.Server) string {
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return strconv.Quote(string(text))
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
		"no answer": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "no answer in time"},
	} {
		t.Run(name, func(t *testing.T) {
			l := loop(t, cfg, Parts{})
			s := target.Search{URL: serve(t, ip, c.h), Every: time.Minute}
			f, err := l.open(s)
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
			if strings.Contains(c.wrong, "in time") {
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
	return whole(func(c net.Conn) {
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n"); err == nil {
			f(c)
		}
	})
}

// whole writes all of an answer.
func whole(f func(net.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		f(c)
	}
}

// TestAQuestionEndsInItsTime, whoever does not answer it: the library asks for tokens
// without its context, twice, and follows redirects.
func TestAQuestionEndsInItsTime(t *testing.T) {
	ip := outside(t)
	for name, ends := range map[string]func(ctx context.Context, asked <-chan struct{}) (context.Context, context.CancelFunc){
		"by its deadline": func(ctx context.Context, _ <-chan struct{}) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 200*time.Millisecond)
		},
		"when it is dropped": func(ctx context.Context, asked <-chan struct{}) (context.Context, context.CancelFunc) {
			ctx, stop := context.WithCancel(ctx)
			go func() { <-asked; stop() }()
			return ctx, stop
		},
	} {
		for what, client := range map[string]string{
			"a service": "{}\n",
			"a token":   "oauth2: {client_id: i, client_secret: s, token_url: '%s'}\n",
			"a name":    "oauth2: {client_id: i, client_secret: s, token_url: 'http://slow.red.svc'}\n",
		} {
			t.Run(what+" "+name, func(t *testing.T) {
				asked, hang := make(chan struct{}, 100), make(chan struct{})
				at := serve(t, ip, func(http.ResponseWriter, *http.Request) { asked <- struct{}{}; <-hang })
				t.Cleanup(func() { close(hang) }) // before the server's end
				l := loop(t, Default(), Parts{Resolve: func(ctx context.Context, host string) (string, bool, error) {
					if host != "slow.red.svc" {
						return "", false, nil
					}
					asked <- struct{}{}
					<-ctx.Done()
					return "", true, ctx.Err()
				}})
				f, err := l.open(target.Search{URL: at, Every: time.Minute, Client: target.Settings(strings.ReplaceAll(client, "%s", at))})
				if err != nil {
					t.Fatal(err)
				}
				for range 2 { // the next has its own time
					ctx, stop := ends(t.Context(), asked)
					ended := make(chan error, 1)
					go func() { _, err := f(ctx); ended <- err }()
					select {
					case err := <-ended:
						if err == nil || !strings.HasSuffix(err.Error(), ": there was no answer in time") {
							t.Errorf("%v", err)
						}
					case <-time.After(20 * time.Second): // less than the limit of one question
						t.Fatal("it does not end")
					}
					stop()
				}
			})
		}
	}
}

package prober

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func open(t *testing.T, cfg Config) *Prober {
	t.Helper()
	p, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// probe asks as a scrape does.
func probe(t *testing.T, p *Prober, ctx context.Context, ask url.Values, seconds string) (int, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/probe?"+ask.Encode(), nil)
	r.Header.Set("X-Prometheus-Scrape-Timeout-Seconds", seconds)
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// site answers at /ok, /fail, /loop, /there (redirects to /ok) and /slow.
func site(t *testing.T) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Method+" "+r.Host) })
	mux.HandleFunc("/fail", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	mux.Handle("/there", http.RedirectHandler("/ok", http.StatusFound))
	mux.Handle("/loop", http.RedirectHandler("/loop", http.StatusFound))
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	return mux
}

// names is a DNS server that knows one name.
func names(t *testing.T, network string) string {
	t.Helper()
	s := &dns.Server{Net: network, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg).SetReply(q)
		switch q.Question[0].Name {
		case "a.example.":
			rr, err := dns.NewRR("a.example. 60 IN A 192.0.2.9")
			if err != nil {
				panic("BUG: " + err.Error())
			}
			a.Answer = append(a.Answer, rr)
		case ".":
		default:
			a.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(a) // the prober asks in vain otherwise
	})}
	ready := make(chan struct{})
	s.NotifyStartedFunc = func() { close(ready) }
	var err error
	address := ""
	if network == "udp" {
		s.PacketConn, err = net.ListenPacket("udp", "127.0.0.1:0")
		if err == nil {
			address = s.PacketConn.LocalAddr().String()
		}
	} else {
		s.Listener, err = net.Listen("tcp", "127.0.0.1:0")
		if err == nil {
			address = s.Listener.Addr().String()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.ActivateAndServe() }()
	<-ready
	t.Cleanup(func() { _ = s.Shutdown(); <-done })
	return address
}

func TestProbes(t *testing.T) {
	plain, secure := httptest.NewServer(site(t)), httptest.NewUnstartedServer(site(t))
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of certificates that are refused
	secure.StartTLS()
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := closed.Addr().String()
	closed.Close()
	host := strings.TrimPrefix(plain.URL, "http://")
	_, port, _ := net.SplitHostPort(host)
	cfg := Default()
	cfg.Resolve = func(_ context.Context, name string) (string, bool, error) {
		if name == "gone.red.svc" {
			return "", true, errors.New("it is not there")
		}
		return "127.0.0.1", name == "shop.red.svc", nil
	}
	p := open(t, cfg)
	for name, c := range map[string]struct {
		ask     string
		seconds string
		want    []string // expressions
	}{
		"a page": {ask: "target=" + plain.URL + "/ok&module=http_2xx", want: []string{`probe_success 1`, `probe_http_status_code 200`, `probe_http_version 1.1`, `probe_http_ssl 0`, `probe_ip_protocol 4`,
			`probe_http_duration_seconds\{phase="connect"\} [0-9.e-]+`, `probe_http_redirects 0`, `probe_duration_seconds`, `probe_dns_lookup_time_seconds`}},
		"a page without scheme and module": {ask: "target=" + host + "/ok", want: []string{`probe_success 1`}},
		"a name of the cluster":            {ask: "target=http://shop.red.svc:" + port + "/ok", want: []string{`probe_success 1`}},
		"a name that the cluster lacks":    {ask: "target=http://gone.red.svc:" + port + "/ok", want: []string{`probe_success 0`, `probe_ip_protocol 0`}},
		"another status":                   {ask: "target=" + plain.URL + "/fail", want: []string{`probe_success 0`, `probe_http_status_code 418`}},
		"a redirect":                       {ask: "target=" + plain.URL + "/there", want: []string{`probe_success 1`, `probe_http_redirects 1`}},
		"redirects without end":            {ask: "target=" + plain.URL + "/loop", want: []string{`probe_success 0`, `probe_http_redirects 11`}},
		"a page that does not come":        {ask: "target=" + plain.URL + "/slow", seconds: "0.2", want: []string{`probe_success 0`, `probe_http_status_code 0`}},
		"POST":                             {ask: "target=" + plain.URL + "/ok&module=http_post_2xx", want: []string{`probe_success 1`, `probe_http_content_length 2\d`}},
		"a certificate of nobody":          {ask: "target=" + secure.URL + "/ok", want: []string{`probe_success 0`}},
		"any certificate":                  {ask: "target=" + secure.URL + "/ok&module=http_2xx_insecure", want: []string{`probe_success 1`, `probe_http_ssl 1`, `probe_ssl_earliest_cert_expiry 3\.\d+e\+09`, `probe_tls_version_info\{version="TLS 1.3"\} 1`}},
		"a target that is no URL":          {ask: "target=ftp://x", want: []string{`probe_success 0`}},
		"a port":                           {ask: "module=tcp_connect&target=" + host, want: []string{`probe_success 1`, `probe_ip_protocol 4`}},
		"a port where nobody is":           {ask: "module=tcp_connect&target=" + gone, want: []string{`probe_success 0`}},
		"a port without number":            {ask: "module=tcp_connect&target=127.0.0.1", want: []string{`probe_success 0`}},
		"TLS with a certificate of nobody": {ask: "module=tls_connect&target=" + strings.TrimPrefix(secure.URL, "https://"), want: []string{`probe_success 0`}},
		"a name by UDP":                    {ask: "module=dns_udp&query=a.example&target=" + names(t, "udp"), want: []string{`probe_success 1`, `probe_dns_answer_rrs 1`, `probe_dns_query_succeeded 1`, `probe_dns_duration_seconds\{phase="request"\} [0-9.e-]+`}},
		"a name by TCP":                    {ask: "module=dns_tcp&query=a.example.&type=a&target=" + names(t, "tcp"), want: []string{`probe_success 1`, `probe_dns_answer_rrs 1`}},
		"a name that is not there":         {ask: "module=dns_udp&query=b.example&target=" + names(t, "udp"), want: []string{`probe_success 0`, `probe_dns_query_succeeded 1`}},
		"the root":                         {ask: "module=dns_udp&target=" + names(t, "udp"), want: []string{`probe_success 1`, `probe_dns_answer_rrs 0`}},
		"a server that is not there":       {ask: "module=dns_tcp&target=" + gone, want: []string{`probe_success 0`}},
		"a type that is none":              {ask: "module=dns_udp&type=zzz&target=" + gone, want: []string{`probe_success 0`}},
	} {
		t.Run(name, func(t *testing.T) {
			ask, err := url.ParseQuery(c.ask)
			if err != nil {
				t.Fatal(err)
			}
			seconds := c.seconds
			if seconds == "" {
				seconds = "20"
			}
			code, text := probe(t, p, t.Context(), ask, seconds)
			if code != http.StatusOK {
				t.Fatalf("%d: %s", code, text)
			}
			for _, w := range c.want {
				if !regexp.MustCompile("(?m)^" + w).MatchString(text) {
					t.Errorf("no %s in\n%s", w, text)
				}
			}
		})
	}
}

func TestPing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("raw sockets need root")
	}
	p := open(t, Default())
	for target, want := range map[string]string{"127.0.0.1": "probe_success 1", "::1": "probe_success 1", "nobody.invalid": "probe_success 0"} {
		if _, text := probe(t, p, t.Context(), url.Values{"module": {"icmp"}, "target": {target}}, "20"); !strings.Contains(text, want) {
			t.Errorf("%s: no %s in\n%s", target, want, text)
		}
	}
	e, err := openEcho(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	defer e.conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer e.endWith(ctx)()
	cancel()
	for err == nil { // questions of others pass here too
		_, _, err = e.read(make([]byte, 1500))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("who no longer waits reads %v", err)
	}
}

func TestWhatMayNotBeAskedIsNot(t *testing.T) {
	asked := false
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	t.Cleanup(s.Close)
	cfg := Default()
	cfg.Open = func(ip netip.Addr) bool { return !ip.IsLoopback() }
	cfg.Resolve = func(_ context.Context, name string) (string, bool, error) {
		return "127.0.0.1", name == "me.red.svc", nil
	}
	p := open(t, cfg)
	host := strings.TrimPrefix(s.URL, "http://")
	_, port, _ := net.SplitHostPort(host)
	for _, ask := range []url.Values{
		{"target": {s.URL}}, {"target": {"http://me.red.svc:" + port}}, {"target": {host}, "module": {"tcp_connect"}},
		{"target": {host}, "module": {"tls_connect"}}, {"target": {host}, "module": {"dns_tcp"}}, {"target": {"127.0.0.1"}, "module": {"icmp"}},
		{"target": {"http://[::ffff:127.0.0.1]:" + port}}, {"target": {"http://localhost:" + port}},
	} {
		if _, text := probe(t, p, t.Context(), ask, "20"); !strings.Contains(text, "probe_success 0") || asked {
			t.Errorf("%v was asked:\n%s", ask, text)
		}
	}
}

func TestARedirectDoesNotLeadWhereNobodyMayAsk(t *testing.T) {
	asked := false
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	t.Cleanup(inner.Close)
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(inner.URL, "http://"))
	outer := httptest.NewUnstartedServer(http.RedirectHandler("http://127.0.0.2:"+port, http.StatusFound))
	outer.Start()
	t.Cleanup(outer.Close)
	cfg := Default()
	cfg.Open = func(ip netip.Addr) bool { return ip == netip.MustParseAddr("127.0.0.1") }
	if _, text := probe(t, open(t, cfg), t.Context(), url.Values{"target": {outer.URL}}, "20"); !strings.Contains(text, "probe_success 0") || asked {
		t.Errorf("the redirect was followed:\n%s", text)
	}
}

func TestTooManyAtOnceAreRefused(t *testing.T) {
	s := httptest.NewServer(site(t))
	t.Cleanup(s.Close)
	cfg := Default()
	cfg.AtOnce = 1
	p := open(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan string)
	go func() {
		_, text := probe(t, p, ctx, url.Values{"target": {s.URL + "/slow"}}, "60")
		done <- text
	}()
	for deadline := time.Now().Add(20 * time.Second); len(p.slots) == 0; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the first probe does not run")
		}
	}
	if code, text := probe(t, p, t.Context(), url.Values{"target": {s.URL + "/ok"}}, "20"); code != http.StatusServiceUnavailable {
		t.Errorf("%d %s", code, text)
	}
	cancel()
	if text := <-done; !strings.Contains(text, "probe_success 0") {
		t.Error(text)
	}
	if testutil.ToFloat64(p.count.WithLabelValues("http_2xx", "refused")) != 1 {
		t.Error("the refusal is not counted")
	}
	for _, ask := range []url.Values{{"target": {"x"}, "module": {"smtp"}}, {"module": {"icmp"}}} {
		if code, _ := probe(t, p, t.Context(), ask, "20"); code != http.StatusBadRequest {
			t.Errorf("%v: %d", ask, code)
		}
	}
}

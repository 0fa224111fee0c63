package prober

import (
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"perch/build/debiantest"
)

// theirModules are the modules of the same names in the blackbox exporter's words.
const theirModules = `modules:
  http_2xx: {prober: http}
  http_2xx_insecure: {prober: http, http: {tls_config: {insecure_skip_verify: true}}}
  http_post_2xx: {prober: http, http: {method: POST}}
  tcp_connect: {prober: tcp}
  tls_connect: {prober: tcp, tcp: {tls: true}}
  icmp: {prober: icmp}
  dns_udp: {prober: dns, dns: {query_name: a.example, query_type: A, preferred_ip_protocol: ip4}}
  dns_tcp: {prober: dns, dns: {query_name: a.example, query_type: A, transport_protocol: tcp, preferred_ip_protocol: ip4}}
`

// blackboxExporter runs Debian's until the test ends and returns where it answers.
func blackboxExporter(t *testing.T) string {
	t.Helper()
	tool := debiantest.Tool(t, "prometheus-blackbox-exporter")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	file := filepath.Join(t.TempDir(), "blackbox.yml")
	if err := os.WriteFile(file, []byte(theirModules), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool, "--config.file="+file, "--web.listen-address="+address, "--log.level=error")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for deadline := time.Now().Add(30 * time.Second); ; {
		resp, err := http.Get("http://" + address + "/-/healthy")
		if err == nil {
			_ = resp.Body.Close()
			return address
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ofTheMoment are series whose values nobody can say twice.
var ofTheMoment = regexp.MustCompile(`^probe_.*(duration|lookup_time)_?`)

// series are those of a text by name and labels, times without their values.
func series(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		at := strings.LastIndexByte(line, ' ')
		if line == "" || line[0] == '#' || at < 0 {
			continue
		}
		name, v := line[:at], line[at+1:]
		if ofTheMoment.MatchString(name) {
			v = "some"
		}
		out[name] = v
	}
	return out
}

func TestEachModuleTellsWhatTheBlackboxExporterTells(t *testing.T) {
	plain, secure := httptest.NewServer(modified(site(t))), httptest.NewTLSServer(site(t))
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	host, address := strings.TrimPrefix(plain.URL, "http://"), blackboxExporter(t)
	p := open(t, Default())
	for name, ask := range map[string]string{
		"a page":                          "module=http_2xx&target=" + plain.URL + "/ok",
		"a redirect":                      "module=http_2xx&target=" + plain.URL + "/there",
		"another status":                  "module=http_2xx&target=" + plain.URL + "/fail",
		"a page where nobody is":          "module=http_2xx&target=http://127.0.0.1:1/",
		"a name that nobody has":          "module=tcp_connect&target=nobody.invalid:80",
		"POST":                            "module=http_post_2xx&target=" + plain.URL + "/ok",
		"any certificate":                 "module=http_2xx_insecure&target=" + secure.URL + "/ok",
		"a port":                          "module=tcp_connect&target=" + host,
		"a port where nobody is":          "module=tcp_connect&target=127.0.0.1:1",
		"a certificate of nobody":         "module=tls_connect&target=" + strings.TrimPrefix(secure.URL, "https://"),
		"an answer to a ping":             "module=icmp&target=127.0.0.1",
		"a name by UDP":                   "module=dns_udp&query=a.example&target=" + names(t, "udp"),
		"a name by TCP":                   "module=dns_tcp&query=a.example&target=" + names(t, "tcp"),
		"a name of a server that is away": "module=dns_tcp&query=a.example&target=127.0.0.1:1",
	} {
		t.Run(name, func(t *testing.T) {
			values, err := url.ParseQuery(ask)
			if err != nil {
				t.Fatal(err)
			}
			_, mine := probe(t, p, t.Context(), values, "5")
			resp, err := http.Get("http://" + address + "/probe?" + values.Encode())
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			theirs, ours := series(string(body)), series(mine)
			for _, x := range slices.Sorted(maps.Keys(theirs)) {
				if ours[x] != theirs[x] {
					t.Errorf("%s is %q, the blackbox exporter says %q", x, ours[x], theirs[x])
				}
			}
			if len(theirs) < 5 || t.Failed() {
				t.Errorf("theirs:\n%s\nours:\n%s", body, mine)
			}
		})
	}
}

// modified says when its answers were made.
func modified(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Last-Modified", "Sun, 22 Nov 2026 12:00:00 GMT")
		next.ServeHTTP(w, r)
	})
}

package daemon

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// TestNamesOfTheClusterAreFoundByItsDNS: of pods behind a headless Service, too; no
// other name is asked there.
func TestNamesOfTheClusterAreFoundByItsDNS(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	records := map[string]string{"web-0.web.red.svc.cluster.local. A": "10.42.0.5", "web.red.svc.cluster.local. A": "10.42.0.6", "six.red.svc.cluster.local. AAAA": "fd00::5"}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0") //nolint:noctx // of a test
	if err != nil {
		t.Fatal(err)
	}
	up := make(chan struct{})
	server := &dns.Server{PacketConn: udp, NotifyStartedFunc: func() { close(up) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		mu.Lock()
		defer mu.Unlock()
		one := q.Question[0]
		asked = append(asked, one.Name)
		out := new(dns.Msg).SetReply(q)
		out.Authoritative = true
		if text := records[one.Name+" "+dns.TypeToString[one.Qtype]]; text != "" {
			rr, err := dns.NewRR(one.Name + " 5 IN " + dns.TypeToString[one.Qtype] + " " + text)
			if err != nil {
				panic(err)
			}
			out.Answer = append(out.Answer, rr)
		} else if !strings.HasPrefix(one.Name, "six") && !strings.HasPrefix(one.Name, "web") {
			out.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(out)
	})}
	go func() { _ = server.ActivateAndServe() }()
	<-up
	t.Cleanup(func() { _ = server.Shutdown() })
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, udp.LocalAddr().String())
	}}
	find := knownHost(func(host string) (string, bool) { return "10.43.0.9", host == "shop.red.svc" }, resolver, "cluster.local")
	for host, want := range map[string]string{
		"shop.red.svc":                     "10.43.0.9",
		"web-0.web.red.svc.cluster.local":  "10.42.0.5",
		"Web-0.web.red.svc.Cluster.local.": "10.42.0.5",
		"web-0.web.red.svc":                "10.42.0.5",
		"web.red.svc":                      "10.42.0.6",
		"six.red.svc":                      "fd00::5",
		"gone.red.svc":                     "",
		"example.com":                      "",
		"web":                              "",
		"xcluster.local":                   "",
	} {
		ip, ours, err := find(t.Context(), host)
		if ip != want || ours != strings.Contains(strings.ToLower(host), ".svc") || (err != nil) != (ours && want == "") {
			t.Errorf("%s is %q (the cluster's %v, %v), want %q", host, ip, ours, err, want)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, name := range asked {
		if !strings.HasSuffix(name, ".svc.cluster.local.") {
			t.Errorf("the cluster's DNS was asked for %s", name)
		}
	}
}

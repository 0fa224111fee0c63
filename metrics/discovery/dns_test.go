package discovery

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"perch/metrics/target"
)

// names is a small server of DNS.
type names struct {
	mu      sync.Mutex
	records map[string][]string // by "name type"
	fails   map[string]bool     // names of which it tells nothing
	asked   []string
}

func (n *names) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	n.mu.Lock()
	defer n.mu.Unlock()
	one := q.Question[0]
	n.asked = append(n.asked, one.Name)
	out := new(dns.Msg).SetReply(q)
	out.Authoritative = true
	exists := false
	for key, texts := range n.records {
		name, kind, _ := strings.Cut(key, " ")
		exists = exists || name == one.Name
		if name == one.Name && kind == dns.TypeToString[one.Qtype] {
			for _, text := range texts {
				rr, err := dns.NewRR(name + " 5 IN " + kind + " " + text)
				if err != nil {
					panic(err)
				}
				out.Answer = append(out.Answer, rr)
			}
		}
	}
	switch {
	case n.fails[one.Name]:
		out.Rcode = dns.RcodeServerFailure
	case !exists:
		out.Rcode = dns.RcodeNameError
	}
	_, udp := w.RemoteAddr().(*net.UDPAddr)
	if udp {
		out.Truncate(512)
	}
	_ = w.WriteMsg(out)
}

// resolver asks a server of its own, over UDP and TCP at one port.
func (n *names) resolver(t *testing.T) *net.Resolver {
	t.Helper()
	var udp net.PacketConn
	var tcp net.Listener
	for deadline := time.Now().Add(10 * time.Second); tcp == nil; { // the port may be another's over TCP
		var err error
		if udp, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil { //nolint:noctx // of a test
			t.Fatal(err)
		}
		if tcp, err = net.Listen("tcp", udp.LocalAddr().String()); err != nil { //nolint:noctx // of a test
			_ = udp.Close()
			if tcp = nil; time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: n}, {Listener: tcp, Handler: n}} {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go func() { _ = s.ActivateAndServe() }()
		<-up
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, udp.LocalAddr().String())
	}}
}

func TestNamesAreFoundAsByAPodOfTheNamespace(t *testing.T) {
	cluster := &names{fails: map[string]bool{"down.red.svc.cluster.local.": true}, records: map[string][]string{
		"web.red.svc.cluster.local. A":    {"10.42.0.6", "10.42.0.5"},
		"web.blue.svc.cluster.local. A":   {"10.42.1.1"},
		"six.red.svc.cluster.local. AAAA": {"fd00::5"},
		"_m._tcp.web.red.svc.cluster.local. SRV": {"0 50 9100 web-1.web.red.svc.cluster.local.",
			"0 50 9100 web-0.web.red.svc.cluster.local."},
	}}
	many := make([]string, 60)
	for i := range many {
		many[i] = net.IPv4(10, 9, 0, byte(i+1)).String()
	}
	machine := &names{fails: map[string]bool{"broken.test.": true}, records: map[string][]string{
		"db.test. A": {"192.0.2.1"}, "mail.test. MX": {"10 mx.test."}, "zone.test. NS": {"ns.test."}, "many.test. A": many,
		"web.red.svc.cluster.local. A": {"192.0.2.66"}, // whoever answers for the cluster's names
	}}
	// Its list of names to search for is the machine's own, so names have a dot at their end where the machine is asked.
	l := loop(t, Default(), Parts{Cluster: cluster.resolver(t), Domain: "cluster.local", Machine: machine.resolver(t)})
	for name, c := range map[string]struct {
		kind, name string
		want       string // targets, or ! and the reason
		note       string
		labels     map[string]string
	}{
		"a Service, whole":       {kind: "A", name: "web.red.svc.cluster.local", want: "10.42.0.5:9,10.42.0.6:9", labels: map[string]string{"__meta_dns_name": "web.red.svc.cluster.local"}},
		"with a dot at the end":  {kind: "A", name: "Web.red.svc.Cluster.local.", want: "10.42.0.5:9,10.42.0.6:9"},
		"in the own namespace":   {kind: "A", name: "web", want: "10.42.0.5:9,10.42.0.6:9"},
		"in another":             {kind: "A", name: "web.blue", want: "10.42.1.1:9"},
		"as long as usual":       {kind: "A", name: "web.blue.svc", want: "10.42.1.1:9"},
		"IPv6":                   {kind: "AAAA", name: "six", want: "[fd00::5]:9"},
		"of the other family":    {kind: "AAAA", name: "web.red.svc.cluster.local", note: "no record of type AAAA"},
		"a port of a Service":    {kind: "SRV", name: "_m._tcp.web.red.svc.cluster.local", want: "web-0.web.red.svc.cluster.local:9100,web-1.web.red.svc.cluster.local:9100", labels: map[string]string{"__meta_dns_srv_record_target": "web-0.web.red.svc.cluster.local.", "__meta_dns_srv_record_port": "9100"}},
		"a name of elsewhere":    {kind: "A", name: "db.test.", want: "192.0.2.1:9"},
		"without a dot":          {kind: "A", name: "db.test", want: "192.0.2.1:9"},
		"more than one packet":   {kind: "A", name: "many.test.", want: "10.9.0.10:9,"},
		"mail":                   {kind: "MX", name: "mail.test.", want: "mx.test:9", labels: map[string]string{"__meta_dns_mx_record_target": "mx.test."}},
		"a zone":                 {kind: "NS", name: "zone.test.", want: "ns.test:9", labels: map[string]string{"__meta_dns_ns_record_target": "ns.test."}},
		"no such name":           {kind: "A", name: "gone.red.svc.cluster.local", note: "gone.red.svc.cluster.local has no record of type A"},
		"no such name elsewhere": {kind: "SRV", name: "gone.test.", note: "gone.test. has no record of type SRV"},
		"the cluster's fails":    {kind: "A", name: "down.red.svc.cluster.local", want: "!the cluster's DNS does not answer for down.red.svc.cluster.local.: server misbehaving"},
		"the machine's fails":    {kind: "A", name: "broken.test.", want: "!the machine's resolver does not answer for broken.test.: server misbehaving"},
		"no name at all":         {kind: "A", name: strings.Repeat("x", 70) + ".test.", note: "has no record"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ask(t, l, target.Search{Namespace: "red", Name: c.name, Type: c.kind, Port: 9})
			var all []string
			for _, g := range got.groups {
				all = append(all, g.Targets...)
			}
			text := strings.Join(all, ",")
			if err != nil {
				text = "!" + err.Error()
			}
			if c.note != "" && !strings.Contains(got.note, c.note) || c.note == "" && got.note != "" {
				t.Errorf("note %q, want %q", got.note, c.note)
			}
			if c.kind == "A" && strings.HasPrefix(c.name, "many") {
				if len(all) != 60 || !strings.HasPrefix(text, "10.9.0.10:9,") && !strings.HasPrefix(text, "10.9.0.1:9,") {
					t.Fatalf("%d: %s", len(all), text)
				}
				return
			}
			if text != c.want {
				t.Fatalf("%q, want %q", text, c.want)
			}
			for k, v := range c.labels {
				if got.groups[0].Labels[k] != v {
					t.Errorf("labels %v, want %v", got.groups[0].Labels, c.labels)
				}
			}
			if len(got.groups) > 0 && got.bytes == 0 {
				t.Error("it costs nothing to keep")
			}
		})
	}
	machine.mu.Lock()
	defer machine.mu.Unlock()
	for _, n := range machine.asked {
		if strings.HasSuffix(n, "cluster.local.") {
			t.Errorf("the machine's resolver was asked for %s", n)
		}
	}
}

// TestAnAnswerToALaterQuestionDoesNotStandForOneThatIsMissing: while the cluster's DNS
// is not there, a name of it must not become one of elsewhere.
func TestAnAnswerToALaterQuestionDoesNotStandForOneThatIsMissing(t *testing.T) {
	const first, second = "web.shop.red.svc.cluster.local.", "web.shop.svc.cluster.local."
	cluster := &names{fails: map[string]bool{}, records: map[string][]string{}}
	machine := &names{records: map[string][]string{"web.shop. A": {"192.0.2.66"}}}
	l := loop(t, Default(), Parts{Cluster: cluster.resolver(t), Domain: "cluster.local", Machine: machine.resolver(t)})
	s := target.Search{Namespace: "red", Name: "web.shop", Type: "A", Port: 9}
	for _, c := range []struct {
		fails   string
		records map[string][]string
		want    string // target or ! and the reason
	}{
		{"", nil, "192.0.2.66:9"},
		{second, nil, "!the cluster's DNS does not answer for " + second + ": server misbehaving"},
		{first, map[string][]string{second + " A": {"10.42.0.1"}}, "!the cluster's DNS does not answer for " + first},
		{"", map[string][]string{second + " A": {"10.42.0.1"}}, "10.42.0.1:9"},
	} {
		cluster.mu.Lock()
		cluster.fails, cluster.records = map[string]bool{c.fails: true}, c.records
		cluster.mu.Unlock()
		got, err := ask(t, l, s)
		text := ""
		if err != nil {
			text = "!" + err.Error()
		} else if len(got.groups) > 0 {
			text = got.groups[0].Targets[0]
		}
		if !strings.HasPrefix(text, c.want) {
			t.Errorf("%+v: %q", c, text)
		}
	}
}

// TestAServerOfNamesThatIsNotThereIsToldTheSameEachTime: the library's text has a port
// in it that is another one each time.
func TestAServerOfNamesThatIsNotThereIsToldTheSameEachTime(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		gone := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, "127.0.0.1:1")
		}}
		l := loop(t, Default(), Parts{Machine: gone})
		_, err := ask(t, l, target.Search{Namespace: "red", Name: "db.test.", Type: "A", Port: 9})
		if err == nil || err.Error() != "the machine's resolver does not answer for db.test.: the server of names refuses the connection" {
			t.Errorf("%s: %v", network, err)
		}
	}
}

func TestWithoutTheClustersDNSTheMachineIsAskedForAll(t *testing.T) {
	machine := &names{records: map[string][]string{"web.red.svc.cluster.local. A": {"192.0.2.66"}}}
	l := loop(t, Default(), Parts{Machine: machine.resolver(t)})
	got, err := ask(t, l, target.Search{Namespace: "red", Name: "web.red.svc.cluster.local.", Type: "A", Port: 9})
	if err != nil || len(got.groups) != 1 || got.groups[0].Targets[0] != "192.0.2.66:9" {
		t.Errorf("%+v, %v", got, err)
	}
}

package dns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fakeAPI lists and watches a fixed set of objects, in JSON, as an API server does.
type fakeAPI struct {
	mu      sync.Mutex
	objects map[string][]runtime.Object // by the last word of the path
	added   chan struct{}               // closed and replaced when objects come
}

func (f *fakeAPI) add(resource string, o runtime.Object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.objects[resource] = append(f.objects[resource], o)
	close(f.added)
	f.added = make(chan struct{})
}

func (f *fakeAPI) get(resource string) ([]runtime.Object, chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.objects[resource]), f.added
}

func kindOf(resource string) (version, kind string) {
	switch resource {
	case "services":
		return "v1", "Service"
	case "namespaces":
		return "v1", "Namespace"
	}
	return "discovery.k8s.io/v1", "EndpointSlice"
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	resource := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	version, kind := kindOf(resource)
	w.Header().Set("Content-Type", "application/json")
	all, added := f.get(resource)
	if r.URL.Query().Get("watch") == "" {
		_ = json.NewEncoder(w).Encode(map[string]any{"apiVersion": version, "kind": kind + "List", "metadata": map[string]any{"resourceVersion": "1"}, "items": all})
		return
	}
	send := func(kind string, o any) {
		_ = json.NewEncoder(w).Encode(map[string]any{"type": kind, "object": o})
		w.(http.Flusher).Flush()
	}
	sent := len(all)
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		for _, o := range all {
			send("ADDED", o)
		}
		send("BOOKMARK", map[string]any{"apiVersion": version, "kind": kind, "metadata": map[string]any{
			"resourceVersion": "1", "annotations": map[string]string{"k8s.io/initial-events-end": "true"}}})
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case <-added:
			all, added = f.get(resource)
			for ; sent < len(all); sent++ {
				send("ADDED", all[sent])
			}
		}
	}
}

func ptr[T any](v T) *T { return &v }

func meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "app", Name: name, ResourceVersion: "1", UID: "u"}
}

func service(name, ip string) *corev1.Service {
	return &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: meta(name),
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip},
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}}}}
}

func cluster() *fakeAPI {
	external := service("docs", "")
	external.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "www.example.org"}
	slice := &discoveryv1.EndpointSlice{TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"}, ObjectMeta: meta("db-x"),
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr("http"), Protocol: ptr(corev1.ProtocolTCP), Port: ptr(int32(80))}},
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.42.0.5"}, Hostname: ptr("db-0"), Conditions: discoveryv1.EndpointConditions{Ready: ptr(true)}},
			{Addresses: []string{"10.42.1.5"}, Hostname: ptr("db-1"), Conditions: discoveryv1.EndpointConditions{Ready: ptr(true)}},
		}}
	slice.Labels = map[string]string{discoveryv1.LabelServiceName: "db"}
	ns := &corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: "app", ResourceVersion: "1"}}
	return &fakeAPI{added: make(chan struct{}), objects: map[string][]runtime.Object{
		"services": {service("web", "10.43.0.7"), service("db", "None"), external}, "endpointslices": {slice}, "namespaces": {ns},
	}}
}

// upstream is a resolver that knows www.example.org.
func upstream(t *testing.T) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.53:0")
	must(t, err)
	ln, err := net.Listen("tcp", pc.LocalAddr().String())
	must(t, err)
	answer := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		if q.Question[0].Name == "www.example.org." && q.Question[0].Qtype == dns.TypeA {
			rr, _ := dns.NewRR("www.example.org. 60 IN A 192.0.2.80") // a constant
			m.Answer = append(m.Answer, rr)
		} else {
			m.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(m) // the client asks again
	})
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: answer}, {Listener: ln, Handler: answer}} {
		go func() { _ = s.ActivateAndServe() }()
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return pc.LocalAddr().String()
}

// configFor is what a server needs to speak to an API.
func configFor(t *testing.T, api http.Handler) Config {
	t.Helper()
	door := httptest.NewServer(api)
	t.Cleanup(func() { door.CloseClientConnections(); door.Close() })
	dir := t.TempDir()
	cfg := Default()
	cfg.Kubeconfig = filepath.Join(dir, "kubeconfig")
	must(t, os.WriteFile(cfg.Kubeconfig, []byte(fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c",
		"clusters":[{"name":"c","cluster":{"server":%q}}],"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],"users":[{"name":"u","user":{}}]}`, door.URL)), 0o600))
	cfg.ResolvConf = filepath.Join(dir, "resolv.conf")
	must(t, os.WriteFile(cfg.ResolvConf, nil, 0o600))
	return cfg
}

// run starts a server for the cluster and returns its address.
func run(t *testing.T, api http.Handler, resolvers ...string) (*Server, string) {
	t.Helper()
	sockets, err := Listen(freePort(t))
	must(t, err)
	s, _ := runOn(t, configFor(t, api), sockets, resolvers...)
	return s, sockets.Address().String()
}

// runOn starts a server on given sockets; stop, which the test's end calls too,
// waits for its end.
func runOn(t *testing.T, cfg Config, sockets Sockets, resolvers ...string) (_ *Server, stop func()) {
	t.Helper()
	s, err := New(cfg, sockets, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	must(t, err)
	s.resolvers.mu.Lock()
	var servers []netip.AddrPort
	for _, r := range resolvers { // tests cannot have port 53
		servers = append(servers, netip.MustParseAddrPort(r))
	}
	s.resolvers.swap(servers)
	s.resolvers.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(stop)
	return s, stop
}

func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	return netip.MustParseAddrPort(l.Addr().String())
}

// ask returns the answer as "RCODE: value value".
func ask(t *testing.T, network, server, name string, kind uint16) string {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(name, kind)
	m, _, err := (&dns.Client{Net: network, Timeout: 2 * time.Second}).Exchange(q, server)
	if err != nil {
		return err.Error()
	}
	var values []string
	for _, rr := range m.Answer {
		switch v := rr.(type) {
		case *dns.A:
			values = append(values, v.A.String())
		case *dns.CNAME:
			values = append(values, "cname "+v.Target)
		case *dns.PTR:
			values = append(values, v.Ptr)
		case *dns.SRV:
			values = append(values, fmt.Sprintf("%s %d", v.Target, v.Port))
		}
	}
	slices.Sort(values)
	return strings.TrimSpace(dns.RcodeToString[m.Rcode] + " " + strings.Join(values, " "))
}

// eventually repeats a question until the answer is right.
func eventually(t *testing.T, server, name string, kind uint16, want string) {
	t.Helper()
	limit := time.Now().Add(time.Minute)
	for {
		got := ask(t, "udp", server, name, kind)
		if got == want {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%s = %q, want %q", name, got, want)
		}
	}
}

// synced waits until the cluster's names are known.
func synced(t *testing.T, s *Server) {
	t.Helper()
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !s.Synced() {
		select {
		case <-limit.C:
			t.Fatal("the cluster's names are still not known")
		case <-look.C:
		}
	}
}

func TestNames(t *testing.T) {
	api := cluster()
	s, server := run(t, api, upstream(t))
	synced(t, s) // of each kind the objects come when they come
	for _, c := range []struct {
		what, name string
		kind       uint16
		want       string
	}{
		{"a Service has its address", "web.app.svc.cluster.local.", dns.TypeA, "NOERROR 10.43.0.7"},
		{"case does not matter", "WEB.app.SVC.cluster.local.", dns.TypeA, "NOERROR 10.43.0.7"},
		{"an IPv4 Service has no IPv6 address, but it exists", "web.app.svc.cluster.local.", dns.TypeAAAA, "NOERROR"},
		{"a named port has a SRV record", "_http._tcp.web.app.svc.cluster.local.", dns.TypeSRV, "NOERROR web.app.svc.cluster.local. 80"},
		{"a headless Service has all endpoints", "db.app.svc.cluster.local.", dns.TypeA, "NOERROR 10.42.0.5 10.42.1.5"},
		{"an endpoint with a hostname has a name of its own", "db-1.db.app.svc.cluster.local.", dns.TypeA, "NOERROR 10.42.1.5"},
		{"a headless SRV names the endpoints", "_http._tcp.db.app.svc.cluster.local.", dns.TypeSRV, "NOERROR db-0.db.app.svc.cluster.local. 80 db-1.db.app.svc.cluster.local. 80"},
		{"a pod has a name made of its address", "10-42-0-5.app.pod.cluster.local.", dns.TypeA, "NOERROR 10.42.0.5"},
		{"a Service's address has a name", "7.0.43.10.in-addr.arpa.", dns.TypePTR, "NOERROR web.app.svc.cluster.local."},
		{"an endpoint's address has a name", "5.0.42.10.in-addr.arpa.", dns.TypePTR, "NOERROR db-0.db.app.svc.cluster.local."},
		{"an external name is followed", "docs.app.svc.cluster.local.", dns.TypeA, "NOERROR 192.0.2.80 cname www.example.org."},
		{"a name outside the cluster goes to the machine's resolver", "www.example.org.", dns.TypeA, "NOERROR 192.0.2.80"},
		{"what does not exist does not exist", "nobody.app.svc.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"nor in another namespace", "web.other.svc.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"nor outside", "nobody.example.org.", dns.TypeA, "NXDOMAIN"},
		{"nor an address of nobody", "9.9.9.9.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			if got := ask(t, network, server, c.name, c.kind); got != c.want {
				t.Errorf("%s (%s): %s = %q, want %q", c.what, network, c.name, got, c.want)
			}
		}
	}
	api.add("services", service("late", "10.43.0.9"))
	eventually(t, server, "late.app.svc.cluster.local.", dns.TypeA, "NOERROR 10.43.0.9")
	if got := counted(t, "dns://"+server, "cluster.local."); got < 20 {
		t.Errorf("CoreDNS' own series count %g questions about the cluster", got)
	}
}

// counted is coredns_dns_requests_total of a server and zone.
func counted(t *testing.T, server, zone string) (sum float64) {
	t.Helper()
	families, err := Library().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "coredns_dns_requests_total" {
			continue
		}
		for _, m := range f.Metric {
			has := map[string]string{}
			for _, l := range m.Label {
				has[l.GetName()] = l.GetValue()
			}
			if has["server"] == server && has["zone"] == zone {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func TestWithoutAPITheAnswerIsServfailAfterPatienceAndWithoutResolverAtOnce(t *testing.T) {
	sockets, err := Listen(freePort(t))
	must(t, err)
	cfg, server := configFor(t, http.NotFoundHandler()), sockets.Address().String()
	cfg.Patience = 300 * time.Millisecond
	s, _ := runOn(t, cfg, sockets)
	start := time.Now()
	if got := ask(t, "udp", server, "web.app.svc.cluster.local.", dns.TypeA); got != "SERVFAIL" || time.Since(start) < cfg.Patience {
		t.Errorf("cluster name = %q after %v", got, time.Since(start))
	}
	start = time.Now()
	if got := ask(t, "udp", server, "www.example.org.", dns.TypeA); got != "SERVFAIL" || time.Since(start) > 20*time.Second {
		t.Errorf("outside name = %q after %v", got, time.Since(start))
	}
	if s.Synced() {
		t.Error("synced without an API")
	}
}

// later is an API that answers only after open.
type later struct {
	api  http.Handler
	open chan struct{}
}

func (l later) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-l.open:
		l.api.ServeHTTP(w, r)
	case <-r.Context().Done():
	}
}

func TestAQuestionBeforeTheFirstSyncWaitsForItAndOneForTheWorldDoesNot(t *testing.T) {
	api := later{cluster(), make(chan struct{})}
	s, server := run(t, api, upstream(t))
	got := make(chan string, 1)
	go func() { got <- ask(t, "udp", server, "web.app.svc.cluster.local.", dns.TypeA) }()
	limit := time.Now().Add(time.Minute)
	for testutil.ToFloat64(s.metrics.waited) == 0 {
		if time.Now().After(limit) {
			t.Fatal("the question does not wait")
		}
		if world := ask(t, "udp", server, "www.example.org.", dns.TypeA); world != "NOERROR 192.0.2.80" {
			t.Fatalf("a name of the world = %q", world)
		}
	}
	close(api.open)
	if got := <-got; got != "NOERROR 10.43.0.7" {
		t.Errorf("the cluster's name = %q", got)
	}
}

func TestQuestionsAskedWhileNoServerRunsAreAnsweredByTheNext(t *testing.T) {
	api := cluster()
	cfg := configFor(t, api)
	sockets, err := Listen(freePort(t))
	must(t, err)
	server := sockets.Address().String()
	udp, tcp, err := sockets.Files()
	must(t, err)
	first, stop := runOn(t, cfg, sockets)
	synced(t, first)
	stop()
	got := make(chan string, 20)
	var asked sync.WaitGroup
	for i := range cap(got) {
		network := []string{"udp", "tcp"}[i%2]
		c, err := (&dns.Client{Net: network}).Dial(server)
		must(t, err)
		t.Cleanup(func() { _ = c.Close() })
		q := new(dns.Msg)
		q.SetQuestion("web.app.svc.cluster.local.", dns.TypeA)
		must(t, c.WriteMsg(q))
		asked.Go(func() {
			_ = c.SetReadDeadline(time.Now().Add(time.Minute)) // else the read below fails
			m, err := c.ReadMsg()
			if err != nil || len(m.Answer) != 1 {
				got <- fmt.Sprintf("%s: %v, %v", network, m, err)
			}
		})
	}
	again, err := FromFiles(udp, tcp)
	must(t, err)
	if again.Address().String() != server {
		t.Errorf("taken over at %s, opened at %s", again.Address(), server)
	}
	runOn(t, cfg, again)
	asked.Wait()
	close(got)
	for problem := range got {
		t.Error(problem)
	}
}

func TestTheKernelCountsQuestionsForWhichThereIsNoRoom(t *testing.T) {
	sockets, err := Listen(freePort(t))
	must(t, err)
	defer func() { _ = sockets.Close() }()
	must(t, sockets.udp.SetReadBuffer(1)) // the kernel makes it a few kB
	c, err := net.Dial("udp", sockets.Address().String())
	must(t, err)
	defer func() { _ = c.Close() }()
	for range 1000 {
		_, err := c.Write([]byte("a question"))
		must(t, err)
	}
	if n := sockets.dropped(); n < 900 || n > 1000 {
		t.Errorf("%v of 1000 were dropped", n)
	}
}

func TestTwoServersLiveInOneProcess(t *testing.T) {
	one, two := cluster(), cluster()
	one.objects["services"] = append(one.objects["services"], service("only", "10.43.0.1"))
	two.objects["services"] = append(two.objects["services"], service("only", "10.43.0.2"))
	_, a := run(t, one)
	_, b := run(t, two)
	eventually(t, a, "only.app.svc.cluster.local.", dns.TypeA, "NOERROR 10.43.0.1")
	eventually(t, b, "only.app.svc.cluster.local.", dns.TypeA, "NOERROR 10.43.0.2")
}

func TestListenTakesAnAddressThatComesLaterAndFindsOneInUse(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.201:5353")
	s, err := Listen(at)
	must(t, err)
	if _, err := Listen(at); err == nil || !strings.Contains(err.Error(), "192.0.2.201:5353") {
		t.Errorf("second Listen = %v, want an error with the address", err)
	}
	must(t, s.Close())
}

func TestFilesThatAreNoPairAreRefused(t *testing.T) {
	a, err := Listen(freePort(t))
	must(t, err)
	b, err := Listen(freePort(t))
	must(t, err)
	udp, rest, err := a.Files()
	must(t, err)
	more, tcp, err := b.Files()
	must(t, err)
	must(t, errors.Join(rest.Close(), more.Close(), a.Close(), b.Close()))
	if _, err := FromFiles(udp, tcp); err == nil || !strings.Contains(err.Error(), "no pair") {
		t.Errorf("got %v", err)
	}
	file, err := os.Open(os.DevNull)
	must(t, err)
	other, err := os.Open(os.DevNull)
	must(t, err)
	if _, err := FromFiles(file, other); err == nil {
		t.Error("files that are no sockets were taken")
	}
}

func TestResolversFollowTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	r := &resolvers{path: path, own: []netip.Addr{netip.MustParseAddr("10.42.0.1")}}
	t.Cleanup(r.close)
	for i, c := range []struct {
		text    string
		want    string
		changed bool
	}{
		{"nameserver 192.0.2.53\nsearch x\n", "[192.0.2.53:53]", true},
		{"nameserver 192.0.2.53\nsearch x\n", "[192.0.2.53:53]", false},
		{"nameserver 10.42.0.1\n", "[]", true},
	} {
		must(t, os.WriteFile(path, []byte(c.text), 0o600))
		got, changed, err := r.reread()
		if err != nil || fmt.Sprint(got) != c.want || changed != c.changed || (r.forward != nil) != (c.want != "[]") {
			t.Errorf("step %d: %v %v %v", i, got, changed, err)
		}
	}
}

func TestConfigNamesEveryProblem(t *testing.T) {
	err := Config{Domain: "a b", TTL: -1, Patience: time.Minute}.Validate()
	for _, want := range []string{"patience", "domain", "kubeconfig", "resolv.conf", "ttl"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate = %v; want it to name %q", err, want)
		}
	}
}

func FuzzUpstreams(f *testing.F) {
	f.Add("nameserver 10.0.0.1\nnameserver ::1\noptions ndots:5\nsearch a b\n")
	f.Add("nameserver 10.43.0.10\nnameserver 0.0.0.0\nnameserver ::ffff:10.43.0.10\nnameserver fe80::1%eth0\n")
	own := netip.MustParseAddr("10.43.0.10")
	f.Fuzz(func(t *testing.T, text string) {
		got := upstreams(text, own)
		if len(got) > maxUpstreams {
			t.Errorf("%d resolvers", len(got))
		}
		for _, a := range got {
			if a.Addr() == own || a.Addr().IsUnspecified() || a.Port() != 53 {
				t.Errorf("resolver %s", a)
			}
		}
	})
}

// Any text that Validate lets through must be text that the plugin understands as intended.
func FuzzConfig(f *testing.F) {
	f.Add("cluster.local", "/etc/k")
	f.Add("x { } ", `/a" }`)
	f.Add("env.{$HOME}", "/a{%b%}")
	f.Fuzz(func(t *testing.T, domain, kubeconfig string) {
		c := Default()
		c.Domain, c.Kubeconfig = domain, kubeconfig
		if c.Validate() != nil {
			return
		}
		k, err := newKubernetes(c)
		if err != nil {
			return // refused with a reason
		}
		if len(k.Zones) != 3 || k.Zones[0] != strings.ToLower(dns.Fqdn(domain)) {
			t.Errorf("domain %q became zones %q", domain, k.Zones)
		}
	})
}

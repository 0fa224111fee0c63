package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// world is a node with two pods, a pod of another node, and an outside client,
// each in a network namespace that ends with the test.
type world struct {
	t      testing.TB
	spaces map[string]netns.NsHandle
	source *fakeSource
}

const (
	pod1, pod2, far  = "10.42.0.2", "10.42.0.3", "10.42.1.2"
	nodeIP, clientIP = "192.168.77.1", "192.168.77.2"
	serviceIP        = "10.43.0.7"
)

func newWorld(t testing.TB) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	w := &world{t: t, spaces: map[string]netns.NsHandle{}, source: &fakeSource{changed: make(chan struct{}, 1)}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends here, in the last namespace made
		for _, name := range []string{"node", "pod1", "pod2", "far", "client"} {
			h, err := netns.New()
			if err != nil {
				t.Errorf("make netns: %v", err)
				return
			}
			w.spaces[name] = h
			up("lo")
		}
	}()
	<-done
	if t.Failed() {
		t.FailNow()
	}
	t.Cleanup(func() {
		for _, h := range w.spaces {
			_ = h.Close()
		}
	})
	w.wire("pod1", pod1, "169.254.1.1")
	w.wire("pod2", pod2, "169.254.1.1")
	w.wire("far", far, "192.168.78.1")
	w.wire("client", clientIP, nodeIP)
	w.in("node", func() {
		must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
		must(t, os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("1"), 0)) // the strictest machine
		lo, err := netlink.LinkByName("lo")
		must(t, err)
		must(t, netlink.AddrAdd(lo, &netlink.Addr{IPNet: cidr("10.42.0.1/32")}))
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: cidr("10.43.0.0/16"), Src: net.ParseIP("10.42.0.1"), MTU: 1400}))
		client, err := netlink.LinkByName("v-client")
		must(t, err)
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: client.Attrs().Index, Dst: cidr("192.168.77.0/24"), Scope: netlink.SCOPE_LINK}))
	})
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func cidr(s string) *net.IPNet {
	ip, n, err := net.ParseCIDR(s)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	n.IP = ip
	return n
}

func up(name string) {
	if l, err := netlink.LinkByName(name); err == nil {
		_ = netlink.LinkSetUp(l)
	}
}

// wire makes a routed veth between the node and another namespace.
func (w *world) wire(name, addr, gateway string) {
	w.t.Helper()
	w.in("node", func() {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "v-" + name
		must(w.t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(w.spaces[name]), PeerTxQLen: -1}))
		l, err := netlink.LinkByName("v-" + name)
		must(w.t, err)
		must(w.t, netlink.AddrAdd(l, &netlink.Addr{IPNet: cidr(gateway + "/32")}))
		must(w.t, netlink.LinkSetUp(l))
		// Redirects to a pod that talks to itself would use up its share of ICMP errors.
		for _, conf := range []string{"all", "v-" + name} {
			must(w.t, os.WriteFile("/proc/sys/net/ipv4/conf/"+conf+"/send_redirects", []byte("0"), 0))
		}
	})
	w.in(name, func() {
		l, err := netlink.LinkByName("eth0")
		must(w.t, err)
		must(w.t, netlink.AddrAdd(l, &netlink.Addr{IPNet: cidr(addr + "/32")}))
		must(w.t, netlink.LinkSetUp(l))
		must(w.t, netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(gateway), Flags: int(netlink.FLAG_ONLINK)}))
	})
	w.in("node", func() {
		l, err := netlink.LinkByName("v-" + name)
		must(w.t, err)
		must(w.t, netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: cidr(addr + "/32"), Scope: netlink.SCOPE_LINK}))
	})
}

// in runs f on a thread inside a namespace. Sockets made there stay there.
func (w *world) in(name string, f func()) {
	w.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := netns.Set(w.spaces[name]); err != nil {
			w.t.Errorf("enter %s: %v", name, err)
			return
		}
		f()
	}()
	<-done
}

// serve answers TCP and UDP on port 8080 with the server's name and the client's address.
func (w *world) serve(name string) {
	w.in(name, func() {
		ln, err := net.Listen("tcp4", ":8080")
		must(w.t, err)
		addr := ":8080"
		if name == "node" {
			addr = "10.42.0.1:8080" // a reply from any other address would be lost
		}
		pc, err := net.ListenPacket("udp4", addr)
		must(w.t, err)
		w.t.Cleanup(func() { _ = ln.Close(); _ = pc.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				_, _ = fmt.Fprintf(c, "%s %s", name, host(c.RemoteAddr().String()))
				_ = c.Close()
			}
		}()
		go func() {
			b := make([]byte, 100)
			for {
				_, from, err := pc.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = pc.WriteTo([]byte(name+" "+host(from.String())), from)
			}
		}()
	})
}

func host(hostport string) string {
	h, _, _ := net.SplitHostPort(hostport)
	return h
}

// call connects from a namespace and returns "server client-address".
func (w *world) call(from, network, to string) (out string, err error) {
	w.in(from, func() {
		var c net.Conn
		if c, err = net.DialTimeout(network, to, 2*time.Second); err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		if err = c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return
		}
		if network == "udp4" {
			if _, err = c.Write([]byte("?")); err != nil {
				return
			}
			b := make([]byte, 100)
			n, e := c.Read(b)
			out, err = string(b[:n]), e
			return
		}
		b, e := io.ReadAll(c)
		out, err = string(b), e
	})
	return out, err
}

func (w *world) want(from, network, to, answer string) {
	w.t.Helper()
	got, err := w.call(from, network, to)
	if err != nil || got != answer {
		w.t.Errorf("%s → %s %s = %q, %v; want %q", from, network, to, got, err, answer)
	}
}

// refused expects a refusal, no silence until the time is over.
func (w *world) refused(from, network, to string) {
	w.t.Helper()
	got, err := w.call(from, network, to)
	// A datagram refused on the sending machine itself fails with EPERM.
	if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.EPERM) {
		w.t.Errorf("%s → %s %s = %q, %v; want a refusal", from, network, to, got, err)
	}
}

type fakeSource struct {
	changed chan struct{}

	mu   sync.Mutex
	snap Snapshot
}

func (f *fakeSource) Changed() <-chan struct{} { return f.changed }

func (f *fakeSource) Snapshot() (Snapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.snap, nil
}

func (f *fakeSource) set(s Snapshot) {
	s.Node = Node{"n1", netip.MustParsePrefix("10.42.0.0/24")}
	f.mu.Lock()
	f.snap = s
	f.mu.Unlock()
}

func testConfig() Config {
	c := Default()
	c.Cluster, c.ServiceCIDR, c.ClusterCIDR = "test", netip.MustParsePrefix("10.43.0.0/16"), netip.MustParsePrefix("10.42.0.0/16")
	return c
}

// open makes a proxy as after a start of the agent; sync runs it once in the node.
func (w *world) open() *Proxy {
	p, err := New(testConfig(), w.source, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	must(w.t, err)
	w.in("node", func() {
		c, err := openKernel()
		must(w.t, err)
		p.kernel.conn = c
		w.t.Cleanup(func() { _ = c.CloseLasting() })
	})
	return p
}

func (w *world) sync(p *Proxy, s Snapshot) {
	w.t.Helper()
	w.source.set(s)
	w.in("node", func() {
		if err := p.sync(); err != nil {
			w.t.Fatal(err)
		}
	})
}

func udpToo(s *corev1.Service) {
	s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "udp", Protocol: corev1.ProtocolUDP, Port: 80})
}

func withUDP(s *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: ptr("udp"), Protocol: ptr(corev1.ProtocolUDP), Port: s.Ports[0].Port})
	return s
}

func TestServicesOnARealKernel(t *testing.T) {
	w := newWorld(t)
	for _, s := range []string{"pod1", "pod2", "far", "node"} {
		w.serve(s)
	}
	at1, at2, atFar := endpoint{addr: pod1, node: "n1"}, endpoint{addr: pod2, node: "n1"}, endpoint{addr: far, node: "n2"}
	vip := serviceIP + ":80"
	one := func(all ...endpoint) Snapshot {
		return Snapshot{Services: []*corev1.Service{service("a", serviceIP, udpToo)}, Slices: []*discoveryv1.EndpointSlice{withUDP(slice("a", 8080, all...))}}
	}
	p := w.open()

	t.Run("a pod and the node reach a pod of the same node, TCP and UDP", func(t *testing.T) {
		w.sync(p, one(at2))
		for _, network := range []string{"tcp4", "udp4"} {
			w.want("pod1", network, vip, "pod2 "+pod1)
			w.want("node", network, vip, "pod2 10.42.0.1")
		}
	})
	t.Run("a pod of another node is reached with the pod's own address", func(t *testing.T) {
		w.sync(p, one(atFar))
		w.want("pod1", "tcp4", vip, "far "+pod1)
		w.want("pod1", "udp4", vip, "far "+pod1)
	})
	t.Run("a pod reaches itself over its Service", func(t *testing.T) {
		w.sync(p, one(at1))
		w.want("pod1", "tcp4", vip, "pod1 169.254.1.1")
		w.want("pod1", "udp4", vip, "pod1 169.254.1.1")
	})
	t.Run("connections are spread over all endpoints", func(t *testing.T) {
		w.sync(p, one(at1, at2, atFar))
		got := map[string]int{}
		for range 120 {
			answer, err := w.call("client", "tcp4", vip)
			must(t, err)
			got[strings.Fields(answer)[0]]++
		}
		for _, name := range []string{"pod1", "pod2", "far"} {
			if got[name] < 15 {
				t.Errorf("spread %v", got)
			}
		}
	})
	t.Run("no endpoint and no such port are refused at once", func(t *testing.T) {
		w.sync(p, one())
		for _, from := range []string{"pod1", "node"} {
			w.refused(from, "tcp4", vip)
			w.refused(from, "tcp4", "10.43.99.99:443")
			w.refused(from, "udp4", vip)
		}
	})
	t.Run("UDP clients leave an endpoint that is gone", func(t *testing.T) {
		w.sync(p, one(at2))
		w.in("pod1", func() {
			c, err := net.Dial("udp4", vip)
			must(t, err)
			defer func() { _ = c.Close() }()
			ask := func() string {
				must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
				_, err := c.Write([]byte("?"))
				must(t, err)
				b := make([]byte, 50)
				n, err := c.Read(b)
				must(t, err)
				return strings.Fields(string(b[:n]))[0]
			}
			if got := ask(); got != "pod2" {
				t.Errorf("answered by %s", got)
			}
			w.sync(p, one(atFar))
			if got := ask(); got != "far" {
				t.Errorf("same socket, later: answered by %s, want far", got)
			}
		})
	})
	t.Run("affinity keeps a client at its endpoint until that is gone", func(t *testing.T) {
		sticky := func(all ...endpoint) Snapshot {
			return Snapshot{Services: []*corev1.Service{service("a", serviceIP, func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP })},
				Slices: []*discoveryv1.EndpointSlice{slice("a", 8080, all...)}}
		}
		w.sync(p, sticky(at1, at2, atFar))
		first, err := w.call("client", "tcp4", vip)
		must(t, err)
		for range 30 {
			w.want("client", "tcp4", vip, first)
		}
		rest := map[string][]endpoint{"pod1": {at2, atFar}, "pod2": {at1, atFar}, "far": {at1, at2}}[strings.Fields(first)[0]]
		w.sync(p, sticky(rest...))
		second, err := w.call("client", "tcp4", vip)
		must(t, err)
		if second == first {
			t.Errorf("still %s", first)
		}
		w.sync(p, sticky(at1, at2, atFar)) // back again: the client stays where it is now
		for range 30 {
			w.want("client", "tcp4", vip, second)
		}
	})
	ports := func(policy corev1.ServiceExternalTrafficPolicy, all ...endpoint) Snapshot {
		s := one(all...)
		svc := s.Services[0]
		svc.Spec.Type, svc.Spec.ExternalTrafficPolicy = corev1.ServiceTypeNodePort, policy
		svc.Spec.Ports[0].NodePort, svc.Spec.Ports[1].NodePort = 30080, 30081
		svc.Spec.ExternalIPs = []string{"192.168.77.100"}
		return s
	}
	t.Run("a NodePort and an external address lead outside clients to pods here and elsewhere", func(t *testing.T) {
		w.sync(p, ports(corev1.ServiceExternalTrafficPolicyCluster, at1))
		for _, to := range []string{nodeIP + ":30080", "192.168.77.100:80"} {
			w.want("client", "tcp4", to, "pod1 "+clientIP)
		}
		w.want("client", "udp4", nodeIP+":30081", "pod1 "+clientIP)
		w.want("pod2", "tcp4", nodeIP+":30080", "pod1 "+pod2)
		w.want("pod1", "tcp4", nodeIP+":30080", "pod1 169.254.1.1")
		w.want("node", "tcp4", nodeIP+":30080", "pod1 "+nodeIP)
		w.sync(p, ports(corev1.ServiceExternalTrafficPolicyCluster, atFar))
		w.want("client", "tcp4", nodeIP+":30080", "far 192.168.78.1")
		w.want("client", "tcp4", "192.168.77.100:80", "far 192.168.78.1")
		w.sync(p, ports(corev1.ServiceExternalTrafficPolicyCluster))
		w.refused("client", "tcp4", nodeIP+":30080")
		w.refused("client", "tcp4", "192.168.77.100:80")
	})
	t.Run("external policy Local keeps outside clients here and drops them when there is nothing here", func(t *testing.T) {
		w.sync(p, ports(corev1.ServiceExternalTrafficPolicyLocal, at1, atFar))
		for range 20 {
			w.want("client", "tcp4", nodeIP+":30080", "pod1 "+clientIP)
		}
		w.sync(p, ports(corev1.ServiceExternalTrafficPolicyLocal, atFar))
		w.want("pod1", "tcp4", nodeIP+":30080", "far 192.168.78.1")
		if got, err := w.call("client", "tcp4", nodeIP+":30080"); err == nil {
			t.Errorf("answered %q, want a drop", got)
		}
	})
	t.Run("a static entry leads to the node itself", func(t *testing.T) {
		s := Snapshot{Static: []Static{{netip.MustParseAddrPort("10.43.0.10:53"), netip.MustParseAddrPort("10.42.0.1:8080"), corev1.ProtocolUDP}}}
		w.sync(p, s)
		w.want("pod1", "udp4", "10.43.0.10:53", "node "+pod1)
		w.want("node", "udp4", "10.43.0.10:53", "node 10.42.0.1")
	})
	t.Run("a host port leads to its pod", func(t *testing.T) {
		pod := hostPort("web", "n1", pod1, corev1.PodRunning)
		pod.Spec.Containers[0].Ports[0].ContainerPort = 8080
		pod.Spec.Containers[0].Ports[0].HostPort = 8888
		w.sync(p, Snapshot{Pods: []*corev1.Pod{pod}})
		w.want("client", "tcp4", nodeIP+":8888", "pod1 "+clientIP)
	})
	t.Run("the next agent finds the table and serves on", func(t *testing.T) {
		w.sync(p, one(at2))
		next := w.open()
		w.in("node", func() {
			must(t, next.know(Node{"n1", netip.MustParsePrefix("10.42.0.0/24")}))
		})
		if d := diff(next.have, p.have); !d.empty() || len(next.have) == 0 {
			t.Errorf("the next agent reads %v, the last wrote %v", next.have, p.have)
		}
		w.sync(next, one(atFar))
		w.want("pod1", "tcp4", vip, "far "+pod1)
	})
	t.Run("a table removed by somebody is made again", func(t *testing.T) {
		next := w.open()
		w.sync(next, one(at2))
		w.in("node", func() {
			c, err := nftables.New()
			must(t, err)
			c.FlushRuleset()
			must(t, c.Flush())
			next.verify()
		})
		w.sync(next, one(at2))
		w.want("pod1", "tcp4", vip, "pod2 "+pod1)
	})
	t.Run("the rules for affinity go with the last Service that needs them", func(t *testing.T) {
		w.in("node", func() {
			c, err := nftables.New()
			must(t, err)
			all, err := c.ListChains()
			must(t, err)
			for _, ch := range all {
				if strings.Contains(ch.Name, "-sticky-") {
					t.Errorf("chain %s left", ch.Name)
				}
			}
		})
	})
	t.Run("cleanup leaves no table and may be repeated", func(t *testing.T) {
		w.in("node", func() {
			must(t, Cleanup("test"))
			must(t, Cleanup("test"))
			c, err := nftables.New()
			must(t, err)
			all, err := c.ListTables()
			if err != nil || len(all) != 0 {
				t.Errorf("tables left: %v, %v", all, err)
			}
		})
	})
}

func TestRunWritesChangesSoonAndSurvivesNoSnapshot(t *testing.T) {
	w := newWorld(t)
	w.serve("pod2")
	p, err := New(testConfig(), w.source, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { w.in("node", func() { done <- p.Run(ctx) }) }()
	w.source.set(Snapshot{Services: []*corev1.Service{service("a", serviceIP)}, Slices: []*discoveryv1.EndpointSlice{slice("a", 8080, endpoint{addr: pod2, node: "n1"})}})
	w.source.changed <- struct{}{}
	limit := time.Now().Add(time.Minute)
	for {
		if got, err := w.call("pod1", "tcp4", serviceIP+":80"); err == nil && strings.HasPrefix(got, "pod2") {
			break
		} else if time.Now().After(limit) {
			t.Fatalf("not served: %q, %v", got, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
}

func BenchmarkWrite10kServices(b *testing.B) {
	w := newWorld(b)
	s := Snapshot{}
	for i := range 10000 {
		name := fmt.Sprintf("s%d", i)
		s.Services = append(s.Services, service(name, fmt.Sprintf("10.43.%d.%d", i/250, i%250+1)))
		s.Slices = append(s.Slices, slice(name, 8080, endpoint{addr: pod1, node: "n1"}, endpoint{addr: pod2, node: "n1"}, endpoint{addr: far, node: "n2"}))
	}
	var small, firstWrite, reread time.Duration
	n := 0
	for b.Loop() {
		n++
		p := w.open()
		w.in("node", func() { must(b, Cleanup("test")) })
		start := time.Now()
		w.sync(p, s)
		firstWrite += time.Since(start)
		less := s
		less.Slices = append([]*discoveryv1.EndpointSlice{slice("s0", 8080, endpoint{addr: far, node: "n2"})}, s.Slices[1:]...)
		start = time.Now()
		w.sync(p, less)
		small += time.Since(start)
		next := w.open()
		start = time.Now()
		w.sync(next, less)
		reread += time.Since(start)
	}
	b.ReportMetric(float64(firstWrite.Milliseconds())/float64(n), "ms/first")
	b.ReportMetric(float64(small.Milliseconds())/float64(n), "ms/change")
	b.ReportMetric(float64(reread.Milliseconds())/float64(n), "ms/adopt")
}

package network

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"perch/agent/network/cni"
)

func node(name, cidr, addr string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDR: cidr}}
	if addr != "" {
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: addr}}
	}
	return n
}

func TestTopologyOf(t *testing.T) {
	got, err := TopologyOf("b", []*corev1.Node{
		node("c", "10.42.3.0/24", "192.0.2.3"), node("b", "10.42.2.0/24", "192.0.2.2"), node("a", "10.42.1.0/24", "192.0.2.1"),
		node("young", "", "192.0.2.4"), node("homeless", "10.42.5.0/24", ""), node("six", "fd00::/64", "fd00::1"), node("bad", "x", "192.0.2.6"),
	})
	if want := "{10.42.2.0/24 [{a 192.0.2.1 10.42.1.0/24} {c 192.0.2.3 10.42.3.0/24}]}"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if err == nil || !strings.Contains(err.Error(), "node bad") {
		t.Errorf("err = %v, want it to name the bad node", err)
	}
}

func TestDecide(t *testing.T) {
	own := netip.MustParsePrefix("10.42.0.0/24")
	peer := func(name, addr, cidr string) Peer {
		return Peer{name, netip.MustParseAddr(addr), netip.MustParsePrefix(cidr)}
	}
	near, far := peer("near", "192.0.2.2", "10.42.1.0/24"), peer("far", "198.51.100.7", "10.42.2.0/24")
	direct := map[netip.Addr]Hop{near.Address: {Link: 3, Direct: true}, far.Address: {Link: 3}}
	for _, c := range []struct {
		name, routes, reason string
		peers                []Peer
	}{
		{"a lone node needs no routes", "[]", "HostGateway", nil},
		{"a node on the subnet is a gateway to its pods", "[{10.42.1.0/24 192.0.2.2 3}]", "HostGateway", []Peer{near}},
		{"a node behind a router is reported, the others are routed", "[{10.42.1.0/24 192.0.2.2 3}]", "NotOnSubnet", []Peer{far, near}},
		{"a node without a way is reported", "[]", "NotOnSubnet", []Peer{peer("lost", "203.0.113.1", "10.42.9.0/24")}},
		{"two nodes with one pod CIDR: the first has it", "[{10.42.1.0/24 192.0.2.2 3}]", "PodCIDRClash", []Peer{near, peer("twin", "192.0.2.2", "10.42.1.0/24")}},
		{"nobody gets our own pod CIDR", "[]", "PodCIDRClash", []Peer{peer("thief", "192.0.2.2", "10.42.0.0/24")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Decide(Topology{own, c.peers}, direct)
			if fmt.Sprint(got.Routes) != c.routes || got.Peers.Reason != c.reason || got.Peers.OK != (c.reason == "HostGateway") {
				t.Errorf("got %v %+v, want %s %s", got.Routes, got.Peers, c.routes, c.reason)
			}
		})
	}
}

type fakeNodes struct{ all []*corev1.Node }

func (f fakeNodes) List() ([]*corev1.Node, error) { return f.all, nil }
func (f fakeNodes) Changed() <-chan struct{}      { return nil }

// newSpace puts the test into a network namespace of its own, with a link
// "up0" to a router at 192.0.2.254.
func newSpace(t *testing.T) (router netns.NsHandle) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	runtime.LockOSThread() // not unlocked: the thread ends with the test and takes its namespace along
	for i := range 2 {
		h, err := netns.New()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Close() })
		lo, err := netlink.LinkByName("lo")
		must(t, err)
		must(t, netlink.LinkSetUp(lo))
		if i == 0 {
			router = h
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "up0", 1450
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "down0", PeerNamespace: netlink.NsFd(router), PeerTxQLen: -1}))
	addAddress(t, "up0", "192.0.2.1/24")
	must(t, netlink.RouteAdd(&netlink.Route{Gw: netip.MustParseAddr("192.0.2.254").AsSlice()}))
	return router
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func addAddress(t *testing.T, link, addr string) {
	t.Helper()
	l, err := netlink.LinkByName(link)
	must(t, err)
	a, err := netlink.ParseAddr(addr)
	must(t, err)
	must(t, netlink.AddrAdd(l, a))
	must(t, netlink.LinkSetUp(l))
}

func testConfig(t *testing.T) Config {
	c := Default()
	c.Cluster, c.Node, c.Dir = "test", "n1", t.TempDir()
	c.ClusterCIDR, c.ServiceCIDR = netip.MustParsePrefix("10.42.0.0/16"), netip.MustParsePrefix("10.43.0.0/16")
	return c
}

func open(t *testing.T, c Config, nodes ...*corev1.Node) *Network {
	t.Helper()
	n, err := New(c, fakeNodes{nodes}, nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	must(t, err)
	return n
}

// picture describes everything in the namespace that Cleanup must restore.
func picture(t *testing.T) string {
	t.Helper()
	var out []string
	links, err := netlink.LinkList()
	must(t, err)
	for _, l := range links {
		out = append(out, "link "+l.Attrs().Name)
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
		must(t, err)
		for _, a := range addrs {
			out = append(out, "address "+a.IPNet.String())
		}
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	must(t, err)
	for _, r := range routes {
		out = append(out, "route "+r.String())
	}
	c, err := nftables.New()
	must(t, err)
	chains, err := c.ListChains()
	must(t, err)
	for _, ch := range chains {
		rules, err := c.GetRules(ch.Table, ch)
		must(t, err)
		out = append(out, fmt.Sprintf("chain %s %s with %d rules", ch.Table.Name, ch.Name, len(rules)))
	}
	for name := range sysctls {
		text, err := os.ReadFile("/proc/sys/" + name)
		must(t, err)
		out = append(out, name+"="+strings.TrimSpace(string(text)))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// dockerLike makes the forward chain that dockerd makes, and one of an inet firewall.
func dockerLike(t *testing.T) {
	t.Helper()
	c, err := nftables.New()
	must(t, err)
	policy := nftables.ChainPolicyDrop
	filter := c.AddTable(&nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4})
	c.AddChain(&nftables.Chain{Name: "FORWARD", Table: filter, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &policy})
	wall := c.AddTable(&nftables.Table{Name: "firewalld", Family: nftables.TableFamilyINet})
	ch := c.AddChain(&nftables.Chain{Name: "filter_FORWARD", Table: wall, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityRef(10)})
	c.AddRule(&nftables.Rule{Table: wall, Chain: ch, Exprs: []expr.Any{&expr.Reject{Type: 2, Code: 3}}})
	must(t, c.Flush())
}

func TestNodeIsSetUpAgainAndAgainAndCleanedUp(t *testing.T) {
	newSpace(t)
	must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0)) // the machine's own setting
	dockerLike(t)
	before := picture(t)
	cfg := testConfig(t)
	nodes := []*corev1.Node{node("n1", "10.42.0.0/24", "192.0.2.1"), node("n2", "10.42.1.0/24", "192.0.2.2"), node("n3", "10.42.2.0/24", "198.51.100.3")}
	var after string
	for i := range 3 { // each time as after a kill
		n := open(t, cfg, nodes...)
		must(t, n.sync(context.Background()))
		must(t, n.sync(context.Background()))
		if i > 0 && picture(t) != after {
			t.Errorf("another start changed\n%s\nto\n%s", after, picture(t))
		}
		after = picture(t)
		text := fmt.Sprint(n.Conditions())
		for _, want := range []string{"{FirewallOpen true", "{PeersRouted false NotOnSubnet", "n3 (198.51.100.3)", "{PodNetwork true Ready"} {
			if !strings.Contains(text, want) {
				t.Errorf("conditions %s lack %q", text, want)
			}
		}
	}
	for _, want := range []string{"address 10.42.0.1/32", "10.42.1.0/24", "10.43.0.0/16", "chain filter FORWARD with 2 rules", "chain firewalld filter_FORWARD with 3 rules", "net/ipv4/ip_forward=1"} {
		if !strings.Contains(after, want) {
			t.Errorf("set up lacks %q:\n%s", want, after)
		}
	}
	// A node that goes takes its route along; a new pod CIDR moves the gateway.
	nodes[0].Spec.PodCIDR = "10.42.7.0/24"
	must(t, open(t, cfg, nodes[0]).sync(context.Background()))
	if now := picture(t); strings.Contains(now, "10.42.0.1/32") || strings.Contains(now, "10.42.1.0/24") || !strings.Contains(now, "address 10.42.7.1/32") {
		t.Errorf("after the change:\n%s", now)
	}
	for range 2 {
		must(t, Cleanup(cfg.Cluster, cfg.Dir))
		if now := picture(t); now != before {
			t.Errorf("before\n%s\nafter cleanup\n%s", before, now)
		}
	}
	left, err := filepath.Glob(filepath.Join(cfg.Dir, "*", "*"))
	must(t, err)
	if len(left) > 0 {
		t.Errorf("files left: %v", left)
	}
}

func TestSysctlsStayWhileAnotherClusterNeedsThem(t *testing.T) {
	newSpace(t)
	must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0))
	one, two := testConfig(t), testConfig(t)
	two.Cluster, two.ClusterCIDR, two.ServiceCIDR = "two", netip.MustParsePrefix("10.52.0.0/16"), netip.MustParsePrefix("10.53.0.0/16")
	must(t, open(t, one, node("n1", "10.42.0.0/24", "192.0.2.1")).sync(context.Background()))
	must(t, open(t, two, node("n1", "10.52.0.0/24", "192.0.2.1")).sync(context.Background()))
	must(t, Cleanup(one.Cluster, one.Dir))
	now := picture(t)
	if !strings.Contains(now, "ip_forward=1") || !strings.Contains(now, "address 10.52.0.1/32") || strings.Contains(now, "10.42") {
		t.Errorf("after cleaning up the first of two:\n%s", now)
	}
}

func TestForwardingStaysOnWhereDockerCameLater(t *testing.T) {
	newSpace(t)
	must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0))
	cfg := testConfig(t)
	must(t, open(t, cfg, node("n1", "10.42.0.0/24", "192.0.2.1")).sync(context.Background()))
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "docker0"
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	must(t, Cleanup(cfg.Cluster, cfg.Dir))
	if now := picture(t); !strings.Contains(now, "ip_forward=1") {
		t.Errorf("after cleanup:\n%s", now)
	}
}

func TestPodReachesTheOutsideThroughAClosedFirewall(t *testing.T) {
	router := newSpace(t)
	dockerLike(t)
	cfg := testConfig(t)
	n := open(t, cfg, node("n1", "10.42.0.0/24", "192.0.2.1"))
	must(t, n.sync(context.Background()))
	text, err := os.ReadFile(conflistPath(cfg.Dir))
	must(t, err)
	if !strings.Contains(string(text), `"mtu": 1450`) {
		t.Errorf("conflist lacks the MTU of the default route: %s", text)
	}
	here, err := netns.Get()
	must(t, err)
	must(t, netns.Set(router)) // the router knows nothing of pods
	addAddress(t, "down0", "192.0.2.254/24")
	ln := listen(t)
	must(t, netns.Set(here))
	pod, err := netns.New()
	must(t, err)
	t.Cleanup(func() { _ = pod.Close() })
	must(t, netns.Set(here))
	if err := cni.Attach(cfg.plugin(netip.MustParsePrefix("10.42.0.0/24"), 1450), cni.Attachment{ContainerID: "s", IfName: "eth0"}, fmt.Sprintf("/proc/self/fd/%d", int(pod))); err != nil {
		t.Fatal(err)
	}
	must(t, netns.Set(pod))
	from, err := dialThen(ln, netip.MustParseAddr("192.0.2.254"))
	must(t, netns.Set(here))
	if err != nil || from.String() != "192.0.2.1" {
		t.Errorf("the router saw %v, %v; want the node's address", from, err)
	}
	must(t, Cleanup(cfg.Cluster, cfg.Dir))
}

func TestRunWaitsForAPodCIDRAndEndsWithItsContext(t *testing.T) {
	newSpace(t)
	cfg := testConfig(t)
	n := open(t, cfg, node("n1", "", "192.0.2.1"))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := n.Run(ctx); err != nil {
		t.Errorf("Run = %v", err)
	}
	if c := n.Conditions(); len(c) != 1 || c[0].Reason != "NoPodCIDR" {
		t.Errorf("conditions %v", c)
	}
	if _, err := os.Stat(conflistPath(cfg.Dir)); err == nil {
		t.Error("a conflist was written without a pod CIDR")
	}
}

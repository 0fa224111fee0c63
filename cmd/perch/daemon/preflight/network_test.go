package preflight

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

func wanted() Networks {
	return Networks{Cluster: "a", Want: map[string]netip.Prefix{"cluster-cidr": netip.MustParsePrefix("10.42.0.0/16"), "service-cidr": netip.MustParsePrefix("10.43.0.0/16")}}
}

func TestNetworksOfOthersAreRefusedAndOwnLeftOversAreNot(t *testing.T) {
	one := func(prefix, link string, perch bool) []use {
		return []use{{netip.MustParsePrefix(prefix), "the route to " + prefix + " over " + link, link, perch}}
	}
	for _, c := range []struct {
		what    string
		uses    []use
		mine    own
		joined  bool
		refused string
		warned  string
	}{
		{what: "nothing overlaps", uses: one("192.0.2.0/24", "eth0", false)},
		{what: "this machine is in such a network", uses: one("10.42.7.0/24", "eth0", false),
			refused: "--cluster-cidr 10.42.0.0/16 overlaps the route to 10.42.7.0/24 over eth0: choose others, for example --cluster-cidr 10.44.0.0/16 --service-cidr 10.45.0.0/16"},
		{what: "the Services' network counts, too", uses: one("10.43.0.0/24", "eth0", false), refused: "--service-cidr 10.43.0.0/16 overlaps"},
		{what: "another cluster of perch has it", uses: one("10.43.0.0/16", "lo", true), refused: "of another perch cluster on this machine: stop that with `perch down`, or choose others"},
		{what: "this cluster was killed", uses: one("10.43.0.0/16", "lo", true), mine: own{claimed: prefixes("10.43.0.0/16")}},
		{what: "it was killed, and there is no other", uses: one("10.43.0.0/16", "lo", true), mine: own{alone: true}},
		{what: "its pods still run", uses: one("10.42.0.9/32", "pc0123", false), mine: own{links: []string{"pc0123"}}},
		{what: "it had other networks then", uses: one("10.43.0.0/16", "lo", true), mine: own{claimed: prefixes("10.53.0.0/16")}, refused: "another perch cluster"},
		{what: "a wider route is an obstacle for a new cluster", uses: one("10.0.0.0/8", "tun0", false), refused: "overlaps the route to 10.0.0.0/8 over tun0: choose others, for example --cluster-cidr 100.64.0.0/16"},
		{what: "and a warning for one that ran without it", uses: one("10.0.0.0/8", "tun0", false), mine: own{ran: prefixes("10.42.0.0/16", "10.43.0.0/16")},
			warned: "--cluster-cidr 10.42.0.0/16 overlaps the route to 10.0.0.0/8 over tun0, whose machines pods cannot reach"},
		{what: "a narrow one is an obstacle for both", uses: one("10.42.3.0/24", "tun0", false), mine: own{ran: prefixes("10.42.0.0/16")}, refused: "over tun0"},
		{what: "a worker has no flag for it", uses: one("10.42.3.0/24", "tun0", false), joined: true, refused: "the cluster's network 10.42.0.0/16 overlaps the route to 10.42.3.0/24 over tun0: take that away"},
	} {
		n := wanted()
		n.Joined = c.joined
		warnings, err := overlap(n, c.uses, c.mine)
		if c.refused == "" && err != nil || c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)) {
			t.Errorf("%s: got %v, want %q", c.what, err, c.refused)
		}
		if got := strings.Join(warnings, "; "); !strings.HasPrefix(got, c.warned) || c.warned == "" && got != "" {
			t.Errorf("%s: warned %q, want %q", c.what, got, c.warned)
		}
	}
}

func TestANoteOfNetworksIsWorthNothingAfterTheMachineStartedAnew(t *testing.T) {
	n := wanted()
	n.Mark = filepath.Join(t.TempDir(), "run", "networks")
	if claimed, ran := readMark(n.Mark); claimed != nil || ran != nil {
		t.Errorf("before: %v, %v", claimed, ran)
	}
	if err := Claim(n); err != nil {
		t.Fatal(err)
	}
	want := netip.MustParsePrefix("10.43.0.0/16")
	if claimed, ran := readMark(n.Mark); !covers(claimed, want) || !covers(ran, want) {
		t.Errorf("same boot: %v, %v", claimed, ran)
	}
	text, err := os.ReadFile(n.Mark)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.Mark, []byte("another-boot"+string(text[strings.Index(string(text), " "):])), 0o600); err != nil {
		t.Fatal(err)
	}
	if claimed, ran := readMark(n.Mark); claimed != nil || !covers(ran, want) {
		t.Errorf("another boot: %v, %v", claimed, ran)
	}
}

// inSpace runs f in a network namespace of its own.
func inSpace(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("make network namespace: %v (this test needs root)", err)
			return
		}
		f()
	}()
	<-done
}

func TestTheMachinesNetworksAreFound(t *testing.T) {
	inSpace(t, func() {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			t.Error(err)
			return
		}
		network := func(text string) *net.IPNet {
			ip, n, err := net.ParseCIDR(text)
			if err != nil {
				panic(err) // a constant
			}
			n.IP = ip
			return n
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			t.Error(err)
		}
		if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: network("10.42.0.1/32")}); err != nil {
			t.Error(err)
		}
		if _, err := networks(wanted()); err == nil || strings.Contains(err.Error(), "perch cluster") {
			t.Errorf("an address of somebody else: %v", err)
		}
		index := lo.Attrs().Index
		for _, err := range []error{
			netlink.AddrAdd(lo, &netlink.Addr{IPNet: network("10.99.0.7/24")}),
			netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: network("10.98.0.0/16")}),
			netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: network("10.97.0.0/16"), Table: 77}),
			netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: network("10.43.0.0/16"), Protocol: routesOfPerch}),
			netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: network("0.0.0.0/0")}),
			netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: network("128.0.0.0/1")}),
		} {
			if err != nil {
				t.Error(err)
			}
		}
		have, err := usesOf()
		if err != nil {
			t.Error(err)
		}
		got := map[string]bool{}
		for _, u := range have {
			got[u.prefix.String()+" "+u.what] = u.perch
		}
		for text, perch := range map[string]bool{"10.99.0.0/24 the address 10.99.0.7/24 of lo": false, "10.42.0.1/32 the address 10.42.0.1/32 of lo": true,
			"10.98.0.0/16 the route to 10.98.0.0/16 over lo": false, "10.97.0.0/16 the route to 10.97.0.0/16 over lo": false, "10.43.0.0/16 the route to 10.43.0.0/16 over lo": true} {
			if is, ok := got[text]; !ok || is != perch {
				t.Errorf("%q: found %v, perch's %v; all: %v", text, ok, is, got)
			}
		}
		if len(got) != 5 {
			t.Errorf("found %v", got)
		}
		n := wanted()
		n.Mark = filepath.Join(t.TempDir(), "networks")
		if _, err := networks(n); err == nil || !strings.Contains(err.Error(), "another perch cluster") {
			t.Errorf("got %v", err)
		}
		if err := Claim(n); err != nil {
			t.Error(err)
		}
		if warnings, err := networks(n); err != nil || len(warnings) > 0 {
			t.Errorf("its own left-overs: %v, %v", warnings, err)
		}
	})
}

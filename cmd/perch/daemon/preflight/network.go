package preflight

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"perch/agent/network/cni"
)

// Networks are what a cluster wants for itself.
type Networks struct {
	Cluster string                  // its name
	Want    map[string]netip.Prefix // by flag name
	Mark    string                  // file that Claim wrote when this cluster last started, if it did
	Joined  bool                    // the networks came from the cluster: no flag of this machine changes them
}

// use is an address or a route of this machine.
type use struct {
	prefix netip.Prefix
	what   string // "the route to 10.0.0.0/8 over tun0"
	link   string
	perch  bool // a perch cluster made it
}

// own is what tells a cluster's left-overs from what belongs to others.
type own struct {
	links   []string       // its pods'
	claimed []netip.Prefix // since the machine started, and not given back since
	ran     []netip.Prefix // ever
	alone   bool           // no other cluster of perch is on this machine
}

// overlap refuses networks that somebody else on this machine uses, and warns
// of what it cannot refuse any more.
func overlap(n Networks, uses []use, mine own) (warnings []string, _ error) {
	slices.SortStableFunc(uses, func(a, b use) int { return -cmp.Compare(rank(a), rank(b)) })
	for _, flag := range slices.Sorted(maps.Keys(n.Want)) {
		want := n.Want[flag]
		for _, u := range uses {
			if !u.prefix.Overlaps(want) || slices.Contains(mine.links, u.link) || u.perch && (mine.alone || covers(mine.claimed, u.prefix)) {
				continue
			}
			text := fmt.Sprintf("--%s %s overlaps %s", flag, want, u.what)
			way := "choose others, for example " + free(n.Want, uses)
			if n.Joined {
				text, way = fmt.Sprintf("the cluster's network %s overlaps %s", want, u.what), "take that away, or make the cluster anew with other networks"
			}
			if u.perch {
				return nil, fmt.Errorf("%s of another perch cluster on this machine: stop that with `perch down`, or %s", text, way)
			}
			if u.prefix.Bits() < want.Bits() && covers(mine.ran, want) {
				// A VPN that came up since; refusing would take a cluster away that works.
				warnings = append(warnings, text+", whose machines pods cannot reach")
				continue
			}
			return nil, fmt.Errorf("%s: %s", text, way)
		}
	}
	return warnings, nil
}

// rank puts the plainest reason first.
func rank(u use) int {
	if u.perch {
		return 1 << 10
	}
	return u.prefix.Bits()
}

func covers(have []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(have, func(h netip.Prefix) bool { return h.Overlaps(p) && h.Bits() <= p.Bits() })
}

// free names flags with networks that nobody uses.
func free(want map[string]netip.Prefix, uses []use) string {
	var out []string
	next := 44
	for _, flag := range slices.Sorted(maps.Keys(want)) {
		for ; next < 250; next++ {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(next), 0, 0}), 16)
			if !slices.ContainsFunc(uses, func(u use) bool { return u.prefix.Overlaps(p) }) {
				out = append(out, fmt.Sprintf("--%s %s", flag, p))
				next++
				break
			}
		}
	}
	if len(out) < len(want) { // somebody routes all of 10.0.0.0/8
		return "--cluster-cidr 100.64.0.0/16 --service-cidr 100.65.0.0/16"
	}
	return strings.Join(out, " ")
}

// networks compares what a cluster wants with the machine.
func networks(n Networks) (warnings []string, _ error) {
	uses, err := usesOf()
	if err != nil {
		return nil, err
	}
	mine := own{}
	if mine.links, err = cni.Links(n.Cluster); err != nil {
		return nil, err
	}
	if mine.alone, err = alone(n.Cluster); err != nil {
		return nil, err
	}
	mine.claimed, mine.ran = readMark(n.Mark)
	return overlap(n, uses, mine)
}

// alone tells whether the only tables of perch clusters are this one's. A
// machine that has none may have left-overs of one whose table was flushed.
func alone(cluster string) (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("open nftables: %w", err)
	}
	tables, err := c.ListTables()
	if err != nil {
		return false, fmt.Errorf("list nftables: %w", err)
	}
	found := false
	for _, t := range tables {
		if !strings.HasPrefix(t.Name, "perch-") {
			continue
		}
		if t.Name != "perch-"+cluster {
			return false, nil
		}
		found = true
	}
	return found, nil
}

// routesOfPerch is the protocol of agent/network's routes.
const routesOfPerch = 112

// usesOf lists the IPv4 networks of this machine: those of its addresses, and
// those that it has routes to, default routes left out.
func usesOf() ([]use, error) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list links: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	var out []use
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addresses {
		p, ok := prefixOf(a.IPNet)
		if !ok || p.Addr().IsLoopback() {
			continue
		}
		name := names[a.LinkIndex]
		out = append(out, use{p.Masked(), fmt.Sprintf("the address %s of %s", p, name), name, name == "lo" && p.Bits() == 32})
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		p, ok := prefixOf(r.Dst)
		// A pair of /1 is how some VPNs write a default route.
		if !ok || p.Bits() <= 1 || r.Table == unix.RT_TABLE_LOCAL || r.Protocol == unix.RTPROT_KERNEL {
			continue
		}
		name, over := names[r.LinkIndex], ""
		if name != "" {
			over = " over " + name
		}
		out = append(out, use{p.Masked(), fmt.Sprintf("the route to %s%s", p, over), name, r.Protocol == routesOfPerch})
	}
	// A node's gateway is on lo, but not every such address is one.
	marked := slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Protocol == routesOfPerch })
	for i := range out {
		out[i].perch = out[i].perch && marked
	}
	return out, nil
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP.To4())
	bits, size := n.Mask.Size()
	return netip.PrefixFrom(a, bits), ok && size == 32
}

// Claim notes that a cluster starts with these networks, so that what it leaves
// behind when it is killed is known as its own. The note is worth nothing after
// the machine started anew, as is what was left.
func Claim(n Networks) error {
	words := []string{bootID()}
	for _, flag := range slices.Sorted(maps.Keys(n.Want)) {
		words = append(words, n.Want[flag].String())
	}
	if err := os.MkdirAll(filepath.Dir(n.Mark), 0o700); err != nil {
		return fmt.Errorf("note networks: %w", err)
	}
	if err := os.WriteFile(n.Mark, []byte(strings.Join(words, " ")+"\n"), 0o600); err != nil {
		return fmt.Errorf("note networks: %w", err)
	}
	return nil
}

// readMark reads what Claim wrote. Without it, or with something else in its
// place, nothing was claimed.
func readMark(path string) (claimed, ran []netip.Prefix) {
	text, err := os.ReadFile(path)
	words := strings.Fields(string(text))
	if err != nil || len(words) < 2 {
		return nil, nil
	}
	for _, w := range words[1:] {
		if p, err := netip.ParsePrefix(w); err == nil {
			ran = append(ran, p)
		}
	}
	if words[0] == bootID() {
		claimed = ran
	}
	return claimed, ran
}

// bootID changes whenever the machine starts.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}

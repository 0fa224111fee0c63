package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeProtocol marks our routes for us and for people: "proto 112".
const routeProtocol = netlink.RouteProtocol(112)

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	addr, ok := netip.AddrFromSlice(n.IP.To4())
	if !ok {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr, bits)
}

// hops asks the kernel how it would send to the peers. Those without a way are left out.
func hops(peers []Peer) map[netip.Addr]Hop {
	out := map[netip.Addr]Hop{}
	for _, p := range peers {
		routes, err := netlink.RouteGet(p.Address.AsSlice())
		if err != nil || len(routes) == 0 {
			continue // no way there is an answer, too
		}
		out[p.Address] = Hop{Link: routes[0].LinkIndex, Direct: len(routes[0].Gw) == 0 && routes[0].Type == unix.RTN_UNICAST}
	}
	return out
}

// defaultMTU is the MTU of the link to the outside, in bytes; 1500 when there is none.
func defaultMTU() (int, error) {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return 0, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if prefixOf(r.Dst).Bits() > 0 || r.LinkIndex == 0 {
			continue
		}
		link, err := netlink.LinkByIndex(r.LinkIndex)
		if err != nil {
			return 0, fmt.Errorf("find link of the default route: %w", err)
		}
		return link.Attrs().MTU, nil
	}
	return 1500, nil
}

// setNode gives the node its gateway address and the routes of plan, and removes
// addresses and routes of ours that are not wanted any more.
func setNode(cfg Config, podCIDR netip.Prefix, gateway netip.Addr, mtu int, plan Plan) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find link lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set link lo up: %w", err)
	}
	if err := setGateway(lo, cfg.ClusterCIDR, gateway); err != nil {
		return err
	}
	index := lo.Attrs().Index
	want := map[netip.Prefix]*netlink.Route{
		// Connecting to a Service needs a route before the table rewrites the
		// address; a machine without default route has none. The source is an
		// address that all nodes can answer to.
		cfg.ServiceCIDR.Masked(): {LinkIndex: index, Scope: netlink.SCOPE_HOST, Src: gateway.AsSlice(), MTU: mtu, AdvMSS: mtu - 40},
		// An address without pod is refused at once and never sent to the default router.
		podCIDR: {Type: unix.RTN_UNREACHABLE},
	}
	for _, r := range plan.Routes {
		want[r.Pods] = &netlink.Route{LinkIndex: r.Link, Gw: r.Via.AsSlice()}
	}
	for dst, r := range want {
		r.Dst, r.Protocol = ipNet(dst), routeProtocol
		if err := netlink.RouteReplace(r); err != nil {
			return fmt.Errorf("set route to %s: %w", dst, err)
		}
	}
	return dropRoutes(cfg.ClusterCIDR, func(dst netip.Prefix) bool { return want[dst] == nil })
}

// setGateway puts gateway on lo and takes away gateways of earlier pod CIDRs.
func setGateway(lo netlink.Link, cluster netip.Prefix, gateway netip.Addr) error {
	have, err := netlink.AddrList(lo, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list addresses of lo: %w", err)
	}
	found := false
	for _, a := range have {
		p := prefixOf(a.IPNet)
		switch {
		case p.Bits() != 32 || !cluster.Contains(p.Addr()):
		case p.Addr() == gateway:
			found = true
		default:
			if err := netlink.AddrDel(lo, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				return fmt.Errorf("delete address %s of lo: %w", p, err)
			}
		}
	}
	if found {
		return nil
	}
	err = netlink.AddrAdd(lo, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(gateway, 32))})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add address %s to lo: %w", gateway, err)
	}
	return nil
}

// dropRoutes deletes our routes inside a CIDR for which goes says so.
func dropRoutes(inside netip.Prefix, goes func(netip.Prefix) bool) error {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		dst := prefixOf(r.Dst)
		if !dst.IsValid() || !inside.Overlaps(dst) || dst.Bits() < inside.Bits() || !goes(dst) {
			continue
		}
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("delete route to %s: %w", dst, err)
		}
	}
	return nil
}

package target

import (
	"net"
	"net/netip"
	"slices"
	"strings"
)

// metadata are where clouds tell a machine, and by its address only that machine,
// who it is and what it may: those that are not link-local.
var metadata = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"),   // Amazon
	netip.MustParseAddr("fd20:ce::254"),    // Google
	netip.MustParseAddr("100.100.100.200"), // Alibaba
	netip.MustParseAddr("168.63.129.16"),   // Azure
	netip.MustParseAddr("192.0.0.192"),     // Oracle, the older one
}

// Guarded says whether an address means the machine that connects, or what only
// it may reach. What objects of namespaces name, scrape targets, probes and
// receivers of alerts, is not connected there.
func Guarded(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	return ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() || slices.Contains(metadata, ip)
}

// GuardedAddress says the same of "host", "host:port" or "[host]:port" as far as it
// is known before the name is looked up.
func GuardedAddress(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = strings.Trim(address, "[]")
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return Guarded(ip)
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost")
}

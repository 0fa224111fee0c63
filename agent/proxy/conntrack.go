package proxy

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const udp = 17

// stale selects the remembered UDP flows that would go on to an endpoint that is
// gone, or that were remembered while their Service had none. UDP has no end
// of a connection, so a busy client would keep such a flow alive for ever.
type stale struct {
	gone map[flow]bool
	now  map[Key]bool // keys served since now: flows that were never sent to an endpoint
}

func newStale(c change) stale {
	s := stale{map[flow]bool{}, map[Key]bool{}}
	for _, f := range c.gone {
		if f.Key().Proto == udp {
			s.gone[f] = true
		}
	}
	for _, k := range c.served {
		if k.Proto == udp {
			s.now[k] = true
		}
	}
	return s
}

func (s stale) empty() bool { return len(s.gone)+len(s.now) == 0 }

// MatchConntrackFlow is called by netlink for each remembered flow.
func (s stale) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	if f.Forward.Protocol != udp {
		return false
	}
	to, ok := netip.AddrFromSlice(f.Forward.DstIP.To4())
	from, ok2 := netip.AddrFromSlice(f.Reverse.SrcIP.To4())
	if !ok || !ok2 {
		return false
	}
	target := netip.AddrPortFrom(from, f.Reverse.SrcPort)
	untouched := to == from && f.Forward.DstPort == f.Reverse.SrcPort
	for _, addr := range []netip.Addr{to, nodeAddr} {
		key := Key{addr, udp, f.Forward.DstPort}
		if untouched && s.now[key] || s.gone[flow{keyBytes(key), targetBytes(target)}] {
			return true
		}
	}
	return false
}

// forgetFlows deletes what stale selects and returns how many flows that were.
func forgetFlows(s stale) (uint, error) {
	if s.empty() {
		return 0, nil
	}
	n, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, s)
	if err != nil {
		return n, fmt.Errorf("forget udp flows: %w", err)
	}
	return n, nil
}

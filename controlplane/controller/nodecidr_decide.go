package controller

import (
	"errors"
	"net/netip"
)

var errNoCIDRLeft = errors.New("every pod address range of the cluster is taken")

// freeCIDR returns the lowest range of bits length inside cluster that overlaps none of taken.
func freeCIDR(cluster netip.Prefix, bits int, taken []netip.Prefix) (netip.Prefix, error) {
	candidate := netip.PrefixFrom(cluster.Masked().Addr(), bits)
	for cluster.Contains(candidate.Addr()) {
		free := true
		for _, t := range taken {
			if t.Overlaps(candidate) {
				free = false
				break
			}
		}
		if free {
			return candidate, nil
		}
		next, ok := after(candidate)
		if !ok {
			break
		}
		candidate = next
	}
	return netip.Prefix{}, errNoCIDRLeft
}

// after returns the neighbour of the same size.
func after(p netip.Prefix) (netip.Prefix, bool) {
	raw := p.Addr().AsSlice()
	step := p.Bits() - 1
	for i := step / 8; i >= 0; i-- {
		add := byte(1)
		if i == step/8 {
			add = 1 << (7 - step%8)
		}
		sum := int(raw[i]) + int(add)
		raw[i] = byte(sum)
		if sum < 256 {
			addr, ok := netip.AddrFromSlice(raw)
			return netip.PrefixFrom(addr, p.Bits()), ok
		}
	}
	return netip.Prefix{}, false
}

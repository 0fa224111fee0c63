package source

import (
	"net"
	"net/netip"
	"sync"
)

// Places are the connections that a door has open at once; one address may have an
// eighth of them.
type Places struct {
	all, each int

	mu    sync.Mutex // guards what follows
	taken int
	used  map[netip.Addr]int
}

// NewPlaces returns n free places.
func NewPlaces(n int) *Places {
	return &Places{all: n, each: max(1, n/8), used: map[netip.Addr]int{}}
}

// Take takes a place for an address, until Give. It is false when there is none.
func (p *Places) Take(a netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken >= p.all || p.used[a] >= p.each {
		return false
	}
	p.taken++
	p.used[a]++
	return true
}

// Give gives the place of an address back.
func (p *Places) Give(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if p.used[a]--; p.used[a] == 0 {
		delete(p.used, a)
	}
}

// Address is the one at the other end of a connection, the zero value if there is none.
func Address(c net.Conn) netip.Addr {
	a, _ := netip.ParseAddrPort(c.RemoteAddr().String())
	return a.Addr().Unmap()
}

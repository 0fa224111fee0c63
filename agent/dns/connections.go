package dns

import (
	"net"
	"net/netip"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Connections over TCP at the same time: of all clients, and of one address. The
// library closes one that is silent for some seconds; it has no other limit.
const (
	maxConnections      = 1024
	maxConnectionsOfOne = 64
)

// bounded closes connections for which there is no room as soon as they come.
type bounded struct {
	net.Listener
	refused prometheus.Counter

	mu   sync.Mutex // guards what follows
	open int
	of   map[netip.Addr]int
}

// Accept returns the next connection that there is room for.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		at, _ := netip.ParseAddrPort(c.RemoteAddr().String()) // the zero value is an address as well
		if b.enter(at.Addr()) {
			return &connection{Conn: c, leave: sync.OnceFunc(func() { b.leave(at.Addr()) })}, nil
		}
		b.refused.Inc()
		_ = c.Close() // nothing was said
	}
}

func (b *bounded) enter(a netip.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open >= maxConnections || b.of[a] >= maxConnectionsOfOne {
		return false
	}
	b.open++
	b.of[a]++
	return true
}

func (b *bounded) leave(a netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open--
	if b.of[a]--; b.of[a] == 0 {
		delete(b.of, a)
	}
}

type connection struct {
	net.Conn
	leave func()
}

// Close gives the place back.
func (c *connection) Close() error {
	c.leave()
	return c.Conn.Close()
}

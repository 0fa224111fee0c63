package scrape

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"perch/metrics/target"
)

// dial connects to sockets of perch's own parts, finds names of Services, and
// does not connect an address that an object names to this machine itself: who
// may write a Probe must not reach what only this machine may.
func (l *Loop) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: l.cfg.Timeout}
	if path, ok := l.sockets[address]; ok {
		return dialer.DialContext(ctx, "unix", path)
	}
	l.mu.Lock()
	open := l.open[address]
	l.mu.Unlock()
	if !open {
		dialer.Control = func(_, to string, _ syscall.RawConn) error {
			if at, err := netip.ParseAddrPort(to); err != nil || target.Guarded(at.Addr()) {
				return errors.New(notNamed(address))
			}
			return nil
		}
	}
	to := address
	if host, port, err := net.SplitHostPort(address); err == nil && l.parts.Resolve != nil {
		switch ip, ours, err := l.parts.Resolve(ctx, host); {
		case err != nil:
			return nil, err
		case ours:
			to = net.JoinHostPort(ip, port)
		}
	}
	conn, err := dialer.DialContext(ctx, network, to)
	if err != nil {
		return nil, err
	}
	return newMetered(conn, l.cfg.BodyLimit+answerHead), nil
}

// answerHead is what an answer may have beside its body.
const answerHead = 1 << 20

// metered ends a connection that answers one request with more than it may. The
// library stops storing at its limit but reads on to the end, which may be far.
type metered struct {
	net.Conn
	most int64
	left atomic.Int64 // until the next request
}

func newMetered(c net.Conn, most int64) *metered {
	m := &metered{Conn: c, most: most}
	m.left.Store(most)
	return m
}

var errLong = errors.New("the answer is longer than the limit")

// Read implements net.Conn.
func (m *metered) Read(b []byte) (int, error) {
	if m.left.Load() <= 0 {
		return 0, errLong
	}
	n, err := m.Conn.Read(b)
	m.left.Add(-int64(n))
	return n, err
}

// Write implements net.Conn.
func (m *metered) Write(b []byte) (int, error) {
	m.left.Store(m.most)
	return m.Conn.Write(b)
}

func notNamed(address string) string {
	return address + " is the machine that scrapes, which objects may not name"
}

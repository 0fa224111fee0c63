package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"perch/metrics/target"
)

// answerHead is what a connection may bring beside the body: TLS, headers,
// redirects.
const answerHead = 1 << 20

// dialer connects for objects. Proxies, redirects and the servers of tokens are
// connected by it, too.
type dialer struct {
	until   context.Context //nolint:containedctx // the library asks for tokens without a context
	resolve func(string) (string, bool)
	timeout time.Duration
	most    int64 // bytes of a connection
}

func (d dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	defer context.AfterFunc(d.until, cancel)()
	to := address
	if host, port, err := net.SplitHostPort(address); err == nil && d.resolve != nil {
		if ip, ok := d.resolve(host); ok {
			to = net.JoinHostPort(ip, port)
		}
	}
	straight := net.Dialer{Control: func(_, to string, _ syscall.RawConn) error {
		if at, err := netip.ParseAddrPort(to); err != nil || target.Guarded(at.Addr()) {
			return fmt.Errorf("%s is the machine that asks, which objects may not name", address)
		}
		return nil
	}}
	c, err := straight.DialContext(ctx, network, to)
	if err != nil {
		return nil, err //nolint:wrapcheck // the client says what it was for
	}
	b := &bounded{Conn: c, left: d.most}
	if err := c.SetDeadline(time.Now().Add(d.timeout)); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("connect %s: %w", address, err)
	}
	b.stop = context.AfterFunc(d.until, func() { _ = c.Close() })
	return b, nil
}

// bounded is a connection for one question: it ends after a time, after bytes,
// and with the loop.
type bounded struct {
	net.Conn
	left int64 // read by one goroutine at a time
	stop func() bool
}

var errLong = errors.New("the answer is longer than the limit")

// Read implements net.Conn.
func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errLong
	}
	n, err := b.Conn.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err //nolint:wrapcheck // io.EOF must stay what it is
}

// Close implements net.Conn.
func (b *bounded) Close() error {
	b.stop()
	return b.Conn.Close() //nolint:wrapcheck // nobody reads it
}

package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"perch/metrics/target"
)

// answerHead is what a connection may bring beside the body: TLS, headers,
// redirects.
const answerHead = 1 << 20

// dialer connects for one search. Proxies, redirects and the servers of tokens are
// connected by it, too.
type dialer struct {
	resolve func(ctx context.Context, host string) (ip string, ours bool, err error)
	machine *net.Resolver
	named   map[string]bool // addresses that the object says itself
	timeout time.Duration
	most    int64 // bytes of a connection

	mu       sync.Mutex
	question context.Context //nolint:containedctx // the library asks for tokens without that of the question
}

// begin says for which question is connected from now on. There is one at a time.
func (d *dialer) begin(ctx context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.question = ctx
}

// dial ends, and with it the connection, when the question does.
func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d.mu.Lock()
	question := d.question
	d.mu.Unlock()
	end := time.Now().Add(d.timeout)
	if by, ok := question.Deadline(); ok && by.Before(end) {
		end = by
	}
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	defer context.AfterFunc(question, cancel)()
	what := address
	if !d.named[address] {
		what = "where it leads" // a redirect's words are the answer's
	}
	to, err := d.found(ctx, address)
	if err != nil {
		return nil, &unreached{to: what, err: err}
	}
	straight := net.Dialer{Resolver: d.machine, Control: func(_, to string, _ syscall.RawConn) error {
		if at, err := netip.ParseAddrPort(to); err != nil || target.Guarded(at.Addr()) {
			return errGuarded
		}
		return nil
	}}
	c, err := straight.DialContext(ctx, network, to)
	if err != nil {
		return nil, &unreached{to: what, err: err}
	}
	if err := c.SetDeadline(end); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("connect %s: %w", what, err)
	}
	b := &bounded{Conn: c, left: d.most}
	b.stop = context.AfterFunc(question, func() { _ = c.Close() })
	return b, nil
}

// found is the address to connect. A name of the cluster that is not found there
// is asked of nobody else.
func (d *dialer) found(ctx context.Context, address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || d.resolve == nil {
		return address, nil //nolint:nilerr // it is refused when it is connected
	}
	ip, ours, err := d.resolve(ctx, host)
	switch {
	case !ours:
		return address, nil
	case err != nil:
		return "", fmt.Errorf("%w: %w", errUnnamed, err)
	}
	return net.JoinHostPort(ip, port), nil
}

// bounded is a connection for one question: it ends after a time, after bytes,
// and with the question.
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

package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// atOnce is how many questions, and how many changes, wait for the runtime's answers;
// the others wait here. A socket takes about 300 small writes that nobody reads, and
// two ends that both wait until the other has read wait for ever (DECISIONS.md, "Calls
// to the runtime are bounded, and no connection is trusted").
const atOnce = 32

// turnsOf are those that a call waits for; nil for calls that may take as long as a
// container or an image wants.
func (l *link) turnsOf(method string) chan struct{} {
	switch {
	case method == "PullImage", method == "StopContainer", method == "ExecSync":
		return nil
	case strings.HasPrefix(method, "List"), strings.HasSuffix(method, "Status"), strings.HasSuffix(method, "Stats"), method == "Version", method == "ImageFsInfo":
		return l.questions
	}
	return l.changes
}

// link is one connection to the runtime. Calls on it have turns, and it is closed, and
// comes back by itself, when it has answered nothing for long.
type link struct {
	socket             string
	questions, changes chan struct{} // those under way
	metrics            *metrics
	log                *slog.Logger

	mu      sync.Mutex
	raw     net.Conn // the newest
	silence silence
}

func newLink(socket string, limit time.Duration, m *metrics, log *slog.Logger) *link {
	return &link{socket: socket, questions: make(chan struct{}, atOnce), changes: make(chan struct{}, atOnce), metrics: m, log: log, silence: silence{limit: limit}}
}

// open makes the connection; the first call connects.
func (l *link) open() (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///runtime",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(l.dial),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithIdleTimeout(0),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithUnaryInterceptor(l.call),
	)
	if err != nil {
		return nil, fmt.Errorf("open runtime endpoint %s: %w", l.socket, err)
	}
	return conn, nil
}

func (l *link) dial(ctx context.Context, _ string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", l.socket)
	if err != nil {
		return nil, err //nolint:wrapcheck // the library says what it was for
	}
	l.mu.Lock()
	l.raw = c
	l.silence.opened()
	l.mu.Unlock()
	return c, nil
}

// call makes one call when it has its turn.
func (l *link) call(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	begun, name := time.Now(), path.Base(method)
	done, err := l.turn(ctx, l.turnsOf(name))
	if err != nil {
		l.metrics.observe(name, time.Since(begun), err)
		return err
	}
	defer done()
	asked := time.Now()
	err = call(ctx, method, req, reply, cc, opts...)
	l.metrics.observe(name, time.Since(begun), err)
	if cc.GetState() != connectivity.Ready || errors.Is(ctx.Err(), context.Canceled) {
		return err // there is no connection, or the caller left: that says nothing of this one
	}
	if why := l.heard(err, asked); why != "" {
		l.metrics.resets.Inc()
		l.log.Error("connection to the runtime is opened anew", "reason", why)
	}
	return err
}

// turn waits for one of turns until ctx ends.
func (l *link) turn(ctx context.Context, turns chan struct{}) (done func(), _ error) {
	if turns == nil {
		return func() {}, nil
	}
	l.metrics.waiting.Inc()
	defer l.metrics.waiting.Dec()
	select {
	case turns <- struct{}{}:
		return func() { <-turns }, nil
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err() //nolint:wrapcheck // as of a call that was under way
	}
}

// heard takes note of the end of a call that began at asked, and closes the connection
// when that was one too many without an answer; why says so.
func (l *link) heard(err error, asked time.Time) (why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch status.Code(err) {
	case codes.Unavailable:
	case codes.DeadlineExceeded:
		why = l.silence.unanswered(asked, time.Now())
	default:
		l.silence.answered(time.Now())
	}
	if why != "" && l.raw != nil {
		_ = l.raw.Close() // whatever it says, it is of no use
	}
	return why
}

// silence decides when a connection is given up: three calls in a row had no answer in
// their time, the first of them was asked limit ago, and nothing else was answered
// meanwhile.
type silence struct {
	limit time.Duration
	first time.Time // when the oldest of them was asked
	calls int
	last  time.Time // an answer
}

const enough = 3

func (q *silence) opened() { q.calls = 0 }

func (q *silence) answered(now time.Time) { q.calls, q.last = 0, now }

func (q *silence) unanswered(asked, now time.Time) (why string) {
	if asked.Before(q.last) {
		return "" // something was answered since
	}
	if q.calls++; q.calls == 1 || asked.Before(q.first) {
		q.first = asked
	}
	if q.calls < enough || now.Sub(q.first) < q.limit {
		return ""
	}
	why = fmt.Sprintf("none of the last %d calls was answered, for %s", q.calls, now.Sub(q.first).Round(time.Second))
	q.calls = 0
	return why
}

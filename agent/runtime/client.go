package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Config says where the runtime is and how long calls may take.
type Config struct {
	Endpoint string // path of a unix socket, with or without "unix://"

	// Deadlines; 0 takes the default. They are added to a caller's own, the
	// earlier one wins.
	Read time.Duration // questions; 10 s
	Act  time.Duration // changes; 2 min (StopContainer: grace + 30 s)
	Pull time.Duration // one image; 30 min

	// Silence is how long a connection may answer nothing that is asked; 1 min.
	Silence time.Duration
}

// Client is a Service on the other side of a unix socket.
//
// Retry rule: questions (Version, Status, List…, …Status, …Stats, ImageFsInfo)
// wait within their deadline for a runtime that is restarting. Changes fail at
// once with ErrUnavailable, because the caller must look again before it
// repeats them. The connection comes back by itself, at most 1 s after the
// runtime does; one that answers nothing for Silence is closed and opened anew.
// 32 questions and 32 changes are under way at once, beside those that last
// (PullImage, StopContainer, ExecSync); the others wait within their deadlines.
type Client struct {
	cfg    Config
	link   *link
	conn   *grpc.ClientConn
	events *grpc.ClientConn
	pods   cri.RuntimeServiceClient
	image  cri.ImageServiceClient
	log    *slog.Logger

	mu       sync.Mutex
	shimLogs *bool // nil until asked
}

var _ Service = (*Client)(nil)

const maxMessage = 16 << 20 // bytes of one answer, as Kubernetes allows

// New makes a client. It does not connect yet; the first call does.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Client, error) {
	cfg.Read = cmp.Or(cfg.Read, 10*time.Second)
	cfg.Act = cmp.Or(cfg.Act, 2*time.Minute)
	cfg.Pull = cmp.Or(cfg.Pull, 30*time.Minute)
	cfg.Silence = cmp.Or(cfg.Silence, time.Minute)
	socket := strings.TrimPrefix(cfg.Endpoint, "unix://")
	if !path.IsAbs(socket) {
		return nil, fmt.Errorf("open runtime endpoint %q: want the absolute path of a unix socket", cfg.Endpoint)
	}
	m := newMetrics(reg)
	calls := newLink(socket, cfg.Silence, m, log)
	conn, err := calls.open()
	if err != nil {
		return nil, err
	}
	// Events have a connection of their own: the runtime does not go on removing what
	// it cannot tell of, and must not wait for other answers to be read.
	events, err := newLink(socket, cfg.Silence, m, log).open()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &Client{cfg: cfg, link: calls, conn: conn, events: events, pods: cri.NewRuntimeServiceClient(conn), image: cri.NewImageServiceClient(conn), log: log}, nil
}

// Close ends the connections and every call on them.
func (c *Client) Close() error { return errors.Join(c.conn.Close(), c.events.Close()) }

// WaitReady waits until the runtime answers and says that it can run
// containers. It does not wait for the network. It returns the last reason when
// ctx ends.
func (c *Client) WaitReady(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		st, err := c.Status(ctx)
		if err == nil {
			if err = notReady(st); err == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for runtime: %w", err)
		case <-tick.C:
		}
	}
}

// notReady explains why a runtime cannot run containers; nil if it can.
func notReady(st *cri.RuntimeStatus) error {
	for _, c := range st.GetConditions() {
		if c.Type == cri.RuntimeReady && c.Status {
			return nil
		}
		if c.Type == cri.RuntimeReady {
			return fmt.Errorf("runtime is not ready: %s %s", c.Reason, c.Message)
		}
	}
	return errors.New("runtime does not tell whether it is ready")
}

// Version implements Node.
func (c *Client) Version(ctx context.Context) (*cri.VersionResponse, error) {
	return ask(ctx, c, "read version of runtime", "", c.pods.Version, &cri.VersionRequest{Version: "v1"})
}

// Status implements Node.
func (c *Client) Status(ctx context.Context) (*cri.RuntimeStatus, error) {
	r, err := ask(ctx, c, "read status of runtime", "", c.pods.Status, &cri.StatusRequest{})
	return r.GetStatus(), err
}

// Events implements Node.
func (c *Client) Events(ctx context.Context, fn func(*cri.ContainerEventResponse)) error {
	stream, err := cri.NewRuntimeServiceClient(c.events).GetContainerEvents(ctx, &cri.GetEventsRequest{}, grpc.WaitForReady(true))
	for err == nil {
		var e *cri.ContainerEventResponse
		if e, err = stream.Recv(); err == nil {
			fn(e)
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = ErrUnavailable
	}
	return wrap("watch events of runtime", "", err)
}

// call is one unary CRI method.
type call[Q, A any] func(context.Context, Q, ...grpc.CallOption) (A, error)

// ask puts a question: it waits for a runtime that is not there yet.
func ask[Q, A any](ctx context.Context, c *Client, verb, id string, m call[Q, A], q Q) (A, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Read)
	defer cancel()
	a, err := m(ctx, q, grpc.WaitForReady(true))
	return a, wrap(verb, id, err)
}

// act makes a change within a limit: it fails at once if the runtime is away.
func act[Q, A any](ctx context.Context, limit time.Duration, verb, id string, m call[Q, A], q Q) (A, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	a, err := m(ctx, q)
	return a, wrap(verb, id, err)
}

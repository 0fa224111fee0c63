package runtime

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// far is a runtime at the other end of a socket.
type far struct {
	cri.UnimplementedRuntimeServiceServer
	version, remove func(context.Context) error
	events          chan *cri.ContainerEventResponse
}

func (f *far) Version(ctx context.Context, _ *cri.VersionRequest) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{RuntimeName: "far"}, f.version(ctx)
}

func (f *far) RemovePodSandbox(ctx context.Context, _ *cri.RemovePodSandboxRequest) (*cri.RemovePodSandboxResponse, error) {
	return &cri.RemovePodSandboxResponse{}, f.remove(ctx)
}

func (f *far) ListPodSandbox(context.Context, *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	out := &cri.ListPodSandboxResponse{}
	for range 600 {
		out.Items = append(out.Items, &cri.PodSandbox{Id: strings.Repeat("y", 2000)})
	}
	return out, nil
}

func (f *far) GetContainerEvents(_ *cri.GetEventsRequest, to grpc.ServerStreamingServer[cri.ContainerEventResponse]) error {
	for {
		select {
		case <-to.Context().Done():
			return nil
		case e := <-f.events:
			if err := to.Send(e); err != nil {
				return err
			}
		}
	}
}

// serve answers at a socket until the test ends.
func (f *far) serve(t *testing.T) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "far.sock")
	at, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(s, f)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(at) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return socket
}

// wire passes on what comes at a socket of its own, until it is cut: then its
// connections stay and carry nothing more. Those that come later carry again.
type wire struct {
	socket string
	mu     sync.Mutex
	cut    []chan struct{}
	came   int
}

func (w *wire) run(t *testing.T, to string) {
	t.Helper()
	w.socket = filepath.Join(t.TempDir(), "wire.sock")
	at, err := net.Listen("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = at.Close() })
	go func() {
		for {
			near, err := at.Accept()
			if err != nil {
				return // closed
			}
			other, err := net.Dial("unix", to)
			if err != nil {
				_ = near.Close()
				continue
			}
			cut := make(chan struct{})
			w.mu.Lock()
			w.cut = append(w.cut, cut)
			w.came++
			w.mu.Unlock()
			pass := func(to io.Writer, from io.Reader) {
				b := make([]byte, 4096)
				for {
					n, err := from.Read(b)
					if err != nil {
						_ = other.Close()
						return
					}
					select {
					case <-cut:
						continue // it is read, and goes nowhere
					default:
					}
					if _, err := to.Write(b[:n]); err != nil {
						return
					}
				}
			}
			go pass(other, near)
			go pass(near, other)
		}
	}()
}

func (w *wire) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.cut {
		close(c)
	}
	w.cut = nil
}

func (w *wire) connections() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.came
}

func newClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// A connection that is open and carries nothing is given up, and the next one answers.
func TestAConnectionThatAnswersNothingIsOpenedAnew(t *testing.T) {
	f := &far{version: func(context.Context) error { return nil }}
	w := &wire{}
	w.run(t, f.serve(t))
	c := newClient(t, Config{Endpoint: w.socket, Read: 100 * time.Millisecond, Silence: 200 * time.Millisecond})
	ask := func() error {
		_, err := c.Version(t.Context())
		return err
	}
	until := func(what string, good func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !good(); {
			if time.Now().After(end) {
				t.Fatalf("not within 30 s: %s", what)
			}
		}
	}
	until("an answer", func() bool { return ask() == nil })
	w.stop()
	if err := ask(); err == nil || !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
		t.Fatalf("without a wire: %v", err)
	}
	until("an answer on another connection", func() bool { return ask() == nil })
	if n, resets := w.connections(), testutil.ToFloat64(c.link.metrics.resets); n != 2 || resets != 1 {
		t.Errorf("%d connections, %v given up", n, resets)
	}
}

// A runtime that answers something keeps its connection, however slow the rest is.
func TestASlowRuntimeKeepsItsConnection(t *testing.T) {
	var slow atomic.Bool
	f := &far{version: func(ctx context.Context) error {
		if slow.Swap(!slow.Load()) { // each second one
			<-ctx.Done()
		}
		return nil
	}}
	w := &wire{}
	w.run(t, f.serve(t))
	c := newClient(t, Config{Endpoint: w.socket, Read: 100 * time.Millisecond, Silence: 100 * time.Millisecond})
	for range 12 {
		_, _ = c.Version(t.Context()) // half of them fail
	}
	if n := w.connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestChangesHaveTurnsAndDoNotHoldUpQuestions(t *testing.T) {
	var now, most atomic.Int64
	begun, end := make(chan struct{}, 10*atOnce), make(chan struct{})
	f := &far{version: func(context.Context) error { return nil }, remove: func(context.Context) error {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		begun <- struct{}{}
		<-end
		now.Add(-1)
		return nil
	}}
	c := newClient(t, Config{Endpoint: f.serve(t)})
	var all sync.WaitGroup
	for range 5 * atOnce {
		all.Go(func() {
			if err := c.RemovePodSandbox(t.Context(), "x"); err != nil {
				t.Error(err)
			}
		})
	}
	for range atOnce {
		<-begun
	}
	if _, err := c.Version(t.Context()); err != nil {
		t.Errorf("a question beside them: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := c.RemovePodSandbox(ctx, "late"); err == nil || !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
		t.Errorf("one that does not get its turn: %v", err)
	}
	close(end)
	all.Wait()
	if n := most.Load(); n != atOnce {
		t.Errorf("%d changes at once", n)
	}
	if n := testutil.ToFloat64(c.link.metrics.waiting); n != 0 {
		t.Errorf("%v still wait", n)
	}
}

// Hundreds of changes at once, whose callers leave, with large answers between them:
// without turns both ends come to wait until the other reads.
func TestManyCallsDoNotStopAConnection(t *testing.T) {
	f := &far{version: func(context.Context) error { return nil }, events: make(chan *cri.ContainerEventResponse)}
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	f.remove = func(context.Context) error { // as containerd does: it goes on when its event is taken
		select {
		case f.events <- &cri.ContainerEventResponse{PodSandboxStatus: &cri.PodSandboxStatus{Id: strings.Repeat("x", 4000)}}:
		case <-over:
		}
		return nil
	}
	socket := f.serve(t)
	c := newClient(t, Config{Endpoint: socket, Silence: time.Hour})
	ctx, stop := context.WithCancel(t.Context())
	heard := make(chan error, 1)
	go func() { heard <- c.Events(ctx, func(*cri.ContainerEventResponse) {}) }()
	var all sync.WaitGroup
	for w := range 600 {
		all.Go(func() {
			for range 50 {
				if w%10 == 0 {
					_, _ = c.ListPodSandbox(ctx, nil) // see the end
					continue
				}
				in, leave := context.WithTimeout(ctx, time.Duration(1+w%7)*3*time.Millisecond)
				_ = c.RemovePodSandbox(in, "x") // most leave before
				leave()
			}
		})
	}
	all.Wait()
	if _, err := c.Version(t.Context()); err != nil {
		t.Errorf("after them: %v", err)
	}
	stop()
	if err := <-heard; err != nil {
		t.Error(err)
	}
}

func TestWhenAConnectionIsGivenUp(t *testing.T) {
	at := func(second int) time.Time { return time.Unix(int64(second), 0) }
	q := silence{limit: 30 * time.Second}
	for i, c := range []struct {
		asked, now int
		answered   bool
		give       bool
	}{
		{0, 10, false, false},
		{1, 11, false, false},
		{2, 12, false, false}, // enough, too soon
		{25, 35, false, true},
		{26, 36, false, false}, // it counts anew
		{40, 50, false, false},
		{41, 60, true, false},
		{42, 70, false, false}, // one that was asked before the answer says nothing
		{61, 71, false, false},
		{62, 95, false, false}, // long enough, too few
		{63, 96, false, true},
	} {
		why := ""
		if c.answered {
			q.answered(at(c.now))
		} else {
			why = q.unanswered(at(c.asked), at(c.now))
		}
		if (why != "") != c.give {
			t.Errorf("%d: %q", i, why)
		}
	}
}

package onward

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"perch/logs/ingest"
	"perch/logs/ingest/chunk"
	"perch/logs/record"
	"perch/logs/store"
)

// receiver is an external Forward server.
type receiver struct {
	mu        sync.Mutex
	got       map[string]int
	last      record.Record
	refuse    int
	positions []record.Position
	cert      func() (*tls.Certificate, error) // nil: no TLS
}

func (r *receiver) sink(_ context.Context, records []record.Record, positions []record.Position) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse > 0 {
		r.refuse--
		return errors.New("full")
	}
	for _, x := range records {
		r.got[string(x.Body)]++
		r.last = x
	}
	r.positions = append(r.positions, positions...)
	return nil
}

func (r *receiver) open(t *testing.T, address string) (addr string, stop func()) {
	t.Helper()
	cfg := ingest.Default(address, "far")
	cfg.Keys = []ingest.Key{{Name: "perch", Secret: "s3"}}
	cfg.Certificate, cfg.OnlyTLS = r.cert, r.cert != nil
	reg := prometheus.NewRegistry()
	r.mu.Lock()
	seen := chunk.New(r.positions, reg)
	r.mu.Unlock()
	f, err := ingest.New(cfg, ingest.Parts{Identify: func(netip.Addr) (record.Stream, bool, bool) { return record.Stream{}, false, false }, Sink: r.sink, Seen: seen},
		slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	return f.Addr().String(), run(t, f.Run)
}

func run(t *testing.T, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func (r *receiver) until(t *testing.T, n int) {
	t.Helper()
	limit := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		r.mu.Lock()
		have := len(r.got)
		r.mu.Unlock()
		if have >= n {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%d lines came, want %d", have, n)
		}
	}
}

func TestAllLinesComeOnceThoughBothSidesRestart(t *testing.T) {
	s, err := store.Open(store.Default(t.TempDir()), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	streams := []*record.Stream{{Namespace: "shop", Pod: "a", Container: "c", Node: "n1"}, {Namespace: "shop", Pod: "b", Node: "n1"}}
	total := 0
	put := func(n int) {
		t.Helper()
		var list []record.Record
		for range n {
			list = append(list, record.Record{Time: 1.7e18 + int64(total), Stream: streams[total%2], Body: fmt.Appendf(nil, "line %d", total), Fields: []record.Field{{Key: "k", Value: "v"}}})
			total++
		}
		if err := s.Append(context.Background(), list, nil); err != nil {
			t.Fatal(err)
		}
	}
	r := &receiver{got: map[string]int{}, refuse: 2}
	addr, stopFar := r.open(t, "127.0.0.1:0")
	begin := func() func() {
		cfg := Default(addr, "n1")
		cfg.Key, cfg.Poll, cfg.Lines, cfg.Timeout = "s3", 5*time.Millisecond, 100, 5*time.Second
		o, err := New(cfg, s, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		return run(t, o.Run)
	}
	put(1000)
	stop := begin()
	r.until(t, 1000)
	put(500)
	stop() // at any moment
	stop = begin()
	r.until(t, 1500)
	stopFar()
	put(500) // while nobody is there
	_, stopFar = r.open(t, addr)
	r.until(t, 2000)
	stop()
	stopFar()
	for line, n := range r.got {
		if n != 1 {
			t.Fatalf("%s came %d times", line, n)
		}
	}
	fields := map[string]string{}
	for _, f := range r.last.Fields {
		fields[f.Key] = f.Value
	}
	if fields["namespace"] != "shop" || fields["field.k"] != "v" || fields["node"] != "n1" || r.last.Time/1e9 != 1.7e9 {
		t.Errorf("%d %v", r.last.Time, fields)
	}
}

// However much one stream has, no view is held for long, and the others have their turn.
func TestALongBacklogDoesNotHoldUpOtherStreams(t *testing.T) {
	s := openStore(t, t.TempDir())
	put(t, s, 0, 1000)
	o, r := sending(t, s)
	o.cfg.Lines, o.turn = 100, 0
	pods := map[string]int{}
	for i := range 10 {
		more, err := o.pass(t.Context())
		if err != nil || !more {
			t.Fatal(more, err)
		}
		if i == 4 {
			put(t, s, 1000, 2) // it takes a view of its own each time
		}
		if n := len(r.came()); n != 100*(i+1) {
			t.Fatalf("%d lines came in %d passes", n, i+1)
		}
		pods[pod(r.last)]++
		if behind := int(testutil.ToFloat64(o.m.behind)); behind < 1000-100*(i+1) {
			t.Errorf("%d lines behind after %d passes", behind, i+1)
		}
	}
	if pods["p0"] != 5 || pods["p1"] != 5 {
		t.Errorf("chunks came of %v", pods)
	}
	for more := true; more; {
		var err error
		if more, err = o.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n, behind := len(r.came()), testutil.ToFloat64(o.m.behind); n != 1002 || behind != 0 {
		t.Errorf("%d lines came, %v are behind", n, behind)
	}
}

// A stream whose lines the receiver does not take is not all that is tried.
func TestAStreamThatFailsDoesNotHoldUpOtherStreams(t *testing.T) {
	s := openStore(t, t.TempDir())
	put(t, s, 0, 200)
	first := ""
	address, names := forgetful(t, func(name string) bool {
		if first == "" {
			first = name
		}
		return name != first
	})
	o, err := New(Default(address, "n1"), s, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := o.pass(t.Context()); err == nil {
			t.Fatal("a chunk without an answer is no failure")
		}
		o.hangUp()
	}
	if n := len(names); n != 3 || testutil.ToFloat64(o.m.lines) != 100 {
		t.Errorf("%d chunks were sent, %v lines taken", n, testutil.ToFloat64(o.m.lines))
	}
}

// pod is what a line that came says of its own.
func pod(r record.Record) string {
	for _, f := range r.Fields {
		if f.Key == "pod" {
			return f.Value
		}
	}
	return ""
}

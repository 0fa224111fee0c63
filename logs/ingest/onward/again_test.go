package onward

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tinylib/msgp/msgp"

	"perch/logs/record"
	"perch/logs/store"
)

// forgetful takes chunks, tells their names and hangs up; if answers says so, after
// an acknowledgement.
func forgetful(t *testing.T, answers func(name string) bool) (address string, names chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	names = make(chan string, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			in := msgp.NewReader(c)
			for message, err := in.ReadIntf(); err == nil; message, err = in.ReadIntf() {
				options, _ := message.([]any)[2].(map[string]any)
				name := fmt.Sprint(options["chunk"])
				names <- name
				if !answers(name) {
					break
				}
				_, _ = c.Write(msgp.AppendString(msgp.AppendString(msgp.AppendMapHeader(nil, 1), "ack"), name))
			}
			_ = c.Close()
		}
	}()
	return l.Addr().String(), names
}

func TestAChunkWithoutAnAnswerIsSentAgainAsItWas(t *testing.T) {
	cfg := store.Default(t.TempDir())
	quiet := slog.New(slog.DiscardHandler)
	s, err := store.Open(cfg, quiet, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	st, at := &record.Stream{Namespace: "shop", Pod: "a", Node: "n1"}, int64(1.7e18)
	put := func(n int) {
		t.Helper()
		for range n {
			at++
			if err := s.Append(context.Background(), []record.Record{{Time: at, Stream: st, Body: []byte("line")}}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	heard := 0
	address, names := forgetful(t, func(string) bool { heard++; return heard > 2 })
	begin := func() (stop func()) {
		cfg := Default(address, "n1")
		cfg.Poll, cfg.Lines, cfg.Timeout = time.Millisecond, 100, 5*time.Second
		o, err := New(cfg, s, quiet, prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		return run(t, o.Run)
	}
	next := func() string {
		select {
		case name := <-names:
			return name
		case <-time.After(30 * time.Second):
			return "nothing"
		}
	}
	name := func(first, n int) string {
		return fmt.Sprintf("%016x-%d-%d-%d", st.Hash(), first, n, int64(1.7e18)+int64(first)+1)
	}
	put(5)
	stop := begin()
	have := []string{next()} // which is not answered
	stop()
	put(3)
	stop = begin()
	for range 3 {
		have = append(have, next())
	}
	stop()
	if want := []string{name(0, 5), name(0, 5), name(0, 5), name(5, 3)}; fmt.Sprint(have) != fmt.Sprint(want) {
		t.Errorf("sent %v, want %v", have, want)
	}
}

package ingest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/tinylib/msgp/msgp"

	"perch/logs/ingest/chunk"
	"perch/logs/record"
)

func TestForwardModeMessagesOfAnyLengthAreAcknowledged(t *testing.T) {
	for _, count := range []int{400, 800, 1000, 2000, 4000} {
		m := &memory{}
		f := start(t, m, nil, nil)
		b := msgp.AppendArrayHeader(nil, 3)
		b = msgp.AppendString(b, "t")
		b = msgp.AppendArrayHeader(b, uint32(count))
		for range count {
			b = append(b, anEntry(strings.Repeat("x", 150), 0)...)
		}
		b = msgp.AppendMapHeader(b, 1)
		b = msgp.AppendString(b, "chunk")
		b = msgp.AppendString(b, "c1")
		c := dial(t, f)
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		if have := ack(t, c); have != "c1" || len(m.have()) != count {
			t.Fatalf("%d entries: ack %q, stored %d", count, have, len(m.have()))
		}
	}
}

func TestTwoSendersMayUseTheSameChunkID(t *testing.T) {
	m := &memory{}
	pods := make(chan string, 2)
	pods <- "web-1"
	pods <- "web-2"
	f := start(t, m, nil, func(netip.Addr) (record.Stream, bool, bool) {
		return record.Stream{Namespace: "shop", Pod: <-pods}, true, true
	})
	for range 2 {
		c := dial(t, f)
		if _, err := c.Write(packed("1", "text", false, anEntry("hello", 0))); err != nil {
			t.Fatal(err)
		}
		ack(t, c)
	}
	if n := len(m.have()); n != 2 {
		t.Fatalf("have %d records", n)
	}
}

func TestManySmallEntriesAreRefused(t *testing.T) {
	m := &memory{}
	f := start(t, m, nil, nil)
	c := dial(t, f)
	small := strings.Repeat("\x92\x01\x80", 4<<20/3)
	if _, err := c.Write(packed("c", "gzip", false, zip(t, []byte(small)))); err != nil {
		t.Fatal(err)
	}
	closed(t, c)
}

// A pod may open many connections, and a message that is small when sent may be
// large: what is taken apart at the same time is bounded.
func TestFewMessagesThatUnpackLargeAreStoredAtATime(t *testing.T) {
	const senders = 6
	var many []byte
	for i := range 4000 {
		many = append(many, anEntry(fmt.Sprint(i), 0)...)
	}
	for what, message := range map[string]func(name string) []byte{
		"of many bytes": func(name string) []byte {
			return packed(name, "gzip", false, zip(t, anEntry(strings.Repeat("x", fewUnpacked), 0)))
		},
		"of many records": func(name string) []byte { return packed(name, "text", false, bytes.Repeat(many, 3)) },
	} {
		t.Run(what, func(t *testing.T) {
			release, asked := make(chan struct{}), make(chan struct{}, senders)
			m := &memory{hold: func() { asked <- struct{}{}; <-release }}
			f := start(t, m, nil, nil)
			var all []net.Conn
			for i := range senders {
				c := dial(t, f)
				if _, err := c.Write(message(fmt.Sprint(i))); err != nil {
					t.Fatal(err)
				}
				all = append(all, c)
			}
			limit := time.Now().Add(20 * time.Second)
			for testutil.ToFloat64(f.m.waits) < senders-maxLarge {
				if time.Now().After(limit) {
					t.Fatalf("%v messages wait, %d are being stored", testutil.ToFloat64(f.m.waits), len(asked))
				}
				runtime.Gosched()
			}
			if n := testutil.ToFloat64(f.m.large); n != maxLarge || len(asked) > maxLarge {
				t.Errorf("%v large messages, %d are being stored", n, len(asked))
			}
			close(release)
			for i, c := range all {
				if have := ack(t, c); have != fmt.Sprint(i) {
					t.Errorf("acknowledgement of %q, chunk %d was sent", have, i)
				}
			}
			for testutil.ToFloat64(f.m.large) > 0 {
				if time.Now().After(limit) {
					t.Fatal("shares were not given back")
				}
				runtime.Gosched()
			}
		})
	}
}

// failing has no descriptor free at first.
type failing struct {
	net.Listener
	failed bool
}

func (l *failing) Accept() (net.Conn, error) {
	if !l.failed {
		l.failed = true
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func TestTheDoorStaysOpenWhenAConnectionCannotBeAccepted(t *testing.T) {
	m := &memory{}
	identify := func(netip.Addr) (record.Stream, bool, bool) { return record.Stream{}, false, true }
	reg := prometheus.NewRegistry()
	f, err := New(Default("127.0.0.1:0", "n1"), Parts{Identify: identify, Sink: m.sink, Seen: chunk.New(nil, reg)}, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	f.tcp = &failing{Listener: f.tcp}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	c := dial(t, f)
	if _, err := c.Write(packed("k", "text", false, anEntry("hello", 0))); err != nil {
		t.Fatal(err)
	}
	if have := ack(t, c); have != "k" {
		t.Fatal(have)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

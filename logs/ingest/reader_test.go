package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tinylib/msgp/msgp"
)

func testBudget(limit int64) *budget {
	m := newMetrics(prometheus.NewRegistry())
	return &budget{limit: limit, used: m.pending, waits: m.waits}
}

// pieces is a connection from which bytes come in pieces of random size.
type pieces struct {
	net.Conn
	b    []byte
	rnd  *rand.Rand
	most int // bytes of a piece, 0 for any
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := 1 + p.rnd.IntN(len(b))
	if p.most > 0 {
		n = min(n, p.most)
	}
	n = copy(b[:n], p.b)
	p.b = p.b[n:]
	return n, nil
}

func (p *pieces) SetReadDeadline(time.Time) error { return nil }

func packedMessage(name string, body []byte, kind int) []byte {
	b := msgp.AppendArrayHeader(nil, 3)
	b = msgp.AppendString(b, name)
	if kind == 0 {
		b = msgp.AppendBytes(b, body)
	} else { // entries one after the other; the message does not say how long it is
		b = msgp.AppendArrayHeader(b, 2)
		for range 2 {
			b = msgp.AppendArrayHeader(b, 2)
			b = msgp.AppendInt(b, 7)
			b = msgp.AppendBytes(b, body)
		}
	}
	b = msgp.AppendMapHeader(b, 1)
	b = msgp.AppendString(b, "chunk")
	return msgp.AppendString(b, name)
}

func TestMessagesOfAllSizesComeWholeInPieces(t *testing.T) {
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var sent []byte
		var bodies [][]byte
		for i := range 20 {
			body := bytes.Repeat([]byte{byte(i)}, []int{10, 3000, 20 << 10, 70 << 10, 300 << 10}[rnd.IntN(5)]+rnd.IntN(100))
			bodies = append(bodies, body)
			sent = append(sent, packedMessage(fmt.Sprint(i), body, rnd.IntN(2))...)
		}
		all := testBudget(100 << 10)
		r := &reader{c: &pieces{b: sent, rnd: rnd}, limit: 1 << 20, idle: time.Hour, m: newMetrics(prometheus.NewRegistry()), pending: all}
		for i, body := range bodies {
			m, err := r.next()
			if err != nil {
				t.Fatalf("seed %d: message %d: %v", seed, i, err)
			}
			if m.tag != fmt.Sprint(i) || m.chunk != m.tag || !bytes.Contains(m.packed, body) {
				t.Fatalf("seed %d: message %d came as %q with %d bytes", seed, i, m.tag, len(m.packed))
			}
			r.done()
			if cap(r.buf) > readBytes && len(r.buf)-r.at <= readBytes {
				t.Fatalf("seed %d: %d bytes are kept for a connection at rest", seed, cap(r.buf))
			}
		}
		if _, err := r.next(); !errors.Is(err, io.EOF) {
			t.Fatalf("seed %d: %v after the last message", seed, err)
		}
		r.close()
		if all.taken != 0 {
			t.Fatalf("seed %d: %d bytes are still taken", seed, all.taken)
		}
	}
}

func TestLargeMessagesWaitForMemoryInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := testBudget(100)
		forEver := make(chan struct{})
		if n, err := b.take(forEver, 1000); n != 100 || err != nil { // more than there is: all
			t.Fatal(n, err)
		}
		got := make(chan int, 3)
		ended := make(chan struct{})
		for i, until := range []chan struct{}{ended, forEver, forEver} {
			go func() {
				n, err := b.take(until, 60)
				if err != nil {
					n = -1
				}
				got <- i
				if i == 1 {
					b.give(n)
				}
			}()
			synctest.Wait()
		}
		close(ended) // the first in the row goes away
		if i := <-got; i != 0 {
			t.Fatalf("%d was served", i)
		}
		b.give(100)
		if i, j := <-got, <-got; i != 1 || j != 2 {
			t.Fatalf("served %d, then %d", i, j)
		}
		synctest.Wait()
		if b.taken != 60 || len(b.waiting) != 0 {
			t.Errorf("%d taken, %d wait", b.taken, len(b.waiting))
		}
	})
}

// A PING is the same in pieces as whole, needs no memory of messages, and what follows
// it is the first message.
func FuzzPing(f *testing.F) {
	ping := msgp.AppendArrayHeader(nil, 6)
	for _, s := range []string{"PING", "host", "salt", "digest", "user", "password"} {
		ping = msgp.AppendString(ping, s)
	}
	f.Add(append(ping, packedMessage("a", []byte("x"), 0)...), uint64(1))
	f.Add(ping[:20], uint64(2))
	f.Add([]byte{0xdd, 0xff, 0xff, 0xff, 0xff}, uint64(3))
	f.Add(append(msgp.AppendArrayHeader(nil, 6), 0xdb, 0xff, 0xff, 0xff, 0xff), uint64(4))
	f.Add(append(msgp.AppendString(msgp.AppendArrayHeader(nil, 6), "PING"), bytes.Repeat([]byte{0xa0}, 2*maxPing)...), uint64(5))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		read := func(rnd *rand.Rand, most int) (said string, left []byte, err error) {
			all := testBudget(100 << 10)
			r := &reader{c: &pieces{b: b, rnd: rnd, most: most}, limit: 1 << 20, idle: time.Hour, m: newMetrics(prometheus.NewRegistry()), pending: all}
			host, salt, digest, err := r.ping()
			if r.held != 0 || cap(r.buf) > readBytes {
				t.Fatalf("a PING takes %d bytes and a share of %d", cap(r.buf), r.held)
			}
			return fmt.Sprintf("%q %q %q", host, salt, digest), r.buf[r.at:], err
		}
		said, left, err := read(rand.New(rand.NewPCG(seed, 1)), 1<<20)
		inPieces, _, errPieces := read(rand.New(rand.NewPCG(seed, 2)), 3)
		if said != inPieces || (err == nil) != (errPieces == nil) {
			t.Fatalf("%s %v, in pieces %s %v", said, err, inPieces, errPieces)
		}
		if err == nil && !bytes.Contains(b, left) {
			t.Fatalf("%q follows, of %q", left, b)
		}
	})
}

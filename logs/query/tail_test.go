package query

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"perch/logs/record"
)

// Tails whose readers stand still hold a page each, however much they begin with, and
// others go on.
func TestTailsThatStandStillHoldFewBytes(t *testing.T) {
	s := testStore(t, 1<<20)
	st := &record.Stream{Namespace: "shop", Pod: "web-1"}
	const lines, size = 600, 32 << 10 // 19 MB
	for i := range lines {
		if err := s.Append(t.Context(), []record.Record{{Time: int64(i + 1), Stream: st, Body: fmt.Appendf(bytes.Repeat([]byte("x"), size), "%d", i)}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	heap := func() int64 {
		for range 3 { // what is kept to be used again goes too
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	e := New(s, quiet())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := heap()
	var all, first sync.WaitGroup
	const still = 2 * pageTurns
	first.Add(still)
	for range still {
		once := sync.OnceFunc(first.Done)
		all.Go(func() {
			_ = e.Tail(ctx, Request{Cursor: &Cursor{}}, func(TailEvent) error { once(); <-ctx.Done(); return ctx.Err() }) // it is let go
		})
	}
	first.Wait()
	if more := heap() - before; more > still*3*pageBytes {
		t.Errorf("%d tails that stand still hold %d bytes", still, more)
	}
	var have int64
	another, stop := context.WithCancel(ctx)
	if err := e.Tail(another, Request{Cursor: &Cursor{}}, func(ev TailEvent) error {
		if ev.Live {
			stop()
			return nil
		}
		if ev.Line == nil || ev.Line.Time != have+1 {
			return fmt.Errorf("after %d came %+v", have, ev)
		}
		have++
		return nil
	}); err != nil || have != lines {
		t.Errorf("another tail has %d of %d lines: %v", have, lines, err)
	}
	cancel()
	all.Wait()
}

func TestATailEndsWhenItsClientTakesNothing(t *testing.T) {
	s := testStore(t, 1<<20)
	st := &record.Stream{Namespace: "shop", Pod: "web-1"}
	for i := range 600 { // more than sockets hold
		if err := s.Append(t.Context(), []record.Record{{Time: int64(i + 1), Stream: st, Body: bytes.Repeat([]byte("x"), 64<<10)}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	d := &door{s: New(s, quiet()), allowed: func(context.Context, *http.Request) (Access, error) { return Access{All: true}, nil }, log: quiet(), now: time.Now, wait: 100 * time.Millisecond}
	ended := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		d.tail(w, r)
	}))
	defer srv.Close()
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("GET " + Prefix + "tail?cursor=1.0000000000000000-0 HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Error("it goes on")
	}
}

// A client as there are many, which sends the id of the last event when it comes back,
// misses no line, whatever their times are.
func TestATailGoesOnWithLinesOfEarlierTimes(t *testing.T) {
	s := testStore(t, 1<<20)
	srv := serve(t, s, Access{All: true})
	now := time.Now()
	add := func(after time.Duration, body string) {
		t.Helper()
		if err := s.Append(t.Context(), []record.Record{{Time: now.Add(after).UnixNano(), Stream: &record.Stream{Namespace: "shop", Pod: body}, Body: []byte(body)}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	follow := func(query, last string) (next func() (id, event, data string), stop func()) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+Prefix+"tail?"+query, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if last != "" {
			req.Header.Set("Last-Event-ID", last)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewScanner(resp.Body)
		return func() (id, event, data string) {
			for in.Scan() {
				field, value, _ := strings.Cut(in.Text(), ": ")
				switch {
				case field == "id":
					id = value
				case field == "event":
					event = value
				case field == "data":
					return id, event, value
				}
			}
			t.Fatalf("stream ended: %v", in.Err())
			return "", "", ""
		}, func() { _ = resp.Body.Close() }
	}
	next, stop := follow("", "")
	id, event, _ := next()
	if event != "live" || id == "" {
		t.Fatalf("it begins with %q, id %q", event, id)
	}
	add(24*time.Hour, "clock ahead")
	if id, event, _ = next(); event != "" {
		t.Fatal(event)
	}
	stop()
	add(-time.Second, "late")
	add(0, "new")
	next, stop = follow("", id)
	if _, event, data := next(); event != "resumed" || !strings.Contains(data, `"from"`) {
		t.Fatal(event, data)
	}
	var have []string
	for {
		_, event, data := next()
		if event == "live" {
			break
		}
		l, _, err := ParseLine([]byte(data))
		if err != nil {
			t.Fatal(err)
		}
		have = append(have, string(l.Body))
	}
	stop()
	if got := strings.Join(have, ","); got != "late,new,clock ahead" {
		t.Errorf("again came %s", got)
	}
	// Whoever leaves before it was live begins again.
	next, stop = follow("cursor=1.0000000000000000-0", "")
	defer stop()
	if id, event, _ := next(); event != "" || id != "1.0000000000000000-0" {
		t.Errorf("event %q, id %s", event, id)
	}
}

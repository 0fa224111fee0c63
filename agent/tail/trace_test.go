package tail

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/record"
)

// What the runtimes of four languages print, with plain lines around.
func languages() map[string]string {
	return map[string]string{
		"Java": `java.lang.IllegalStateException: no stock
	at shop.Stock.take(Stock.java:42)
	at shop.Main.main(Main.java:7)
Caused by: java.io.IOException: disk
	at shop.Disk.read(Disk.java:9)
	... 2 more`,
		"Java without a handler": `Exception in thread "main" shop.Oops
	at shop.Main.main(Main.java:7)`,
		"Python": `Traceback (most recent call last):
  File "a.py", line 1, in <module>
    f()
KeyError: 'a'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 3, in <module>
ValueError: bad`,
		"Go": `panic: boom [recovered]
	panic: boom

goroutine 1 [running]:
main.(*T).f(0x1, {0x2, 0x3})
	/src/main.go:5 +0x1d
created by main.main in goroutine 2
	/src/main.go:9 +0x25

goroutine 7 [select]:
net/http.(*Server).Serve(...)
	/src/server.go:1`,
		"Node": `TypeError: Cannot read properties of undefined (reading 'x')
    at f (/app/a.js:1:2)
    at Object.<anonymous> (/app/b.js:3:4) {
  code: 'E1'
}`,
	}
}

func TestStackTracesAreOneRecord(t *testing.T) {
	for name, text := range languages() {
		t.Run(name, func(t *testing.T) {
			dir, m := t.TempDir(), newMemory()
			tl := start(t, dir, m)
			c := newWriter(t, dir, podName)
			c.say("stderr", "F", "before")
			for i, line := range strings.Split(text, "\n") {
				c.say("stderr", "F", line)
				c.say("stdout", "F", fmt.Sprint("other ", i)) // stands between
			}
			c.say("stderr", "F", "after: plain")
			c.say("stderr", "F", text[:strings.IndexByte(text, '\n')]) // a trace of one line, with nothing after it
			n := strings.Count(text, "\n") + 1
			m.until(t, n+4)
			var have []string
			for _, l := range m.have() {
				if l, ok := strings.CutPrefix(l, "stderr "); ok {
					have = append(have, l)
				}
			}
			want := []string{"before", text, "after: plain", text[:strings.IndexByte(text, '\n')]}
			if fmt.Sprintf("%q", have) != fmt.Sprintf("%q", want) {
				t.Fatalf("have %q\nwant %q", have, want)
			}
			lines := int64(2*n + 3)
			eventually(t, "not all is counted", func() bool { return tl.sum() == counts{read: lines, stored: lines} })
			eventually(t, "never drained", func() bool { return tl.Drained(filepath.Join(dir, podName)) })
		})
	}
}

func TestPlainLinesAreNotHeld(t *testing.T) {
	for _, line := range []string{"", "INFO panic: none here", "no Error", "an Error: x", "error", "GET / 200", "Error rate is low", "  indented", "at once", "goroutine leak", "{\"Error\":1}"} {
		if beginsTrace([]byte(line)) != noTrace {
			t.Errorf("%q begins a trace", line)
		}
	}
}

func TestJoiningCanBeSwitchedOffAndATraceHasAnEnd(t *testing.T) {
	run := func(traces bool, lines int) []string {
		dir, m := t.TempDir(), newMemory()
		cfg := Default(dir, "n1")
		cfg.Poll, cfg.Settle, cfg.Traces = 50*time.Millisecond, time.Millisecond, traces
		tl, err := New(cfg, m, m.sink, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		c := newWriter(t, dir, podName)
		c.say("stderr", "F", "ValueError: bad")
		for range lines {
			c.say("stderr", "F", "  at x")
		}
		go func() { done <- tl.Run(ctx) }()
		eventually(t, "not drained", func() bool { return tl.Drained(dir) })
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		return m.have()
	}
	if have := run(false, 5); len(have) != 6 {
		t.Errorf("have %q", have)
	}
	if have := run(true, maxTraceLines+9); len(have) != 11 {
		t.Errorf("%d records, want one of %d lines and 10 plain ones", len(have), maxTraceLines)
	}
}

func TestATraceIsNeitherLostNorDoubledByARestart(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	c := newWriter(t, dir, podName)
	text := languages()["Java"]
	var want []string
	tl := start(t, dir, m)
	for i := range 20 {
		for k, line := range strings.Split(fmt.Sprintf("%s %d", text, i), "\n") {
			c.say("stderr", "F", line)
			c.say("stdout", "F", fmt.Sprintf("plain %d %d", i, k))
			if i%3 == 0 && k == 2 {
				tl.stop()
				tl = start(t, dir, m)
			}
			if i%5 == 0 && k == 3 {
				c.rotate()
			}
		}
		want = append(want, fmt.Sprintf("stderr %s %d", text, i))
	}
	m.until(t, 20*7)
	seen := map[string]int{}
	for _, l := range m.have() {
		seen[l]++
		if seen[l] > 1 {
			t.Fatalf("%q is there twice", l)
		}
	}
	for _, w := range want {
		if seen[w] != 1 {
			t.Errorf("%q is missing", w)
		}
	}
}

func TestALineWithoutItsEndAppearsWhenTheContainerHasEnded(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	cfg := Default(dir, "n1")
	cfg.Poll, cfg.Finish = time.Hour, time.Hour
	tl, err := New(cfg, m, m.sink, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tl.Run(ctx) }()
	c := newWriter(t, dir, podName)
	c.say("stdout", "F", "first")
	c.say("stdout", "P", "no newline")
	m.until(t, 1)
	if n := len(m.have()); n != 1 {
		t.Fatalf("%d lines while the container may go on with its line", n)
	}
	if err := c.f.Close(); err != nil {
		t.Fatal(err)
	}
	if have := m.until(t, 2); have[1] != "stdout no newline" {
		t.Fatalf("have %q", have)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// counter is a store that only looks whether lines come in order, each once.
type counter struct {
	*memory
	mu   sync.Mutex
	next int
	bad  string
}

func (c *counter) sink(_ context.Context, records []record.Record, positions []record.Position) error {
	c.mu.Lock()
	for _, r := range records {
		var n int
		if _, err := fmt.Sscanf(string(r.Body), "line %d", &n); (err != nil || n != c.next) && c.bad == "" {
			c.bad = fmt.Sprintf("%q came, line %d was expected", r.Body, c.next)
		}
		c.next = n + 1
	}
	c.mu.Unlock()
	return c.memory.sink(context.Background(), nil, positions)
}

func (c *counter) have() (int, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.next, c.bad
}

func TestABurstOfAMillionLinesThroughRotationAndRestarts(t *testing.T) {
	const lines, each = 1_000_000, 100_000
	dir, m := t.TempDir(), &counter{memory: newMemory()}
	begin := func() (stop func()) {
		tl, err := New(Default(dir, "n1"), m, m.sink, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- tl.Run(ctx) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	stop := begin()
	c := newWriter(t, dir, podName)
	var b strings.Builder
	for i := range lines {
		fmt.Fprintf(&b, "2026-11-20T10:11:12.123456789Z stdout F line %d of a burst that is long enough\n", i)
		if b.Len() > 1<<20 || i%each == each-1 {
			c.raw(b.String())
			b.Reset()
		}
		if i%each == each-1 && i < lines-1 {
			c.rotate()
		}
		if i == lines/3 || i == lines/2 {
			stop()
			stop = begin()
		}
	}
	eventually(t, "not all lines came", func() bool { n, bad := m.have(); return n == lines || bad != "" })
	stop()
	if n, bad := m.have(); bad != "" || n != lines {
		t.Fatalf("%d lines: %s", n, bad)
	}
}

func FuzzTrace(f *testing.F) {
	for _, text := range languages() {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		state := noTrace
		for line := range strings.SplitSeq(string(b), "\n") {
			if next, more := state.next([]byte(line)); more {
				if state == noTrace || next == noTrace {
					t.Fatal("a plain line goes on")
				}
				state = next
			} else {
				state = beginsTrace([]byte(line))
			}
		}
	})
}

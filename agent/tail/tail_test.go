package tail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"perch/logs/record"
)

// memory is a store that keeps lines and positions together.
type memory struct {
	mu        sync.Mutex
	lines     []string // "stream body"
	records   []record.Record
	positions map[string]record.Position
	refuse    func() bool
	changed   chan struct{}
}

func newMemory() *memory {
	return &memory{positions: map[string]record.Position{}, changed: make(chan struct{}, 1)}
}

func posKey(file string, inode uint64) string { return fmt.Sprintf("%s %d", file, inode) }

func (m *memory) sink(_ context.Context, records []record.Record, positions []record.Position) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse != nil && m.refuse() {
		return errors.New("full")
	}
	for _, r := range records {
		r.Body = []byte(string(r.Body))
		m.records = append(m.records, r)
		m.lines = append(m.lines, r.Stream.Output+" "+string(r.Body))
	}
	for _, p := range positions {
		m.positions[posKey(p.File, p.Inode)] = p
	}
	select {
	case m.changed <- struct{}{}:
	default:
	}
	return nil
}

func (m *memory) Position(file string, inode uint64) (record.Position, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.positions[posKey(file, inode)]
	return p, ok
}

func (m *memory) Positions() (out []record.Position) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.positions {
		out = append(out, p)
	}
	return out
}

func (m *memory) Forget(file string, inode uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.positions, posKey(file, inode))
}

func (m *memory) have() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.lines...)
}

// until waits for the store to hold n lines.
func (m *memory) until(t *testing.T, n int) []string {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		if have := m.have(); len(have) >= n {
			return have
		}
		select {
		case <-m.changed:
		case <-limit:
			t.Fatalf("have %d lines, want %d: %q", len(m.have()), n, m.have()[max(0, len(m.have())-3):])
		}
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal(what)
		}
	}
}

type running struct {
	*Tail
	reg  *prometheus.Registry
	stop func()
}

func quick(dir string) Config {
	cfg := Default(dir, "n1")
	cfg.Poll, cfg.Settle, cfg.Finish, cfg.Linger = 100*time.Millisecond, 2*time.Millisecond, 300*time.Millisecond, 0
	return cfg
}

func start(t *testing.T, dir string, m *memory) running {
	t.Helper()
	return startWith(t, quick(dir), m)
}

// startPatient waits for the rest of a line as long as any test takes.
func startPatient(t *testing.T, dir string, m *memory) running {
	t.Helper()
	cfg := quick(dir)
	cfg.Finish = time.Hour
	return startWith(t, cfg, m)
}

func startWith(t *testing.T, cfg Config, m *memory) running {
	t.Helper()
	reg := prometheus.NewRegistry()
	tl, err := New(cfg, m, m.sink, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tl.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return running{tl, reg, stop}
}

// A machine that loses its power keeps what the store has, and not always the end of
// the file it was read from.
func TestAFileWhoseEndIsGoneIsNotReadAnew(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	tl := start(t, dir, m)
	c := newWriter(t, dir, podName)
	for _, line := range []string{"one", "two", "three"} {
		c.say("stdout", "F", line)
		c.say("stderr", "F", line)
	}
	m.until(t, 6)
	tl.stop()
	info, err := c.f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.f.Truncate(info.Size() - 70); err != nil { // in the middle of the last but one
		t.Fatal(err)
	}
	cfg := quick(dir)
	cfg.Booted = time.Now().Add(time.Hour) // nothing was written since
	tl = startWith(t, cfg, m)
	eventually(t, "never drained", func() bool { return testutil.ToFloat64(tl.m.files) == 1 && tl.Drained(dir) })
	c.say("stdout", "F", "four")
	have := m.until(t, 7)
	if n := tl.sum(); len(have) != 7 || have[6] != "stdout four" || n.read != 7 || n.dropped != [reasonCount]int64{} {
		t.Errorf("%q, counted %+v", have, n)
	}
}

// writer is a runtime that writes a log file.
type writer struct {
	t   *testing.T
	dir string
	f   *os.File
	n   int
}

func newWriter(t *testing.T, root, podDir string) *writer {
	t.Helper()
	c := &writer{t: t, dir: filepath.Join(root, podDir, "app")}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c.reopen()
	return c
}

func (c *writer) reopen() {
	c.t.Helper()
	if c.f != nil {
		_ = c.f.Close()
	}
	f, err := os.OpenFile(filepath.Join(c.dir, "0.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	c.f = f
}

func (c *writer) rotate() {
	c.t.Helper()
	c.n++
	if err := os.Rename(filepath.Join(c.dir, "0.log"), filepath.Join(c.dir, fmt.Sprintf("0.log.%04d", c.n))); err != nil {
		c.t.Fatal(err)
	}
	c.reopen()
}

func (c *writer) raw(s string) {
	c.t.Helper()
	if _, err := c.f.WriteString(s); err != nil {
		c.t.Fatal(err)
	}
}

func (c *writer) say(output, tag, body string) {
	c.t.Helper()
	c.raw("2026-11-20T10:11:12.123456789Z " + output + " " + tag + " " + body + "\n")
}

const podName = "shop_web-1_uid-1"

func TestLinesCarryIdentityAndTime(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	start(t, dir, m)
	c := newWriter(t, dir, podName)
	c.say("stderr", "F", "hello world")
	m.until(t, 1)
	r := m.records[0]
	want := record.Stream{Namespace: "shop", Pod: "web-1", UID: "uid-1", Container: "app", Instance: "0", Node: "n1", Output: "stderr", Kind: "log"}
	if *r.Stream != want || string(r.Body) != "hello world" || r.Time != time.Date(2026, 11, 20, 10, 11, 12, 123456789, time.UTC).UnixNano() {
		t.Fatalf("%+v %+v", r.Stream, r)
	}
}

func TestPartsAreJoinedAcrossInterleavingRotationAndRestart(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	tl := startPatient(t, dir, m)
	c := newWriter(t, dir, podName)
	c.say("stdout", "P", "one ")
	c.say("stderr", "F", "other")
	c.say("stdout", "P", "two ")
	m.until(t, 1)
	tl.stop() // the line is only begun
	tl = startPatient(t, dir, m)
	c.rotate()
	c.say("stderr", "F", "second file")
	m.until(t, 2)
	old := filepath.Join(c.dir, "0.log.0001")
	if tl.Drained(old) {
		t.Fatal("drained before the line was whole")
	}
	c.say("stdout", "F", "three")
	have := m.until(t, 3)
	if strings.Join(have, "|") != "stderr other|stderr second file|stdout one two three" {
		t.Fatalf("%q", have)
	}
	eventually(t, "never drained", func() bool { return tl.Drained(old) && tl.Drained(dir) })
	eventually(t, "the ledger of both runs does not count 5 lines", func() bool { return tl.sum() == counts{read: 5, stored: 5} })
}

func TestOddLines(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	tl := start(t, dir, m)
	c := newWriter(t, dir, podName)
	c.raw("not CRI at all\n\n")
	c.say("stdout", "F", "")
	c.say("stdout", "F:tag", " spaces  kept ")
	long := strings.Repeat("x", record.MaxBody)
	for range 3 {
		c.say("stdout", "P", long[:100_000])
	}
	c.say("stdout", "F", "end")
	c.say("stdout", "P", "never finished")
	have := m.until(t, 5)
	want := []string{"stdout not CRI at all", "stdout ", "stdout  spaces  kept ", "stdout " + long + " …[cut: 37859 bytes more]", "stdout never finished"}
	for i, w := range want {
		if have[i] != w {
			t.Fatalf("line %d: have %.80q (%d), want %.80q (%d)", i, have[i], len(have[i]), w, len(w))
		}
	}
	c.raw("2026-11-20T10:11:12Z stdout F torn by a crash")
	eventually(t, "torn end blocks", func() bool { return tl.Drained(filepath.Join(dir, podName)) })
	if d := tl.sum().dropped[reasonFormat]; d != 1 {
		t.Fatalf("dropped %v", d)
	}
}

func TestNothingIsLostOrDoubledThroughRotationRestartAndRefusal(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	dir, m := t.TempDir(), newMemory()
	refusals := rand.New(rand.NewPCG(seed, 1))
	m.refuse = func() bool { return refusals.IntN(4) == 0 }
	tl := startPatient(t, dir, m)
	var pods []*writer
	for i := range 4 {
		pods = append(pods, newWriter(t, dir, fmt.Sprintf("shop_web-%d_u%d", i, i)))
	}
	want := map[string]int{}
	counts := make([]int, 4)
	for range 3000 {
		i := rnd.IntN(4)
		c := pods[i]
		line := fmt.Sprintf("pod %d line %d", i, counts[i])
		counts[i]++
		want["stdout "+line]++
		if rnd.IntN(5) == 0 {
			k := rnd.IntN(len(line))
			c.say("stdout", "P", line[:k])
			if rnd.IntN(6) == 0 {
				c.rotate()
			}
			c.say("stdout", "F", line[k:])
		} else {
			c.say("stdout", "F", line)
		}
		switch rnd.IntN(150) {
		case 0:
			c.rotate()
		case 1:
			tl.stop()
			tl = startPatient(t, dir, m)
		case 2: // an old file is removed once it is drained
			old, _ := filepath.Glob(filepath.Join(c.dir, "0.log.*"))
			if len(old) > 0 && tl.Drained(old[0]) {
				if err := os.Remove(old[0]); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	have := m.until(t, len(want))
	eventually(t, "never drained", func() bool { return tl.Drained(dir) })
	next := map[string]int{}
	for _, l := range have {
		want[l]--
		var pod, n int
		if _, err := fmt.Sscanf(l, "stdout pod %d line %d", &pod, &n); err != nil || n != next[fmt.Sprint(pod)] {
			t.Fatalf("%q out of order", l)
		}
		next[fmt.Sprint(pod)]++
	}
	for l, n := range want {
		if n != 0 {
			t.Fatalf("%q: %d missing", l, n)
		}
	}
}

func TestShortLivedPodsAreReadWhole(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	tl := start(t, dir, m)
	const pods = 200
	for i := range pods {
		c := newWriter(t, dir, fmt.Sprintf("jobs_job-%d_u%d", i, i))
		c.say("stdout", "F", fmt.Sprintf("first of %d", i))
		c.say("stderr", "F", fmt.Sprintf("last of %d", i))
		_ = c.f.Close()
		podDir := filepath.Dir(c.dir)
		eventually(t, "never drained", func() bool { return tl.Drained(podDir) })
		if err := os.RemoveAll(podDir); err != nil {
			t.Fatal(err)
		}
	}
	if have := m.have(); len(have) != 2*pods {
		t.Fatalf("have %d lines", len(have))
	}
	eventually(t, "files stay", func() bool { return testutil.ToFloat64(tl.m.files) == 0 && testutil.ToFloat64(tl.m.open) == 0 })
	if n := tl.series(t); n != 2*pods {
		t.Errorf("%d series of containers that are gone, whose last sample nobody took, want %d", n, 2*pods)
	}
	eventually(t, "series stay", func() bool { return tl.series(t) == 0 })
	if have := m.Positions(); len(have) != 1 || have[0] != (record.Position{File: ledgerFile, Stdout: 2 * pods, Stderr: 2 * pods}) {
		t.Errorf("positions %v stay beside what the node read and stored", have)
	}
}

func TestPositionOfAnotherFileWithTheSameInodeIsNotTaken(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	c := newWriter(t, dir, podName)
	c.say("stdout", "F", "new file")
	info, err := os.Stat(filepath.Join(c.dir, "0.log"))
	if err != nil {
		t.Fatal(err)
	}
	key := podName + "/app/0"
	m.positions[posKey(key, inodeOf(info))] = record.Position{File: key, Inode: inodeOf(info), Print: 1, Stdout: 30, Stderr: 30}
	gone := podName + "/app/7"
	m.positions[posKey(gone, 1)] = record.Position{File: gone, Inode: 1}
	m.positions[posKey("of somebody else", 1)] = record.Position{File: "of somebody else", Inode: 1}
	tl := start(t, dir, m)
	m.until(t, 1)
	eventually(t, "the position of a file that is gone stays", func() bool { _, ok := m.Position(gone, 1); return !ok })
	if _, ok := m.Position("of somebody else", 1); !ok {
		t.Error("the position of somebody else is gone")
	}
	eventually(t, "never drained", func() bool { return tl.Drained(dir) })
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("2026-11-20T10:11:12.123456789Z stdout F hello"))
	f.Add([]byte("2026-11-20T10:11:12+01:00 stderr P:x "))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, ok := parse(b)
		if ok && len(l.body) > len(b) {
			t.Fatal("body is longer than the line")
		}
		parsePod(string(b))
		parseFile(string(b))
		fingerprint(b)
	})
}

func FuzzTime(f *testing.F) {
	f.Add("2026-11-20T10:11:12.123456789Z")
	f.Add("2026-02-31T10:11:12Z")
	f.Fuzz(func(t *testing.T, s string) {
		want, err := time.Parse(time.RFC3339Nano, s)
		have, ok := parseTime([]byte(s))
		if err == nil && ok && have != want.UnixNano() {
			t.Fatalf("%s: have %d, want %d", s, have, want.UnixNano())
		}
	})
}

func BenchmarkParse(b *testing.B) {
	line := []byte("2026-11-20T10:11:12.123456789Z stdout F INFO request served path=/api/v1/cart status=200 took=12ms")
	b.ReportAllocs()
	for b.Loop() {
		parse(line)
	}
}

package tail

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"perch/logs/record"
)

// sum is what the ledger says of the node.
func (r running) sum() counts {
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	return r.ledger.node.now
}

// series is how many series of containers a sample of the ledger has.
func (r running) series(t *testing.T) int {
	t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "perch_tail_container_") {
			n += len(f.GetMetric())
		}
	}
	return n
}

// shows wants lines of a sample of the ledger.
func (r running) shows(t *testing.T, want string, names ...string) {
	t.Helper()
	if err := testutil.GatherAndCompare(r.reg, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

func TestTheLedgerCountsSourceLinesOfEachContainer(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	tl := start(t, dir, m)
	c := newWriter(t, dir, podName)
	c.say("stdout", "F", "whole")
	c.say("stdout", "P", "in ")
	c.raw("\n") // within a line of parts
	c.say("stdout", "P", "three ")
	c.say("stdout", "F", "parts")
	c.say("stderr", "F", "java.io.IOException: disk")
	c.say("stderr", "F", "\tat a.b(c.java:1)")
	c.raw("\n")
	other := newWriter(t, dir, "shop_web-2_uid-2")
	other.say("stdout", "F", "other")
	eventually(t, "not all is counted", func() bool { return tl.sum().read == 9 })
	want := `
# HELP perch_tail_container_dropped_lines_total Source lines of a container that are not stored; there once there is one.
# TYPE perch_tail_container_dropped_lines_total counter
perch_tail_container_dropped_lines_total{container="app",namespace="shop",pod="web-1",reason="format"} 2
# HELP perch_tail_container_read_lines_total Source lines read of a container: read = stored + dropped.
# TYPE perch_tail_container_read_lines_total counter
perch_tail_container_read_lines_total{container="app",namespace="shop",pod="web-1"} 8
perch_tail_container_read_lines_total{container="app",namespace="shop",pod="web-2"} 1
# HELP perch_tail_container_stored_lines_total Source lines of a container made durable.
# TYPE perch_tail_container_stored_lines_total counter
perch_tail_container_stored_lines_total{container="app",namespace="shop",pod="web-1"} 6
perch_tail_container_stored_lines_total{container="app",namespace="shop",pod="web-2"} 1
# HELP perch_tail_dropped_lines_total Source lines that are not stored.
# TYPE perch_tail_dropped_lines_total counter
perch_tail_dropped_lines_total{reason="format"} 2
perch_tail_dropped_lines_total{reason="gone"} 0
perch_tail_dropped_lines_total{reason="truncated"} 0
# HELP perch_tail_read_lines_total Source lines read: read = stored + dropped.
# TYPE perch_tail_read_lines_total counter
perch_tail_read_lines_total 9
# HELP perch_tail_stored_lines_total Source lines made durable; a joined line counts each.
# TYPE perch_tail_stored_lines_total counter
perch_tail_stored_lines_total 7
`
	names := []string{"perch_tail_container_dropped_lines_total", "perch_tail_container_read_lines_total", "perch_tail_container_stored_lines_total",
		"perch_tail_dropped_lines_total", "perch_tail_read_lines_total", "perch_tail_stored_lines_total"}
	tl.shows(t, want, names...)
	tl.stop()
	tl = start(t, dir, m)
	tl.shows(t, want, names...) // before anything is read again
	other.say("stdout", "F", "more")
	eventually(t, "counting does not go on", func() bool { return tl.sum().read == 10 && tl.sum().stored == 8 })
}

func TestTheLedgerBalancesThroughRotationRestartAndRefusal(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	dir, m := t.TempDir(), newMemory()
	refusals := rand.New(rand.NewPCG(seed, 1))
	m.refuse = func() bool { return refusals.IntN(4) == 0 }
	tl := start(t, dir, m)
	var last counts
	forward := func() {
		now := tl.sum()
		if now.read < last.read || now.stored < last.stored {
			t.Fatalf("counts went back from %+v to %+v", last, now)
		}
		if dropped := now.dropped[reasonFormat] + now.dropped[reasonGone] + now.dropped[reasonTruncated]; now.read != now.stored+dropped {
			t.Fatalf("read %d lines, stored %d, dropped %d", now.read, now.stored, dropped)
		}
		last = now
	}
	c := newWriter(t, dir, podName)
	lines, empty := int64(0), int64(0)
	for range 4000 {
		switch lines++; rnd.IntN(10) {
		case 0:
			c.say("stderr", "P", "part ")
		case 1:
			c.say("stdout", "F", "TypeError: x")
		case 2:
			c.say("stdout", "F", "    at f")
		case 3:
			c.raw("\n")
			empty++
		case 4:
			c.raw("not of a runtime\n")
		default:
			c.say([]string{"stdout", "stderr"}[rnd.IntN(2)], "F", "plain")
		}
		switch rnd.IntN(200) {
		case 0:
			c.rotate()
		case 1:
			tl.stop()
			forward()
			tl = start(t, dir, m)
		}
		if rnd.IntN(50) == 0 {
			forward()
		}
	}
	c.say("stderr", "F", "end")
	c.say("stdout", "F", "end")
	lines += 2
	eventually(t, "not all is counted", func() bool { return tl.sum().read >= lines })
	forward()
	if last.read != lines || last.dropped[reasonFormat] != empty {
		t.Fatalf("%d lines were written, %d of them empty: %+v", lines, empty, last)
	}
}

func TestWhatIsLostIsCounted(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	tl := start(t, dir, m)
	c := newWriter(t, dir, podName)
	c.say("stdout", "F", "one")
	c.say("stdout", "F", "two")
	m.until(t, 2)
	if err := c.f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	c.say("stdout", "F", "3")
	eventually(t, "a file that became shorter is not counted", func() bool { return tl.sum().dropped[reasonTruncated] == 1 })
	m.until(t, 3)
	c.raw("2026-11-20T10:11:12Z stdout F without its end")
	eventually(t, "not seen", func() bool { return testutil.ToFloat64(tl.m.lag) > 0 })
	if err := os.RemoveAll(filepath.Dir(c.dir)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a line that cannot be read is not counted", func() bool { return tl.sum().dropped[reasonGone] == 1 })
	if have := tl.sum(); have.read != 5 || have.stored != 3 {
		t.Fatalf("%+v", have)
	}
}

func TestBeyondTheLimitOnlyTheNodeCounts(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	cfg := Default(dir, "n1")
	cfg.Poll, cfg.Settle, cfg.Ledgers, cfg.Linger = 50*time.Millisecond, time.Millisecond, 3, time.Hour
	tl := startWith(t, cfg, m)
	for i := range 5 {
		c := newWriter(t, dir, fmt.Sprintf("shop_web-%d_u%d", i, i))
		c.say("stdout", "F", "hello")
		m.until(t, i+1)
	}
	eventually(t, "not all is counted", func() bool { return tl.sum().stored == 5 })
	if n := tl.series(t); n != 2*3 {
		t.Fatalf("%d series of 3 containers", n)
	}
	if n := testutil.ToFloat64(tl.ledger.m.refused); n != 2 {
		t.Fatalf("%v refused, want 2", n)
	}
	if err := os.RemoveAll(filepath.Join(dir, "shop_web-0_u0")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the file stays", func() bool { return testutil.ToFloat64(tl.m.files) == 4 })
	newWriter(t, dir, "shop_next_u").say("stdout", "F", "hello")
	m.until(t, 6)
	if n := testutil.ToFloat64(tl.ledger.m.unsampled); n != 1 {
		t.Fatalf("%v made room before their last sample, want 1", n)
	}
	for _, p := range m.Positions() {
		if p.File == ledgerFile+"shop_web-0_u0/app" {
			t.Fatal("the counts of the one that made room are still stored")
		}
	}
}

func TestOfManyFilesFewAreOpen(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	cfg := Default(dir, "n1")
	cfg.Poll, cfg.Settle, cfg.OpenFiles = 50*time.Millisecond, time.Millisecond, 4
	tl := startWith(t, cfg, m)
	var pods []*writer
	for i := range 20 {
		pods = append(pods, newWriter(t, dir, fmt.Sprintf("shop_web-%d_u%d", i, i)))
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	// Each line has a time of its own: by its first line a file is known from one
	// that had its inode before.
	clock := time.Date(2026, 11, 20, 10, 11, 12, 0, time.UTC)
	say := func(c *writer, tag, body string) {
		clock = clock.Add(time.Nanosecond)
		c.raw(clock.Format("2006-01-02T15:04:05.000000000Z07:00") + " stdout " + tag + " " + body + "\n")
	}
	want := map[string]int{}
	for n := range 2000 {
		i := rnd.IntN(len(pods))
		line := fmt.Sprintf("pod %d line %d", i, n)
		want["stdout "+line]++
		if rnd.IntN(5) == 0 { // begun here, and perhaps ended in the next file
			say(pods[i], "P", line[:4])
			line = line[4:]
		}
		if rnd.IntN(20) == 0 {
			pods[i].rotate()
			if old, _ := filepath.Glob(filepath.Join(pods[i].dir, "0.log.*")); tl.Drained(old[0]) { // its inode may be used again
				if err := os.Remove(old[0]); err != nil {
					t.Fatal(err)
				}
			}
		}
		say(pods[i], "F", line)
		if n%100 == 0 {
			m.until(t, n+1)
			if open := testutil.ToFloat64(tl.m.open); open > 4 {
				t.Fatalf("%v files are open", open)
			}
		}
	}
	for _, l := range m.until(t, len(want)) {
		if want[l]--; want[l] < 0 {
			t.Fatalf("%q came twice", l)
		}
	}
	eventually(t, "never drained", func() bool { return tl.Drained(dir) })
	if testutil.ToFloat64(tl.m.reopened) == 0 {
		t.Error("no file was closed and opened again")
	}
	if s := tl.sum(); s.read != s.stored {
		t.Errorf("%+v", s)
	}
}

func TestAnotherFileWithTheInodeOfAClosedOneIsReadFromItsBeginning(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	cfg := Default(dir, "n1")
	cfg.OpenFiles = 1
	tl := startWith(t, cfg, m)
	tl.stop()
	c := newWriter(t, dir, podName)
	c.say("stdout", "F", "first")
	path := filepath.Join(c.dir, "0.log")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := tl.begin(&attempt{key: podName + "/app/0"}, path, info)
	if err != nil {
		t.Fatal(err)
	}
	f.print, f.read, f.done = 1, 10, [2]int64{10, 10}
	tl.shut(f)
	if _, err := tl.handle(f); err != nil || f.read != 0 || f.done != [2]int64{} {
		t.Fatalf("reading goes on at %d, %v: %v", f.read, f.done, err)
	}
	tl.shut(f)
}

func TestLedgerOfAnEarlierRunIsLetGoAfterASample(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	name := ledgerFile + "shop_gone_u/app"
	m.positions[posKey(name, 0)] = record.Position{File: name, Stdout: 3, Stderr: 2}
	m.positions[posKey(name, 1)] = record.Position{File: name, Inode: 1, Stdout: 1}
	tl := start(t, dir, m)
	if n := tl.series(t); n != 3 {
		t.Fatalf("%d series", n)
	}
	eventually(t, "counts stay", func() bool { return len(m.Positions()) == 0 && tl.series(t) == 0 })
}

func TestTheDelayOfLinesIsMeasured(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	tl := start(t, dir, m)
	c := newWriter(t, dir, podName)
	c.raw(time.Now().UTC().Format(time.RFC3339Nano) + " stdout F now\n")
	c.raw(time.Now().Add(-time.Minute-time.Second).UTC().Format(time.RFC3339Nano) + " stdout F a minute ago\n")
	m.until(t, 2)
	eventually(t, "not measured", func() bool { tl.ledger.mu.Lock(); defer tl.ledger.mu.Unlock(); return tl.ledger.delays.count == 2 })
	d := tl.ledger.delays
	minute := len(d.bounds) - 2
	if d.bounds[minute] != 5*time.Minute || d.in[minute] != 1 || d.sum < time.Minute || d.sum > 3*time.Minute {
		t.Fatalf("%+v", d)
	}
}

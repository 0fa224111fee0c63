package wal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func open(t *testing.T, cfg Config) (*Log, []string) {
	t.Helper()
	var got []string
	l, err := Open(cfg, func(_ uint64, p []byte) error { got = append(got, string(p)); return nil }, quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return l, got
}

func TestConcurrentAppendsAreAppliedInOrderAndReplayed(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), SegmentBytes: 4 << 10}
	l, _ := open(t, cfg)
	var applied []uint64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 100 {
				if err := l.Append(t.Context(), fmt.Appendf(nil, "%d-%d", g, i), func(seq uint64) { applied = append(applied, seq) }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i, seq := range applied {
		if seq != uint64(i+1) {
			t.Fatalf("applied %d at place %d", seq, i)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, got := open(t, cfg)
	if len(got) != 800 {
		t.Fatalf("have %d entries, want 800", len(got))
	}
	last := map[string]int{}
	for _, p := range got {
		g, i, _ := strings.Cut(p, "-")
		n, _ := strconv.Atoi(i)
		if want, ok := last[g]; ok && n != want+1 || !ok && n != 0 {
			t.Fatalf("entry %s after %d", p, want)
		}
		last[g] = n
	}
}

func TestTornTailIsCutAtEveryByte(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, Config{Dir: dir, SegmentBytes: 1 << 20})
	for i := range 3 {
		if err := l.Append(t.Context(), fmt.Appendf(nil, "entry %d", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	_ = l.Close()
	whole, err := os.ReadFile(segmentPath(dir, 1))
	if err != nil {
		t.Fatal(err)
	}
	size := entryBytes + len("entry 0")
	for n := 0; n <= len(whole); n++ {
		torn := t.TempDir()
		if err := os.WriteFile(segmentPath(torn, 1), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		l, got := open(t, Config{Dir: torn, SegmentBytes: 1 << 20})
		if want := max(0, n-headerBytes) / size; len(got) != want {
			t.Fatalf("cut at %d: have %d entries, want %d", n, len(got), want)
		}
		if err := l.Append(t.Context(), []byte("after"), nil); err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		_, again := open(t, Config{Dir: torn, SegmentBytes: 1 << 20})
		if len(again) != len(got)+1 || again[len(got)] != "after" {
			t.Fatalf("cut at %d: have %q", n, again)
		}
	}
}

// faulty fails operations as told; a failed write leaves half of its bytes.
type faulty struct {
	File
	fail *string
}

func (f faulty) Write(b []byte) (int, error) {
	if *f.fail == "write" || *f.fail == "write and truncate" {
		n, _ := f.File.Write(b[:len(b)/2])
		return n, errors.New("no space left on device")
	}
	return f.File.Write(b)
}

func (f faulty) Sync() error {
	if *f.fail == "sync" || *f.fail == "sync and truncate" {
		return errors.New("input/output error")
	}
	return f.File.Sync()
}

func (f faulty) Truncate(n int64) error {
	if strings.HasSuffix(*f.fail, "truncate") {
		return errors.New("input/output error")
	}
	return f.File.Truncate(n)
}

func TestRefusedEntryIsNeitherStoredNorDoubled(t *testing.T) {
	for _, how := range []string{"write", "sync", "write and truncate", "sync and truncate"} {
		t.Run(how, func(t *testing.T) {
			fail := ""
			cfg := Config{Dir: t.TempDir(), SegmentBytes: 1 << 20, Create: func(p string) (File, error) {
				f, err := createFile(p)
				return faulty{f, &fail}, err
			}}
			l, _ := open(t, cfg)
			add := func(s string) error { return l.Append(t.Context(), []byte(s), nil) }
			if err := add("one"); err != nil {
				t.Fatal(err)
			}
			fail = how
			if add("two") == nil || add("two") == nil {
				t.Fatal("append said yes")
			}
			fail = ""
			if err := add("two"); err != nil {
				t.Fatal(err)
			}
			_ = l.Close()
			_, got := open(t, Config{Dir: cfg.Dir, SegmentBytes: 1 << 20})
			if strings.Join(got, " ") != "one two" {
				t.Fatalf("have %q", got)
			}
		})
	}
}

func TestTruncateKeepsWhatIsNeeded(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), SegmentBytes: 64}
	l, _ := open(t, cfg)
	for i := range 10 {
		if err := l.Append(t.Context(), fmt.Appendf(nil, "entry number %d of ten and some more", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Truncate(6); err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	l, got := open(t, cfg)
	if len(got) != 5 || !strings.Contains(got[0], "number 5") {
		t.Fatalf("have %q", got)
	}
	if err := l.Truncate(100); err != nil {
		t.Fatal(err)
	}
	var seq uint64
	if err := l.Append(t.Context(), []byte("x"), func(s uint64) { seq = s }); err != nil || seq != 11 {
		t.Fatalf("seq %d, err %v", seq, err)
	}
}

// TestChild is the process that the kill test kills: it appends and prints what
// was acknowledged.
func TestChild(t *testing.T) {
	dir := os.Getenv("WAL_TEST_DIR")
	if dir == "" {
		t.Skip("only runs as the child of TestKillLosesNothingAcknowledged")
	}
	n := 0
	l, err := Open(Config{Dir: dir, SegmentBytes: 32 << 10}, func(uint64, []byte) error { n++; return nil }, quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for i := n; ; i++ {
		if err := l.Append(t.Context(), []byte(strconv.Itoa(i)), nil); err != nil {
			t.Fatal(err)
		}
		fmt.Println("ack", i)
	}
}

func TestKillLosesNothingAcknowledged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "wal")
	for round := range 5 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
		cmd.Env = append(os.Environ(), "WAL_TEST_DIR="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acked, lines := -1, 0
		scan := bufio.NewScanner(out)
		for scan.Scan() {
			if n, ok := strings.CutPrefix(scan.Text(), "ack "); ok {
				acked, _ = strconv.Atoi(n)
				if lines++; lines == 50+37*round {
					_ = cmd.Process.Kill()
				}
			}
		}
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait() // killed on purpose
		_, got := open(t, Config{Dir: dir, SegmentBytes: 32 << 10})
		if len(got) <= acked {
			t.Fatalf("round %d: have %d entries, %d were acknowledged", round, len(got), acked+1)
		}
		for i, p := range got {
			if p != strconv.Itoa(i) {
				t.Fatalf("round %d: entry %d is %q", round, i, p)
			}
		}
	}
}

func FuzzWalk(f *testing.F) {
	f.Add(appendEntry(appendEntry(nil, 1, []byte("a")), 2, []byte("bb")))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := uint64(0)
		valid, damaged, next, err := walk(b, 1, func(seq uint64, _ []byte) error {
			if seq <= before {
				t.Fatalf("entry %d after %d", seq, before)
			}
			before = seq
			return nil
		})
		if err != nil || valid > len(b) || damaged > valid || next != before+1 {
			t.Fatal(valid, damaged, next, before, err)
		}
	})
}

func TestEntriesAreNumberedFromWhatItsOwnerHasSeen(t *testing.T) {
	dir := t.TempDir()
	if first, err := First(dir); first != 1 || err != nil {
		t.Fatal(first, err)
	}
	seen := uint64(0)
	for _, c := range []struct{ first, want uint64 }{{0, 1}, {1, 2}, {40, 40}, {7, 41}} {
		l, err := Open(Config{Dir: dir, SegmentBytes: 1 << 20, First: c.first}, func(seq uint64, _ []byte) error {
			seen = seq
			return nil
		}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		have := uint64(0)
		if err := l.Append(t.Context(), []byte("x"), func(seq uint64) { have = seq }); err != nil || have != c.want || seen >= have {
			t.Errorf("first %d: entry %d after %d, %v; want %d", c.first, have, seen, err, c.want)
		}
		if err := l.Truncate(have); err != nil {
			t.Fatal(err)
		}
		if first, err := First(dir); first != have || err != nil {
			t.Errorf("the first is %d, %v; want %d", first, err, have)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/block"
	"perch/logs/index"
	"perch/logs/record"
	"perch/logs/wal"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func small(dir string) Config {
	c := Default(dir)
	c.BlockBytes, c.HeadBytes, c.LearnBlocks = 4<<10, 32<<10, 4
	c.CheckpointEvery = 20 * time.Millisecond
	return c
}

func open(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg, quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func streams(n int) []*record.Stream {
	out := make([]*record.Stream, n)
	for i := range out {
		out[i] = &record.Stream{Namespace: "shop", Pod: fmt.Sprintf("web-%d", i), Container: "app", Instance: "0", Node: "n1", Output: record.Stdout, Kind: record.KindLog}
	}
	return out
}

// batch makes n lines "line <i> of <pod> …" from number first.
func batch(st []*record.Stream, first, n int) []record.Record {
	out := make([]record.Record, n)
	for i := range out {
		k := first + i
		s := st[k%len(st)]
		out[i] = record.Record{Time: int64(k) * 1e6, Stream: s, Body: fmt.Appendf(nil, "line %d of %s INFO request req%d served from cache", k, s.Pod, k*7919%100003)}
	}
	return out
}

// all reads every line and checks numbers within streams.
func all(t *testing.T, s *Store, need index.Need) []string {
	t.Helper()
	v, err := s.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Release()
	var out []string
	numbers := map[string]bool{}
	for _, p := range v.Select(t.Context(), math.MinInt64, math.MaxInt64, func(*record.Stream) bool { return true }, need) {
		l, err := p.Read(nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range l.Len() {
			id := fmt.Sprintf("%x-%d", p.Hash, p.First+uint64(i))
			if numbers[id] {
				t.Fatalf("two lines are %s", id)
			}
			numbers[id] = true
			out = append(out, string(l.Body(i)))
		}
	}
	sort.Slice(out, func(i, j int) bool { return lineNumber(out[i]) < lineNumber(out[j]) })
	return out
}

func lineNumber(s string) int {
	n, _ := strconv.Atoi(strings.Fields(s)[1])
	return n
}

func wantLines(t *testing.T, have []string, n int) {
	t.Helper()
	if len(have) != n {
		t.Fatalf("have %d lines, want %d", len(have), n)
	}
	for i, s := range have {
		if lineNumber(s) != i {
			t.Fatalf("line %d is %q", i, s)
		}
	}
}

func TestLinesStayThroughCutReopenAndIndexLoss(t *testing.T) {
	cfg := small(t.TempDir())
	cfg.PartitionBytes = 20 << 10
	st := streams(7)
	n := 0
	for round := range 5 {
		s := open(t, cfg)
		wantLines(t, all(t, s, index.Need{}), n)
		for range 40 {
			if err := s.Append(t.Context(), batch(st, n, 50), []record.Position{{File: "f", Inode: 1, Stdout: int64(n + 50)}}); err != nil {
				t.Fatal(err)
			}
			n += 50
		}
		wantLines(t, all(t, s, index.Need{}), n)
		if round%2 == 1 {
			if err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		maintain(t, s, time.Now())
		found := all(t, s, index.Need{Op: index.Word, Text: "req7919"})
		hit := false
		for _, l := range found {
			hit = hit || strings.Contains(l, "req7919 ")
		}
		if !hit || round > 1 && len(found) > n/2 {
			t.Fatalf("round %d: word found %v in %d of %d lines read", round, hit, len(found), n)
		}
		if p, ok := s.Position("f", 1); !ok || p.Stdout != int64(n) {
			t.Fatalf("position %+v", p)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		switch round {
		case 2: // indexes are lost
			dirs, _ := filepath.Glob(filepath.Join(partitionsDir(cfg.Dir), "*", "index"))
			if len(dirs) < 2 {
				t.Fatalf("only %d indexes", len(dirs))
			}
			for _, d := range dirs {
				if err := os.RemoveAll(d); err != nil {
					t.Fatal(err)
				}
			}
		case 3: // one is broken
			dirs, _ := filepath.Glob(filepath.Join(partitionsDir(cfg.Dir), "*", "index", "bleve", "root.bolt"))
			if err := os.WriteFile(dirs[0], []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Queries find the same through it all: what is open answers without its files.
func TestIndexDeletedInUseIsBuiltAnewWhileQueriesAnswer(t *testing.T) {
	for _, file := range []string{".", "vocabulary", "filters", filepath.Join("bleve", "root.bolt")} {
		t.Run(file, func(t *testing.T) {
			cfg := small(t.TempDir())
			cfg.PartitionBytes = 20 << 10
			s := open(t, cfg)
			defer func() { _ = s.Close() }()
			st, n := streams(7), 0
			found := func() int {
				t.Helper()
				lines := all(t, s, index.Need{Op: index.Word, Text: "req7919"})
				if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "req7919 ") }) {
					t.Fatalf("the word is not in %d lines that were read", len(lines))
				}
				return len(lines)
			}
			more := func() {
				t.Helper()
				for range 40 {
					if err := s.Append(t.Context(), batch(st, n, 50), nil); err != nil {
						t.Fatal(err)
					}
					n += 50
				}
				if err := s.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			more()
			more()
			few := found()
			if len(s.parts) < 2 || few > n/2 {
				t.Fatalf("%d partitions, %d of %d lines read: nothing is indexed", len(s.parts), few, n)
			}
			for _, p := range s.parts {
				if p.index() == nil {
					continue
				}
				if err := os.RemoveAll(filepath.Join(p.indexDir(), file)); err != nil {
					t.Fatal(err)
				}
			}
			found()
			for range 3 { // is seen at the first; the lines between come as they always do
				maintain(t, s, time.Now())
				found()
				more()
			}
			wantLines(t, all(t, s, index.Need{}), n)
			if read := found(); read > few {
				t.Errorf("%d lines were read, before %d", read, few)
			}
			for _, p := range s.parts {
				if p.index() != nil && index.Lost(p.indexDir()) {
					t.Errorf("partition %s has no index on disk", p.name)
				}
			}
		})
	}
}

// maintain does once what Run does again and again, but for sealing.
func maintain(t *testing.T, s *Store, now time.Time) {
	t.Helper()
	s.maintain(t.Context(), now)
	s.completeIndexes(t.Context())
}

func TestSecondInstanceIsRefused(t *testing.T) {
	cfg := small(t.TempDir())
	s := open(t, cfg)
	_, err := Open(cfg, quiet(), prometheus.NewRegistry())
	if err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := open(t, cfg).Close(); err != nil {
		t.Fatal(err)
	}
}

func TestFollowersSeeWhatTheyWantWithNumbers(t *testing.T) {
	s := open(t, small(t.TempDir()))
	defer s.Close()
	st := streams(2)
	f := s.Follow(100, func(x *record.Stream) bool { return x.Pod == "web-1" })
	slow := s.Follow(1, func(*record.Stream) bool { return true })
	for i := range 3 {
		if err := s.Append(t.Context(), batch(st, i*10, 10), nil); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	k := uint64(0)
	for n := range f.Lines() {
		if !f.Took(&n) {
			continue
		}
		if n.Stream.Pod != "web-1" || n.Number != k {
			t.Fatalf("have %s number %d, want %d", n.Stream.Pod, n.Number, k)
		}
		k++
	}
	if k != 15 || slow.Dropped() != 29 {
		t.Fatalf("have %d lines", k)
	}
}

func TestDecideRemovals(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	parts := []partitionUse{{name: "a", end: now.Add(-10 * time.Hour), bytes: 100}, {name: "b", end: now.Add(-5 * time.Hour), bytes: 100}, {name: "c", end: now.Add(-time.Hour), bytes: 100}}
	owned := slices.Clone(parts) // as they are when a namespace has a retention of its own
	for i := range owned {
		owned[i].namespaces = map[string]int64{"shop": owned[i].bytes}
	}
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"nothing is removed without limits":      {Config{}, ""},
		"what is too old goes":                   {Config{RetentionAge: 6 * time.Hour}, "a:age"},
		"the oldest go until the bytes fit":      {Config{RetentionBytes: 250}, "a:bytes b:bytes"},
		"age and bytes together":                 {Config{RetentionAge: 6 * time.Hour, RetentionBytes: 350}, "a:age"},
		"what does not reach its age goes early": {Config{RetentionAge: 6 * time.Hour, RetentionBytes: 250}, "a:age b:early"},
		"so does what a namespace has an age for": {Config{RetentionBytes: 350, Namespaces: func() map[string]Retention {
			return map[string]Retention{"shop": {Age: 24 * time.Hour}}
		}}, "a:early"},
		"and not what it has bytes for only": {Config{RetentionBytes: 350, Namespaces: func() map[string]Retention {
			return map[string]Retention{"shop": {Bytes: 24}}
		}}, "a:bytes"},
		"the partition being written never goes": {Config{RetentionBytes: 1}, "a:bytes b:bytes c:bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			var have []string
			closed := parts
			if c.cfg.Namespaces != nil {
				closed = owned
			}
			for _, r := range decideRemovals(now, closed, 100, c.cfg.policy()) {
				have = append(have, r.name+":"+r.reason)
			}
			if strings.Join(have, " ") != c.want {
				t.Fatalf("have %v, want %s", have, c.want)
			}
		})
	}
}

func TestRetentionRemovesTheOldestAndQueriesGoOn(t *testing.T) {
	cfg := small(t.TempDir())
	cfg.PartitionBytes, cfg.RetentionBytes = 4<<10, 20<<10
	s := open(t, cfg)
	st := streams(2)
	v, err := s.View()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		if err := s.Append(t.Context(), batch(st, i*50, 50), nil); err != nil {
			t.Fatal(err)
		}
		if i == 100 {
			_ = v.Release()
			if v, err = s.View(); err != nil {
				t.Fatal(err)
			}
		}
	}
	maintain(t, s, time.Now())
	pieces := v.Select(t.Context(), math.MinInt64, math.MaxInt64, func(*record.Stream) bool { return true }, index.Need{})
	for _, p := range pieces {
		if _, err := p.Read(nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Release(); err != nil {
		t.Fatal(err)
	}
	if have := all(t, s, index.Need{}); len(have) >= 10000 || len(have) == 0 {
		t.Fatalf("have %d lines", len(have))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	last := map[int]int{} // line of each stream
	for _, l := range all(t, s, index.Need{}) {
		n := lineNumber(l)
		if before, ok := last[n%len(st)]; ok && n != before+len(st) {
			t.Fatalf("line %d after %d: an old line came back", n, before)
		}
		last[n%len(st)] = n
	}
	if last[0] != 9998 || last[1] != 9999 {
		t.Errorf("the last lines are %v", last)
	}
	_ = s.Close()
}

// faulty refuses to write while broken is set.
type faulty struct {
	wal.File
	broken *bool
}

func (f faulty) Write(b []byte) (int, error) {
	if *f.broken {
		n, _ := f.File.Write(b[:len(b)/3])
		return n, errors.New("no space left on device")
	}
	return f.File.Write(b)
}

func TestFullDiskRefusesAndNothingIsLostOrDoubled(t *testing.T) {
	broken := false
	cfg := small(t.TempDir())
	cfg.CreateWAL = func(path string) (wal.File, error) {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
		return faulty{f, &broken}, err
	}
	s := open(t, cfg)
	st := streams(3)
	n := 0
	for i := range 60 {
		broken = i%3 == 1
		err := s.Append(t.Context(), batch(st, n, 20), []record.Position{{File: "f", Stdout: int64(n + 20)}})
		if broken != (err != nil) {
			t.Fatalf("broken %v, err %v", broken, err)
		}
		if err == nil {
			n += 20
		}
		if p, _ := s.Position("f", 0); p.Stdout != int64(n) {
			t.Fatalf("position %d, want %d", p.Stdout, n)
		}
	}
	broken = false
	_ = s.Close()
	s = open(t, cfg)
	defer s.Close()
	wantLines(t, all(t, s, index.Need{}), n)
}

// TestChild is killed by TestKillLosesAndDoublesNothing.
func TestChild(t *testing.T) {
	dir := os.Getenv("STORE_TEST_DIR")
	if dir == "" {
		t.Skip("only runs as the child of TestKillLosesAndDoublesNothing")
	}
	cfg := small(dir)
	cfg.PartitionBytes = 64 << 10
	s := open(t, cfg)
	go func() { _ = s.Run(context.Background()) }() // the process is killed
	if os.Getenv("STORE_TEST_SEAL") != "" {
		go func() {
			for {
				if err := s.Seal(context.Background()); err != nil {
					panic(err) // the parent sees less than it waits for
				}
			}
		}()
	}
	p, _ := s.Position("src", 1)
	st := streams(5)
	for n := int(p.Stdout); ; n += 20 {
		if err := s.Append(t.Context(), batch(st, n, 20), []record.Position{{File: "src", Inode: 1, Stdout: int64(n + 20)}}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("ack", n+20)
	}
}

func TestKillLosesAndDoublesNothing(t *testing.T) {
	killInALoop(t, 6, func(round int) int { return 100 + 170*round })
}

// TestKillWhileSealingLosesAndDoublesNothing kills a child that seals all the
// time, at random moments, and takes away indexes in between.
func TestKillWhileSealingLosesAndDoublesNothing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	halfway := killInALoop(t, 12, func(int) int { return 1 + rnd.IntN(90) }, "STORE_TEST_SEAL=yes")
	t.Logf("%d children were killed while they sealed", halfway)
	if halfway == 0 {
		t.Fatal("no child was killed while it sealed")
	}
}

// killInALoop kills children after so many acknowledgements. It returns how
// often one left files of a sealing behind.
func killInALoop(t *testing.T, rounds int, after func(round int) int, env ...string) (halfway int) {
	t.Helper()
	dir := t.TempDir()
	for round := range rounds {
		when := after(round)
		cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
		cmd.Env = append(append(os.Environ(), "STORE_TEST_DIR="+dir), env...)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acked, lines := 0, 0
		scan := bufio.NewScanner(out)
		for scan.Scan() {
			if n, ok := strings.CutPrefix(scan.Text(), "ack "); ok {
				acked, _ = strconv.Atoi(n)
				if lines++; lines == when {
					_ = cmd.Process.Kill()
				}
			} else {
				t.Log(scan.Text())
			}
		}
		_ = cmd.Wait() // killed on purpose
		if lines < when {
			t.Fatalf("round %d: the child ended by itself after %d", round, lines)
		}
		half, _ := filepath.Glob(filepath.Join(partitionsDir(dir), "*", "*.new"))
		if halfway += min(len(half), 1); round%3 == 2 {
			indexes, _ := filepath.Glob(filepath.Join(partitionsDir(dir), "*", "index"))
			for _, x := range indexes[:len(indexes)/2] {
				if err := os.RemoveAll(x); err != nil {
					t.Fatal(err)
				}
			}
		}
		s := open(t, small(dir))
		have := all(t, s, index.Need{})
		if len(have) < acked {
			t.Fatalf("round %d: have %d lines, %d were acknowledged", round, len(have), acked)
		}
		wantLines(t, have, len(have))
		if p, _ := s.Position("src", 1); p.Stdout != int64(len(have)) {
			t.Fatalf("round %d: position %d, have %d lines", round, p.Stdout, len(have))
		}
		s.completeIndexes(t.Context())
		word := fmt.Sprintf("req%d", (len(have)-1)*7919%100003) // of the newest line
		if !slices.ContainsFunc(all(t, s, index.Need{Op: index.Word, Text: word}), func(l string) bool { return lineNumber(l) == len(have)-1 }) {
			t.Fatalf("round %d: the index hides %s", round, word)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return halfway
}

func TestDamagedTailIsTakenFromTheWriteAheadLog(t *testing.T) {
	cfg := small(t.TempDir())
	s := open(t, cfg)
	st := streams(3)
	for i := range 40 {
		if err := s.Append(t.Context(), batch(st, i*20, 20), nil); err != nil {
			t.Fatal(err)
		}
	}
	for s.cutOne() {
	}
	if len(s.parts) == 0 || len(s.parts[0].metas) < 3 {
		t.Fatal("no blocks")
	}
	path := filepath.Join(s.parts[0].dir, "blocks.dat")
	size := s.parts[0].file.Size()
	s.dirty = false // no checkpoint: as if the power failed
	_ = s.Close()
	if err := os.Truncate(path, size/2); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	defer s.Close()
	wantLines(t, all(t, s, index.Need{}), 800)
}

func BenchmarkAppend(b *testing.B) {
	s, err := Open(Default(b.TempDir()), quiet(), prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	st := streams(50)
	lines := batch(st, 0, 1000)
	var l block.Lines
	for i := range lines {
		l.Add(&lines[i])
	}
	b.SetBytes(int64(len(l.Text)))
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Append(b.Context(), lines, nil); err != nil {
			b.Fatal(err)
		}
	}
}

package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"perch/logs/block"
	"perch/logs/index"
	"perch/logs/record"
	"perch/logs/wal"
)

// brief fills a closed partition with three lines of each of n pods that come no more.
func brief(t *testing.T, cfg Config, n int) *Store {
	t.Helper()
	s := open(t, cfg)
	for i := 0; i < n; i += 100 {
		for k := i; k < i+100; k++ {
			st := &record.Stream{Namespace: []string{"shop", "bank"}[k%2], Pod: fmt.Sprintf("job-backup-%07d-x7x9q", k), UID: fmt.Sprintf("0a1b2c3d-4e5f-6789-abcd-%012x", k), Container: "app", Instance: "0", Node: "node-1", Output: record.Stdout, Kind: record.KindLog}
			if err := s.Append(t.Context(), batch([]*record.Stream{st}, 3*k, 3), nil); err != nil {
				t.Fatal(err)
			}
		}
		if i%500 == 400 || i+100 == n {
			if err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// quick does not wait for the disk.
func quick(dir string) Config {
	cfg := Default(dir)
	cfg.CreateWAL = func(path string) (wal.File, error) {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
		return unsynced{f}, err
	}
	return cfg
}

// forgetAll lets go of the blocks of all closed partitions.
func (s *Store) forgetAll() {
	s.most = 0
	s.letGo(time.Now())
}

func TestPodsThatAreGoneTakeLittleMemory(t *testing.T) {
	const n = 5000
	base := liveHeap()
	s := brief(t, quick(t.TempDir()), n)
	defer func() { _ = s.Close() }()
	clear(s.sources) // as after ten minutes
	clear(s.byPointer)
	before := liveHeap() - base
	if s.letGo(time.Now().Add(knownIdle - time.Minute)); s.parts[0].metas == nil {
		t.Fatal("blocks were let go of while there is room")
	}
	s.letGo(time.Now().Add(knownIdle))
	after := liveHeap() - base
	t.Logf("a pod takes %d bytes, once let go of %d", before/n, after/n)
	if s.parts[0].metas != nil || before-after < 350*n {
		t.Errorf("%d pods take %d KB, then %d KB", n, before>>10, after>>10)
	}
	wantLines(t, all(t, s, index.Need{}), 3*n)
	if s.letGo(time.Now().Add(knownIdle - time.Minute)); s.parts[0].metas == nil {
		t.Error("blocks that were asked for just now were let go of")
	}
	s.forgetAll()
	if wantLines(t, all(t, s, index.Need{}), 3*n); s.parts[0].metas != nil {
		t.Error("blocks are kept though there is no room")
	}
}

func TestBlocksThatAreAskedForAllTheTimeAreKept(t *testing.T) {
	s := brief(t, quick(t.TempDir()), 100)
	defer func() { _ = s.Close() }()
	for _, c := range []struct {
		from, to int64
		kept     bool
	}{{math.MinInt64, math.MaxInt64, true}, {math.MinInt64, -1, false}} {
		s.parts[0].asked.Store(time.Now().Add(-2 * knownIdle).UnixNano())
		v, err := s.View()
		if err != nil {
			t.Fatal(err)
		}
		v.Select(t.Context(), c.from, c.to, func(*record.Stream) bool { return true }, index.Need{})
		if err := v.Release(); err != nil {
			t.Fatal(err)
		}
		if s.letGo(time.Now()); (s.parts[0].metas != nil) != c.kept {
			t.Errorf("asked from %d to %d: kept %v, want %v", c.from, c.to, !c.kept, c.kept)
		}
	}
}

func TestBlocksThatWereLetGoOfAnswerAsBefore(t *testing.T) {
	const n = 300
	cfg := quick(t.TempDir())
	cfg.Namespaces = func() map[string]Retention { return map[string]Retention{"bank": {Bytes: 1 << 40}} }
	s := brief(t, cfg, n)
	defer func() { _ = s.Close() }()
	one := func(*record.Stream) bool { return true }
	found := func(from, to int64, need index.Need) (lines int) {
		v, err := s.View()
		if err != nil {
			t.Fatal(err)
		}
		defer v.Release()
		for _, p := range v.Select(t.Context(), from, to, one, need) {
			lines += p.Lines
		}
		if v.Lost() != nil {
			t.Error(v.Lost())
		}
		return lines
	}
	rare := index.Need{Op: index.Word, Text: "req7919"} // of line 1
	answers := func() string {
		use, closed := s.Use(), []partitionUse{}
		closed, _, _ = s.uses(s.cfg.policy(), time.Now())
		files, err := s.Files()
		if err != nil || len(closed) != 1 {
			t.Fatal(err, closed)
		}
		return fmt.Sprint(use.Namespaces, use.Oldest, closed[0].namespaces, len(files.Parts[0].Files) > 1, found(math.MinInt64, math.MaxInt64, index.Need{}), found(0, 9e6, index.Need{}), found(-9, -1, index.Need{}),
			found(math.MinInt64, math.MaxInt64, rare))
	}
	want := answers()
	if lines := found(math.MinInt64, math.MaxInt64, rare); lines != 3 {
		t.Fatalf("the index is not asked: %d lines", lines)
	}
	for range 2 {
		s.forgetAll()
		if have := answers(); have != want {
			t.Errorf("have %s\nwant %s", have, want)
		}
		if s.count(s.parts[0]) != n || s.parts[0].metas != nil {
			t.Errorf("%d blocks", s.count(s.parts[0]))
		}
		s.most = 1 << 30 // they are kept when they were asked for
		if have := answers(); have != want || s.parts[0].metas == nil {
			t.Errorf("have %s\nwant %s", have, want)
		}
	}
	s.forgetAll()
	clear(s.sources)
	clear(s.byPointer)
	st := &record.Stream{Namespace: "shop", Pod: fmt.Sprintf("job-backup-%07d-x7x9q", 0), UID: fmt.Sprintf("0a1b2c3d-4e5f-6789-abcd-%012x", 0), Container: "app", Instance: "0", Node: "node-1", Output: record.Stdout, Kind: record.KindLog}
	if err := s.Append(t.Context(), batch([]*record.Stream{st}, 3*n, 5), nil); err != nil { // a pod that was silent
		t.Fatal(err)
	}
	if src := s.sources[st.Hash()]; src.next != 8 {
		t.Errorf("its next line is number %d", src.next)
	}
	wantLines(t, all(t, s, index.Need{}), 3*n+5)
	v, err := s.View()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.rewriteFirst(t); err != nil { // written anew while a view has the files before
		t.Fatal(err)
	}
	if p := v.Select(t.Context(), math.MinInt64, math.MaxInt64, one, index.Need{}); len(p) != n+1 {
		t.Errorf("the view has %d pieces", len(p))
	}
	if err := v.Release(); err != nil {
		t.Fatal(err)
	}
	wantLines(t, all(t, s, index.Need{}), 3*n+5)
}

// rewriteFirst writes the first partition anew, without anything being due.
func (s *Store) rewriteFirst(t *testing.T) error {
	p := s.parts[0]
	return s.rewrite(t.Context(), rewrite{name: p.name, reason: "test"}, 0, p.start)
}

func TestBlocksThatAreDamagedWhenTheyAreReadAgainAreTold(t *testing.T) {
	const n = 300
	s := brief(t, quick(t.TempDir()), n)
	defer func() { _ = s.Close() }()
	f, err := os.OpenFile(s.parts[0].blocksFile(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s.forgetAll()
	var told bytes.Buffer
	s.log = slog.New(slog.NewTextHandler(&told, nil))
	for i, at := range []int64{0, 20} { // a mark, and a header
		var was [1]byte
		before := testutil.ToFloat64(s.m.damaged)
		if _, err := f.ReadAt(was[:], at); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{^was[0]}, at); err != nil {
			t.Fatal(err)
		}
		v, err := s.View()
		if err != nil {
			t.Fatal(err)
		}
		p := v.Select(t.Context(), math.MinInt64, math.MaxInt64, func(*record.Stream) bool { return true }, index.Need{Op: index.Word, Text: "req7919"})
		if !errors.Is(v.Lost(), block.ErrDamaged) || slices.ContainsFunc(p, func(p Piece) bool { return p.Lines != 3 }) {
			t.Errorf("%d pieces, %v", len(p), v.Lost())
		}
		if err := v.Release(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := s.rewriteFirst(t); err == nil {
				t.Error("the partition was written anew without them")
			}
			s.failed("partition was not sealed", s.rewriteFirst(t))
			s.completeIndexes(t.Context())
		}
		if n := strings.Count(told.String(), "\n"); n != 2*i+1 || testutil.ToFloat64(s.m.damaged) == before {
			t.Errorf("told %d times, %v bytes:\n%s", n, testutil.ToFloat64(s.m.damaged), &told)
		}
		if _, err := f.WriteAt(was[:], at); err != nil {
			t.Fatal(err)
		}
		wantLines(t, all(t, s, index.Need{}), 3*n)
	}
}

func TestAPartitionIsClosedForItsAgeItsSizeOrItsBlocks(t *testing.T) {
	cfg, begun := Default("x"), time.Unix(1e9, 0)
	for _, c := range []struct {
		age    time.Duration
		bytes  int64
		blocks int
		want   bool
	}{
		{cfg.PartitionAge, 0, 0, false}, {cfg.PartitionAge, 1, 1, true}, {cfg.PartitionAge - 1, cfg.PartitionBytes - 1, mostBlocks - 1, false},
		{0, cfg.PartitionBytes, 1, true}, {0, 1, mostBlocks, true}, {-time.Hour, 1, 1, false},
	} {
		if have := decideRoll(begun.Add(c.age), begun, c.bytes, c.blocks, cfg); have != c.want {
			t.Errorf("%+v: %v", c, have)
		}
	}
	if mostKnown(0) != knownLeast || mostKnown(8<<30) != 8<<30/knownPart || mostKnown(1<<30) != knownLeast {
		t.Error(mostKnown(0), mostKnown(8<<30), mostKnown(1<<30))
	}
}

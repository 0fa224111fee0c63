package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"perch/logs/block"
	"perch/logs/index"
	"perch/logs/record"
)

func appendAll(t *testing.T, s *Store, first, n int, st []*record.Stream) {
	t.Helper()
	for i := first; i < first+n; i += 20 {
		if err := s.Append(t.Context(), batch(st, i, 20), nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSealingMakesFewerBlocksAndLosesNothing(t *testing.T) {
	cfg := small(t.TempDir())
	s := open(t, cfg)
	st := streams(5)
	appendAll(t, s, 0, 4000, st)
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	appendAll(t, s, 4000, 200, st)
	before, err := s.View() // keeps what was there readable
	if err != nil {
		t.Fatal(err)
	}
	blocks, bytes := len(s.parts[0].metas), s.parts[0].file.Size()
	if err := s.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := s.parts[0]
	if !p.sealed || len(p.metas) >= blocks/2 || p.file.Size() >= bytes {
		t.Fatalf("sealed %v, %d blocks of %d left, %d bytes of %d", p.sealed, len(p.metas), blocks, p.file.Size(), bytes)
	}
	if x := p.index(); x == nil || x.Upto() != len(p.metas) {
		t.Fatal("sealed partition has no whole index")
	}
	for _, piece := range before.Select(t.Context(), 0, 1<<62, func(*record.Stream) bool { return true }, index.Need{}) {
		if _, err := piece.Read(nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := before.Release(); err != nil {
		t.Fatal(err)
	}
	appendAll(t, s, 4200, 800, st)
	wantLines(t, all(t, s, index.Need{}), 5000)
	if n := len(all(t, s, index.Need{Op: index.Word, Text: "absent77x"})); n > 1000 {
		t.Fatalf("%d lines are read for a word that no block has", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// A sealing that was cut short left something.
	if err := os.WriteFile(s.parts[0].newBlocks(), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	defer s.Close()
	wantLines(t, all(t, s, index.Need{}), 5000)
	if !s.parts[0].sealed {
		t.Fatal("not sealed any more")
	}
	if _, err := os.Stat(s.parts[0].newBlocks()); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("half-made blocks are there: %v", err)
	}
}

func TestSealingInTheBackgroundEndsWithTheStore(t *testing.T) {
	cfg := small(t.TempDir())
	s := open(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	appendAll(t, s, 0, 2000, streams(3))
	cancel()
	if err := s.rewriteDue(ctx, time.Now(), sealRest); !errors.Is(err, context.Canceled) {
		t.Fatalf("err %v", err)
	}
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestANamespaceGoesEarlierOrLaterThanOthers(t *testing.T) {
	cfg := small(t.TempDir())
	cfg.RetentionAge, cfg.RetentionBytes = time.Hour, 0
	own := map[string]Retention{"debug": {Age: time.Minute}}
	cfg.Namespaces = func() map[string]Retention { return own }
	s := open(t, cfg)
	defer s.Close()
	own["audit"] = Retention{Age: 24 * time.Hour} // after the store was opened
	st := streams(3)
	st[1].Namespace, st[2].Namespace = "debug", "audit"
	appendAll(t, s, 0, 3000, st)
	if err := s.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	count := func() map[string]int {
		n := map[string]int{}
		for _, m := range s.parts[0].metas {
			n[m.Stream.Namespace] += m.Lines
		}
		return n
	}
	if use := s.Use(); use.Oldest.IsZero() || use.Bytes == 0 || use.Age != time.Hour || len(use.Namespaces) != 3 || use.Namespaces[0].Bytes == 0 {
		t.Fatalf("use %+v", use)
	}
	for _, step := range []struct {
		after time.Duration
		want  map[string]int
	}{
		{0, map[string]int{"shop": 1000, "debug": 1000, "audit": 1000}},
		{30 * time.Minute, map[string]int{"shop": 1000, "audit": 1000}},
		{2 * time.Hour, map[string]int{"audit": 1000}},
		{25 * time.Hour, map[string]int{}},
	} {
		now := time.Now().Add(step.after)
		s.retain(now)
		if err := s.rewriteDue(t.Context(), now, 0); err != nil {
			t.Fatal(err)
		}
		if have := count(); fmt.Sprint(have) != fmt.Sprint(step.want) {
			t.Fatalf("after %v: have %v, want %v", step.after, have, step.want)
		}
	}
}

func TestDecideRewrite(t *testing.T) {
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	by := policy{age: 48 * time.Hour, namespaces: map[string]Retention{"a": {Bytes: 15}, "b": {Age: time.Hour}}}
	part := func(name string, hours int, sealed bool, ns map[string]int64) partitionUse {
		return partitionUse{name: name, end: now.Add(-time.Duration(hours) * time.Hour), sealed: sealed, namespaces: ns}
	}
	for _, c := range []struct {
		name   string
		closed []partitionUse
		want   string
	}{
		{"nothing is closed", nil, ""},
		{"all is sealed", []partitionUse{part("p1", 1, true, nil)}, ""},
		{"the oldest that is not sealed", []partitionUse{part("p1", 3, true, nil), part("p2", 2, false, nil), part("p3", 1, false, nil)}, "p2 closed map[]"},
		{"the newest partitions of a namespace stay within its bytes", []partitionUse{part("p1", 3, true, map[string]int64{"a": 10}), part("p2", 2, true, map[string]int64{"a": 10})}, "p1 namespaces are due map[a:bytes]"},
		{"a partition has more than its namespace may keep", []partitionUse{part("p1", 3, true, map[string]int64{"a": 2}), part("p2", 2, true, map[string]int64{"a": 31}), part("p3", 1, true, map[string]int64{"a": 5})}, "p1 namespaces are due map[a:bytes]"},
		{"the newest of a partition stay", []partitionUse{part("p2", 2, true, map[string]int64{"a": 31}), part("p3", 1, true, map[string]int64{"a": 5})}, "p2 namespaces are due map[a:bytes] of which map[a:7] stay"},
		{"a namespace is older than it may be", []partitionUse{part("p1", 3, true, map[string]int64{"a": 10, "b": 1, "c": 9})}, "p1 namespaces are due map[b:age]"},
	} {
		have := ""
		if r, ok := decideRewrite(now, c.closed, by); ok {
			have = fmt.Sprint(r.name, " ", r.reason, " ", r.drop)
			if len(r.leave) > 0 {
				have += fmt.Sprintf(" of which %v stay", r.leave)
			}
		}
		if have != c.want {
			t.Errorf("%s: have %q, want %q", c.name, have, c.want)
		}
	}
}

// TestRandomLinesAreFoundAsByANaiveScan goes through cut, seal, restart and
// loss of the index at random.
func TestRandomLinesAreFoundAsByANaiveScan(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	cfg := small(t.TempDir())
	cfg.PartitionBytes = 24 << 10
	start := func() *Store {
		s := open(t, cfg)
		if seed%2 == 0 { // what is told of closed partitions is read again by each question
			s.most = 0
		}
		return s
	}
	s := start()
	defer func() { _ = s.Close() }()
	st := streams(6)
	words := strings.Fields("alpha beta Gamma delta_x error ERROR failed http status café naïve\x01tab quick brown fox jumps \xff\xfe raw")
	var want []string
	for round := range 60 {
		records := make([]record.Record, 10+rnd.IntN(80))
		for i := range records {
			b := fmt.Appendf(nil, "n %d", len(want))
			for range rnd.IntN(12) {
				switch rnd.IntN(4) {
				case 0:
					b = fmt.Appendf(b, " id%d", rnd.IntN(3000))
				case 1:
					b = fmt.Appendf(b, " %x-%s", rnd.Uint32(), words[rnd.IntN(len(words))])
				case 2:
					b = append(b, "\n\tat line"...)
				default:
					b = append(append(b, ' '), words[rnd.IntN(len(words))]...)
				}
			}
			records[i] = record.Record{Time: rnd.Int64N(1e18), Stream: st[rnd.IntN(len(st))], Body: b}
			if rnd.IntN(20) == 0 {
				records[i].Fields = []record.Field{{Key: "k", Value: "v\"\n"}}
			}
			want = append(want, string(b))
		}
		if err := s.Append(t.Context(), records, nil); err != nil {
			t.Fatal(err)
		}
		var err error
		step := rnd.IntN(9)
		switch step {
		case 0:
			err = s.Flush(t.Context())
		case 1:
			maintain(t, s, time.Now())
		case 2:
			err = s.Seal(t.Context())
		case 3, 4:
			dirs, _ := filepath.Glob(filepath.Join(cfg.Dir, "parts", "*", "index"))
			err = s.Close()
			if step == 4 && len(dirs) > 0 {
				err = errors.Join(err, os.RemoveAll(dirs[rnd.IntN(len(dirs))]))
			}
			s = start()
		case 5: // while it is in use
			for _, p := range s.parts {
				if rnd.IntN(2) == 0 {
					err = errors.Join(err, os.RemoveAll(p.indexDir()))
				}
			}
		}
		if err != nil {
			t.Fatalf("round %d, step %d: %v", round, step, err)
		}
		word := []string{"alpha", "gamma", "error", "café", fmt.Sprintf("id%d", rnd.IntN(3000)), "absent"}[rnd.IntN(6)]
		for _, n := range []index.Need{{}, {Op: index.Word, Text: word}, {Op: index.Prefix, Text: word[:3]}} {
			holds := func(text string) (yes bool) {
				index.Words(text, func(w string) {
					yes = yes || n.Op == index.Any || n.Op == index.Word && w == n.Text || n.Op == index.Prefix && strings.HasPrefix(w, n.Text)
				})
				return yes
			}
			no := func(text string) bool { return !holds(text) }
			have := slices.DeleteFunc(all(t, s, n), no)
			if naive := slices.DeleteFunc(slices.Clone(want), no); !slices.Equal(have, naive) {
				t.Fatalf("seed %d round %d: %v %q: have %d lines, want %d", seed, round, n.Op, n.Text, len(have), len(naive))
			}
		}
	}
}

// filesystem mounts one of so many megabytes.
func filesystem(t *testing.T, mb int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mb)); err != nil {
		t.Skip("needs to mount a file system: ", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestADiskThatIsFullWhileSealingLosesNothingAndItIsTriedAgain(t *testing.T) {
	dir := filesystem(t, 4)
	s := open(t, small(dir))
	defer func() { _ = s.Close() }()
	st := streams(3)
	n := 0
	for range 60 {
		records := batch(st, n, 200)
		for i := range records { // sealed it is as large
			records[i].Body = fmt.Appendf(records[i].Body, " %x", sha256.Sum256(records[i].Body))
		}
		if err := s.Append(t.Context(), records, nil); err != nil {
			t.Fatal(err)
		}
		n += 200
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	var free syscall.Statfs_t
	if err := syscall.Statfs(dir, &free); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filler, make([]byte, int64(free.Bavail)*free.Bsize-200<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Seal(t.Context()); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("err %v, want one that says the disk is full", err)
	}
	p := s.parts[0]
	for _, path := range []string{p.newBlocks(), p.newIndex()} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("half-made %s is there: %v", path, err)
		}
	}
	wantLines(t, all(t, s, index.Need{}), n)
	if testutil.ToFloat64(s.m.sealFailed) != 1 {
		t.Error("the failure is not counted")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := s.rewriteDue(t.Context(), time.Now(), 0); err != nil || s.parts[0].isSealed() {
		t.Fatalf("tried again at once: sealed %v, %v", s.parts[0].isSealed(), err)
	}
	if err := s.rewriteDue(t.Context(), time.Now().Add(sealRetry), 0); err != nil || !s.parts[0].isSealed() {
		t.Fatalf("tried again: sealed %v, %v", s.parts[0].isSealed(), err)
	}
	wantLines(t, all(t, s, index.Need{}), n)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, small(dir))
	wantLines(t, all(t, s, index.Need{}), n)
}

func TestADamagedBlockIsKeptAsItIsWhenOthersAreSealed(t *testing.T) {
	cfg := small(t.TempDir())
	s := open(t, cfg)
	appendAll(t, s, 0, 4000, streams(3))
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	bad := s.parts[0].metas[7]
	f, err := os.OpenFile(s.parts[0].blocksFile(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	end := int64(0)
	for _, m := range s.parts[0].metas[:8] {
		end += m.Size()
	}
	if _, err := f.WriteAt([]byte("damaged"), end-20); err != nil { // within the last frame
		t.Fatal(err)
	}
	_ = f.Close()
	if err := s.Seal(t.Context()); err != nil || !s.parts[0].isSealed() {
		t.Fatalf("sealed %v: %v", s.parts[0].isSealed(), err)
	}
	for range 2 {
		v, err := s.View()
		if err != nil {
			t.Fatal(err)
		}
		lines, broken := 0, 0
		for _, p := range v.Select(t.Context(), 0, 1<<62, func(*record.Stream) bool { return true }, index.Need{}) {
			l, err := p.Read(nil)
			if err == nil {
				lines += l.Len()
				continue
			}
			broken++
			if p.First != bad.First || p.Hash != bad.Hash || p.Lines != bad.Lines || !errors.Is(err, block.ErrDamaged) {
				t.Errorf("stream %x from line %d: %v", p.Hash, p.First, err)
			}
			if times, err := p.Times(nil); err != nil || times.Len() != bad.Lines {
				t.Errorf("times of the damaged block: %v", err)
			}
		}
		_ = v.Release()
		if lines != 4000-bad.Lines || broken != 1 {
			t.Fatalf("%d lines, %d blocks cannot be read", lines, broken)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, cfg)
	}
	_ = s.Close()
}

// TestAFullFilesystemRefusesAndHeals uses a real one of two megabytes.
func TestAFullFilesystemRefusesAndHeals(t *testing.T) {
	dir := filesystem(t, 2)
	cfg := small(dir)
	s := open(t, cfg)
	st := streams(3)
	n, refused := 0, 0
	rnd := rand.New(rand.NewPCG(1, 1))
	filler := filepath.Join(dir, "filler")
	for round := range 200 {
		if round == 100 { // the disk has room again
			if refused == 0 {
				t.Fatal("nothing was refused on a full disk")
			}
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			refused = 0
		}
		if round == 30 {
			_ = os.WriteFile(filler, make([]byte, 2<<20), 0o600) // as much as there is
		}
		records := batch(st, n, 20)
		for i := range records {
			records[i].Body = fmt.Appendf(records[i].Body, " %x%x", rnd.Uint64(), rnd.Uint64())
		}
		err := s.Append(t.Context(), records, nil)
		if err == nil {
			n += 20
		} else {
			refused++
		}
		maintain(t, s, time.Now())
	}
	if refused > 0 {
		t.Fatalf("%d batches were refused after the disk had room again", refused)
	}
	wantLines(t, all(t, s, index.Need{}), n)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	wantLines(t, all(t, s, index.Need{}), n)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// A file system that can only be read is a clear error, and nothing is lost.
	if err := syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, "size=2m"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg, quiet(), prometheus.NewRegistry()); !errors.Is(err, syscall.EROFS) {
		t.Fatalf("err %v, want one that says the file system is read-only", err)
	}
	if err := syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT, "size=2m"); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	wantLines(t, all(t, s, index.Need{}), n)
	_ = s.Close()
}

func TestAFlippedBitCostsItsBlockOnly(t *testing.T) {
	cfg := small(t.TempDir())
	s := open(t, cfg)
	appendAll(t, s, 0, 3000, streams(3))
	if err := s.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	path, metas := s.parts[0].blocksFile(), len(s.parts[0].metas)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(3, 3))
	for range 40 {
		b := slices.Clone(whole)
		b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, cfg)
		v, err := s.View()
		if err != nil {
			t.Fatal(err)
		}
		bad := metas - len(s.parts[0].metas)
		for _, p := range v.Select(t.Context(), 0, 1<<62, func(*record.Stream) bool { return true }, index.Need{}) {
			l, err := p.Read(nil)
			if err != nil {
				bad++
				continue
			}
			for i := range l.Len() {
				if k := lineNumber(string(l.Body(i))); !strings.HasPrefix(string(l.Body(i)), fmt.Sprintf("line %d of %s INFO", k, p.Stream.Pod)) {
					t.Fatalf("line %q", l.Body(i))
				}
			}
		}
		_ = v.Release()
		if bad != 1 {
			t.Fatalf("one flipped bit cost %d blocks", bad)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

package store

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"perch/logs/block"
	"perch/logs/index"
	"perch/logs/record"
)

// spoil writes into a partition's blocks, a few bytes before the end of the record
// that has block n.
func spoil(t *testing.T, s *Store, n int) {
	t.Helper()
	p := s.parts[0]
	end := int64(0)
	for i, m := range p.metas {
		if i > n && !m.Beside(p.metas[n]) {
			break
		}
		end += m.Size()
	}
	f, err := os.OpenFile(p.blocksFile(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("damaged"), end-30); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAPartitionWhoseLastRecordCannotBeKeptGoes(t *testing.T) {
	cfg := Default(t.TempDir())
	s := open(t, cfg)
	st := streams(4)
	st[0].Namespace = "short"
	appendAll(t, s, 0, 400, st)
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(s.parts[0].metas[0].Record(s.parts[0].metas)); n != 4 {
		t.Fatalf("%d blocks are in the record", n)
	}
	spoil(t, s, 0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Namespaces = func() map[string]Retention { return map[string]Retention{"short": {Bytes: 1}} }
	s = open(t, cfg)
	defer func() { _ = s.Close() }()
	if err := s.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(s.parts) != 1 || len(s.parts[0].metas) != 0 {
		t.Errorf("%d partitions are left", len(s.parts))
	}
	appendAll(t, s, 400, 400, st)
	if n := len(all(t, s, index.Need{})); n != 400 {
		t.Errorf("have %d lines", n)
	}
}

// What was unpacked before the disk spoiled it is remembered for a while.
func TestABlockIsNotKeptTwiceWhenItsRecordSpoilsWhileItIsSealed(t *testing.T) {
	cfg := Default(t.TempDir())
	cfg.LearnBlocks = 1 // no others are read before
	s := open(t, cfg)
	defer func() { _ = s.Close() }()
	st, n := streams(4), 0
	for range 8 + 4*runtime.GOMAXPROCS(0) { // more records than are remembered
		appendAll(t, s, n, 40, st)
		n += 40
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	p := s.parts[0]
	if _, err := p.file.Read(p.metas[0], nil); err != nil {
		t.Fatal(err)
	}
	spoil(t, s, 0)
	if err := s.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	numbers := map[uint64]map[uint64]bool{}
	lines := 0
	for _, m := range s.parts[0].metas {
		if numbers[m.Hash] == nil {
			numbers[m.Hash] = map[uint64]bool{}
		}
		for i := range m.Lines {
			n := m.First + uint64(i)
			if numbers[m.Hash][n] {
				t.Fatalf("line %d of %s is in two blocks", n, m.Stream.Pod)
			}
			numbers[m.Hash][n] = true
			lines++
		}
	}
	if want := n - 30; lines != want { // three of four blocks of a record
		t.Errorf("blocks have %d lines, want %d", lines, want)
	}
}

// What the write-ahead log still has is in the last bundle too, which is torn at any
// byte, or has any byte wrong.
func TestATornBundleIsTakenFromTheWriteAheadLog(t *testing.T) {
	cfg := Default(filepath.Join(t.TempDir(), "store"))
	s := open(t, cfg)
	st := streams(5)
	st[3].Namespace = "other"
	appendAll(t, s, 0, 60, st)
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	safe := s.parts[0].file.Size()
	appendAll(t, s, 60, 40, st)
	s.mu.Lock()
	s.sealAll(slices.Collect(maps.Values(s.sources)))
	s.mu.Unlock()
	if !s.cutOne() || len(s.sealed) > 0 || len(s.parts[0].metas) != 10 {
		t.Fatal("want one record of all heads")
	}
	appendAll(t, s, 100, 20, st)
	killed := t.TempDir() // what a process that is killed now leaves
	if err := os.CopyFS(killed, os.DirFS(cfg.Dir)); err != nil {
		t.Fatal(err)
	}
	name, err := filepath.Rel(cfg.Dir, s.parts[0].blocksFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(killed, name))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Dir = filepath.Join(t.TempDir(), "again")
	for at := int(safe); at <= len(whole); at += 1 + at%29 {
		for _, torn := range []bool{true, false} {
			if err := errors.Join(os.RemoveAll(cfg.Dir), os.CopyFS(cfg.Dir, os.DirFS(killed))); err != nil {
				t.Fatal(err)
			}
			b := bytes.Clone(whole)
			if torn {
				b = b[:at]
			} else if at < len(b) {
				b[at] ^= 1 << (at % 8)
			}
			if err := os.WriteFile(filepath.Join(cfg.Dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
			s := open(t, cfg)
			wantLines(t, all(t, s, index.Need{}), 120)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A disk that takes a part of a bundle and no more.
func TestABundleThatTheDiskDoesNotTakeIsWrittenLater(t *testing.T) {
	cfg := Default(t.TempDir())
	s := open(t, cfg)
	defer func() { _ = s.Close() }()
	appendAll(t, s, 0, 400, streams(40))
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	appendAll(t, s, 400, 400, streams(40))
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	full := was
	full.Cur = uint64(s.parts[0].file.Size()) + 500
	s.mu.Lock()
	s.sealAll(slices.Collect(maps.Values(s.sources)))
	s.mu.Unlock()
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &full); err != nil {
		t.Fatal(err)
	}
	cut := s.cutOne()
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if cut || len(s.sealed) != 40 {
		t.Fatalf("cut %v, %d heads wait", cut, len(s.sealed))
	}
	wantLines(t, all(t, s, index.Need{}), 800)
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantLines(t, all(t, s, index.Need{}), 800)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	wantLines(t, all(t, s, index.Need{}), 800)
	if n := len(s.parts[0].metas); n != 80 {
		t.Errorf("%d blocks", n)
	}
}

func TestABundleHasABoundedNumberOfBlocks(t *testing.T) {
	queue := make([]*head, 100_000)
	for i := range queue {
		queue[i] = &head{lines: block.Lines{Text: []byte("\n")}}
	}
	if n := together(queue, smallBlock); n < 1000 || n > 4000 {
		t.Errorf("%d blocks in one record", n)
	}
}

func TestAppendersCutWhatIsLargeAndNotThousandsOfSmallHeads(t *testing.T) {
	cfg := Default(t.TempDir())
	for _, c := range []struct {
		name         string
		large, bytes int
		want         bool
	}{
		{"few large ones wait", maxSealed, maxSealed * cfg.BlockBytes, false},
		{"many large ones wait", maxSealed + 1, (maxSealed + 1) * cfg.BlockBytes, true},
		{"thousands of small ones wait", 0, cfg.HeadBytes, false},
		{"all take more memory than they may", 0, cfg.HeadBytes + 1, true},
	} {
		if have := decideHelp(c.large, c.bytes, cfg); have != c.want {
			t.Errorf("%s: have %v", c.name, have)
		}
	}
	s := open(t, cfg)
	defer func() { _ = s.Close() }()
	appendAll(t, s, 0, 2000, streams(1000))
	s.sealDue(time.Now().Add(cfg.HeadAge))
	appendAll(t, s, 2000, 20, streams(1000))
	if len(s.sealed) != 1000 || s.sealedLarge != 0 {
		t.Errorf("%d small heads wait after a line was appended, %d large", len(s.sealed), s.sealedLarge)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantLines(t, all(t, s, index.Need{}), 2020)
}

func TestWhenAllHeadsAreSmallManyAreSealedAtOnce(t *testing.T) {
	cfg := Default(t.TempDir())
	cfg.HeadBytes = 1 << 20
	s := open(t, cfg)
	defer func() { _ = s.Close() }()
	st := streams(4000)
	appendAll(t, s, 0, 4000, st)
	if s.headBytes-s.sealedBytes > cfg.HeadBytes {
		t.Errorf("heads take %d bytes", s.headBytes-s.sealedBytes)
	}
	p := s.parts[0]
	records := 0
	for i, m := range p.metas {
		if i == 0 || !m.Beside(p.metas[i-1]) {
			records++
		}
	}
	if len(p.metas) < 1000 || records > len(p.metas)/50 {
		t.Errorf("%d blocks are in %d records", len(p.metas), records)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.headBytes != 0 || s.sealedBytes != 0 || s.sealedLarge != 0 {
		t.Errorf("no heads take %d bytes, %d, %d", s.headBytes, s.sealedBytes, s.sealedLarge)
	}
	wantLines(t, all(t, s, index.Need{}), 4000)
}

func TestAStreamsLabelsAreInMemoryOnce(t *testing.T) {
	cfg := Default(t.TempDir())
	s := open(t, cfg)
	st := streams(3)
	for i := range 3 {
		appendAll(t, s, 60*i, 60, st)
		if err := s.Seal(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		labels := map[*record.Stream]bool{}
		for _, p := range s.parts {
			for _, m := range p.metas {
				labels[m.Stream] = true
			}
		}
		if len(labels) != 3 {
			t.Errorf("labels of 3 streams are there %d times", len(labels))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, cfg)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestStreamsThatEndedLongAgoTakeNoMemoryBesideTheirBlocks(t *testing.T) {
	cfg := worn(t.TempDir())
	s := open(t, cfg)
	defer func() { _ = s.Close() }()
	appendAll(t, s, 0, 1000, streams(500))
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	others := streams(510)[500:]
	for n := 1000; n < 4000; n += 1000 {
		appendAll(t, s, n, 1000, others)
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Seal(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	if n := len(s.sources); n > len(others) {
		t.Errorf("%d streams are remembered", n)
	}
	appendAll(t, s, 4000, 1000, streams(500)) // and their lines have numbers of their own
	wantLines(t, all(t, s, index.Need{}), 5000)
}

func TestAViewReadsBundlesThatWereSealedMeanwhile(t *testing.T) {
	s := slow(t, Default(t.TempDir()), 1600)
	defer func() { _ = s.Close() }()
	v, err := s.View()
	if err != nil {
		t.Fatal(err)
	}
	old := s.parts[0]
	if err := s.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.parts[0] == old {
		t.Fatal("nothing was sealed")
	}
	if err := os.RemoveAll(s.parts[0].dir); err != nil { // as retention does
		t.Fatal(err)
	}
	lines := 0
	parts := &block.Parts{}
	for _, p := range v.Select(t.Context(), 0, 1<<62, func(*record.Stream) bool { return true }, index.Need{}) {
		l, err := p.Read(nil)
		if err != nil {
			t.Fatal(err)
		}
		if p.Templated() {
			if p.Parts(parts); err == nil {
				_, err = parts.Columns()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		lines += l.Len()
	}
	if err := v.Release(); err != nil || lines != 1600 {
		t.Errorf("%d lines, %v", lines, err)
	}
}

package store

import (
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"perch/logs/index"
)

// take copies what Files lists of s, as much of each file as it says.
func take(t *testing.T, s *Store, to string) Files {
	t.Helper()
	files, err := s.Files()
	if err != nil {
		t.Fatal(err)
	}
	all := files.Segments
	for _, p := range files.Parts {
		all = append(all, p.Files...)
	}
	for _, f := range all {
		path := filepath.Join(to, filepath.FromSlash(f.Path))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, f.Size)
		h, err := os.Open(filepath.Join(s.cfg.Dir, filepath.FromSlash(f.Path)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(h, b); err != nil {
			t.Fatalf("%s has less than %d bytes: %v", f.Path, f.Size, err)
		}
		_ = h.Close()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if files.Checkpoint != nil {
		if err := os.WriteFile(filepath.Join(to, CheckpointName), files.Checkpoint, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func openCopy(t *testing.T, from string) *Store {
	t.Helper()
	cfg := small(filepath.Join(t.TempDir(), "scratch"))
	c, err := OpenCopy(from, cfg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestACopyOfTheFilesHasEveryAcknowledgedLine(t *testing.T) {
	for seed := range uint64(6) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		cfg := small(t.TempDir())
		cfg.PartitionBytes = 24 << 10
		s := open(t, cfg)
		st := streams(3)
		n := 0
		for range 40 {
			k := 20 * (1 + rnd.IntN(6))
			appendAll(t, s, n, k, st)
			n += k
			switch rnd.IntN(6) {
			case 0:
				maintain(t, s, time.Now())
			case 1:
				if err := s.Seal(t.Context()); err != nil {
					t.Fatal(err)
				}
			case 2:
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = open(t, cfg)
			case 3:
				dir := t.TempDir()
				take(t, s, dir)
				c := openCopy(t, dir)
				wantLines(t, all(t, c, index.Need{Op: index.Any}), n)
				sameIDs(t, s, c)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// sameIDs wants the lines of both stores to have the same numbers.
func sameIDs(t *testing.T, a, b *Store) {
	t.Helper()
	next := func(s *Store) map[uint64]uint64 {
		out := map[uint64]uint64{}
		for h, src := range s.sources {
			out[h] = src.next
		}
		return out
	}
	was, is := next(a), next(b)
	for h, n := range was {
		if is[h] != n {
			t.Fatalf("the next line of stream %x is %d in the store, %d in the copy", h, n, is[h])
		}
	}
}

func TestACopyIsNotChangedByReadingIt(t *testing.T) {
	cfg := small(t.TempDir())
	s := open(t, cfg)
	defer s.Close()
	appendAll(t, s, 0, 3000, streams(2))
	if err := s.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	appendAll(t, s, 3000, 3000, streams(2)) // more than the budget of heads
	dir := t.TempDir()
	files := take(t, s, dir)
	last := files.Segments[len(files.Segments)-1]
	torn := filepath.Join(dir, filepath.FromSlash(last.Path)) // an entry that is on its way
	if f, err := os.OpenFile(torn, os.O_APPEND|os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	} else if _, err := f.Write([]byte{9, 0, 0, 0, 1, 2, 3}); err != nil {
		t.Fatal(err)
	} else if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	before := tree(t, dir)
	c := openCopy(t, dir)
	wantLines(t, all(t, c, index.Need{Op: index.Any}), 6000)
	if err := c.Append(t.Context(), batch(streams(1), 0, 1), nil); err == nil {
		t.Error("a copy took a line")
	}
	if c.parts[0].index() == nil {
		t.Error("the index of the sealed partition was not opened")
	}
	if have := all(t, c, index.Need{Op: index.Word, Text: "nosuchword"}); len(have) >= 6000 {
		t.Errorf("the index left out nothing of %d lines", len(have))
	}
	after := tree(t, dir)
	for path, size := range before {
		if after[path] != size {
			t.Errorf("%s had %d bytes, has %d", path, size, after[path])
		}
	}
	if len(after) != len(before) {
		t.Errorf("there were %d files, are %d", len(before), len(after))
	}
}

func tree(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			out[path] = info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A copy that begins with the newest partitions numbers lines as the store does.
func TestACopyWithoutOldPartitionsHasTheSameNumbers(t *testing.T) {
	cfg := small(t.TempDir())
	s := open(t, cfg)
	defer s.Close()
	st := streams(3)
	appendAll(t, s, 0, 600, st)
	if err := s.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	appendAll(t, s, 600, 40, st)
	maintain(t, s, time.Now())
	dir := t.TempDir()
	files := take(t, s, dir)
	if err := os.RemoveAll(filepath.Join(dir, "parts", files.Parts[0].Name)); err != nil {
		t.Fatal(err)
	}
	c := openCopy(t, dir)
	if have := all(t, c, index.Need{Op: index.Any}); len(have) != 40 {
		t.Fatalf("have %d lines, want 40", len(have))
	}
	sameIDs(t, s, c)
}

package index

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// segments are the files that the library has written.
func segments(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "bleve", "*.zap"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	return files
}

// closed is an index of 70 blocks on disk.
func closed(t *testing.T) (dir string, texts []string) {
	t.Helper()
	texts = corpus(1, 70)
	dir = filepath.Join(t.TempDir(), "idx")
	x := build(t, dir, texts)
	if err := x.Flush(); err != nil {
		t.Fatal(err)
	}
	x.Settle(5 * time.Second)
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, texts
}

// An index of which a bit has flipped is built anew: it would leave out blocks
// that have the word.
func TestAFlippedBitIsSeenWhenTheIndexIsOpened(t *testing.T) {
	dir, texts := closed(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, path := range segments(t, dir) {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for range 12 {
			at := rnd.IntN(len(whole))
			broken := append([]byte(nil), whole...)
			broken[at] ^= 1 << rnd.IntN(8)
			if err := os.WriteFile(path, broken, 0o600); err != nil {
				t.Fatal(err)
			}
			if x, err := Open(dir, 70); err == nil {
				t.Errorf("%s: byte %d of %d", filepath.Base(path), at, len(whole))
				_ = x.Close()
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	x, err := Open(dir, 70)
	if err != nil {
		t.Fatal(err)
	}
	check(t, x, texts)
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
}

// What is damaged later is an error or an answer, but does not end the process.
func TestDamageOfAnOpenIndexDoesNotPanic(t *testing.T) {
	dir, texts := closed(t)
	var words []string
	Words(texts[3], func(w string) { words = append(words, w) })
	rnd := rand.New(rand.NewPCG(3, 4))
	failed := 0
	for range 8 {
		x, err := OpenRead(dir, 70)
		if err != nil {
			t.Fatal(err)
		}
		kept := map[string][]byte{}
		for _, path := range segments(t, dir) { // is mapped: what is written there is read
			if kept[path], err = os.ReadFile(path); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			for range 200 {
				if _, err := f.WriteAt([]byte{byte(rnd.Uint32())}, int64(rnd.IntN(len(kept[path])))); err != nil {
					t.Fatal(err)
				}
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		for _, w := range words[:300] {
			if _, _, err := x.Candidates(t.Context(), Need{Op: Word, Text: w}); err != nil {
				failed++
			}
		}
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
		for path, b := range kept {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if failed == 0 {
		t.Error("nothing was damaged that is read")
	}
}

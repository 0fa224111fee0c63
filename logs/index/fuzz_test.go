package index

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// What is on disk is read without a panic, whatever it is, and what was written comes
// back.
func FuzzVocabulary(f *testing.F) {
	dir := f.TempDir()
	path := filepath.Join(dir, "vocabulary")
	for _, words := range [][]string{nil, {"a"}, {"served", "request", "é"}} {
		if err := writeVocabulary(path, newVocabulary(words)); err != nil {
			f.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("v2 "))
	f.Add([]byte("v1 00000000\na\nb"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "vocabulary")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := readVocabulary(path)
		if err != nil {
			return
		}
		if err := writeVocabulary(path, v); err != nil {
			t.Fatal(err)
		}
		again, err := readVocabulary(path)
		if err != nil || !slices.Equal(again.words, v.words) {
			t.Fatalf("have %q, want %q (%v)", again.words, v.words, err)
		}
	})
}

func writeFilters(tb testing.TB, path string, keys ...[]uint64) {
	tb.Helper()
	t, err := openFilters(path, 1<<30, false)
	if err != nil {
		tb.Fatal(err)
	}
	for _, of := range keys {
		b := make([]byte, filterBytes(len(of)))
		for _, h := range of {
			filterAdd(b, h)
		}
		if err := t.append(b); err != nil {
			tb.Fatal(err)
		}
	}
	if err := t.close(); err != nil {
		tb.Fatal(err)
	}
}

// After a loss of power a file may have its length, and zeros where nothing was written.
func TestAHoleOfZerosIsNoFilters(t *testing.T) {
	for _, readOnly := range []bool{true, false} {
		path := filepath.Join(t.TempDir(), "filters")
		writeFilters(t, path, []uint64{1, 2, 3}, nil, []uint64{4})
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(good, make([]byte, 4096)...), 0o600); err != nil {
			t.Fatal(err)
		}
		x, err := openFilters(path, 100, readOnly)
		if err != nil {
			t.Fatal(err)
		}
		if n := x.count(); n != 3 {
			t.Errorf("%d filters, 3 were written", n)
		}
		if err := x.close(); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzFilters(f *testing.F) {
	path := filepath.Join(f.TempDir(), "filters")
	writeFilters(f, path, []uint64{1, 2, 3}, nil, []uint64{1 << 60, 5})
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, uint64(2))
	f.Add(good[:len(good)-1], uint64(5))
	f.Add(append(good, make([]byte, 40)...), uint64(5))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, h uint64) {
		for _, readOnly := range []bool{true, false} {
			path := filepath.Join(t.TempDir(), "filters")
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			x, err := openFilters(path, 1<<30, readOnly)
			if err != nil {
				t.Fatal(err)
			}
			n := x.count()
			have := NewSet(n + 1)
			if err := x.mark(h, FullSet(n), have); err != nil {
				t.Fatal(err)
			}
			if err := x.close(); err != nil {
				t.Fatal(err)
			}
			if readOnly {
				continue
			}
			writeFilters(t, path, []uint64{h}) // it goes on after what was good
			if x, err = openFilters(path, 1<<30, true); err != nil {
				t.Fatal(err)
			}
			have = NewSet(n + 1)
			if err := x.mark(h, FullSet(n+1), have); err != nil || x.count() != n+1 || !have.Has(n) {
				t.Fatalf("%d filters, want %d; %v (%v)", x.count(), n+1, have, err)
			}
			if err := x.close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

package block

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"
)

func TestBlocksThatWereNotMadeDurableAreNotCalledSoTheNextTime(t *testing.T) {
	c := codec(t)
	path := filepath.Join(t.TempDir(), "blocks.dat")
	_, ends := someBundles(t, path, c)
	f, _, _, err := Open(path, c, ends[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fsync := f.flush
	fail := func() error { return syscall.EIO } // and now the kernel calls the pages clean
	f.flush = fail
	if n, err := f.Sync(); !errors.Is(err, syscall.EIO) || f.Synced() != ends[0] {
		t.Fatal(n, err, f.Synced())
	}
	f.flush = fsync
	was := make([]byte, 8)
	if _, err := f.f.ReadAt(was, ends[1]-8); err != nil {
		t.Fatal(err)
	}
	if _, err := f.f.WriteAt(make([]byte, 8), ends[1]-8); err != nil { // what the disk has
		t.Fatal(err)
	}
	for range 2 {
		if n, err := f.Sync(); !errors.Is(err, ErrDamaged) || f.Synced() != ends[0] {
			t.Fatal("the disk has other bytes:", n, err, f.Synced())
		}
	}
	if _, err := f.f.WriteAt(was, ends[1]-8); err != nil {
		t.Fatal(err)
	}
	written := make([]bool, 0, 2)
	for _, how := range []func() error{fail, fsync} { // the pages are still there
		f.flush = how
		n, err := f.Sync()
		written = append(written, err == nil && n == f.Size() && f.Synced() == n)
	}
	if written[0] || !written[1] {
		t.Error("the disk has the bytes:", written)
	}
}

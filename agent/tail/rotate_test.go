package tail

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"perch/logs/record"
)

func TestAFileThatWasRotatedSinceItWasListedIsNotTakenForTheNext(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	tl := start(t, dir, m)
	tl.stop()
	c := newWriter(t, dir, podName)
	c.say("stdout", "F", "first file")
	path := filepath.Join(c.dir, "0.log")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	c.rotate()
	if _, err := tl.begin(&attempt{key: podName + "/app/0"}, path, info); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("have %v", err)
	}
}

func TestPositionsAreKeptWhileALookMissedSomething(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	tl := start(t, dir, m)
	tl.stop()
	gone := podName + "/app/7"
	m.positions[posKey(gone, 1)] = record.Position{File: gone, Inode: 1}
	tl.missed, tl.forgot = true, false
	tl.forgetOld()
	if len(m.Positions()) != 1 {
		t.Fatal("a position is gone")
	}
	tl.missed = false
	tl.forgetOld()
	if len(m.Positions()) != 0 {
		t.Fatal("an old position stays")
	}
}

package replica

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func FuzzFrames(f *testing.F) {
	body := []byte("bytes")
	f.Add(append(frame{kind: frameData, path: "wal/00000001.wal", version: "0a", body: body}.appendHead(nil), body...))
	f.Add(frame{kind: frameMark, offset: 12}.appendHead(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, buf := bytes.NewReader(in), []byte(nil)
		for {
			var x frame
			var err error
			if x, buf, err = readFrame(r, buf); err != nil {
				return
			}
			if x.kind == frameData && !legal(x.path) {
				t.Fatalf("a file is called %q", x.path)
			}
			text := append(x.appendHead(nil), x.body...)
			if end := len(in) - r.Len(); !bytes.Equal(in[end-len(text):end], text) {
				t.Fatalf("%q is read as %+v", in[end-len(text):end], x)
			}
		}
	})
}

// FuzzShipment goes to the disk: its seeds are what counts.
func FuzzShipment(f *testing.F) {
	body := []byte("bytes")
	good := append(frame{kind: frameData, path: "wal/00000001.wal", body: body}.appendHead(nil), body...)
	mark := frame{kind: frameMark, offset: 12}.appendHead(nil)
	text := []byte(`{"at":"2026-01-02T03:04:05Z","files":[{"Path":"wal/00000001.wal","Size":5}],"checkpoint":"e30="}`)
	f.Add(slices.Concat(good, mark, frame{kind: frameCommit, body: text}.appendHead(nil), text))
	f.Add(good[:20])
	f.Fuzz(func(t *testing.T, in []byte) {
		dir := t.TempDir()
		h, err := openHeld("x", "y", filepath.Join(dir, "copy"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = h.receive(strings.NewReader(string(in)), func(int64) error { return nil })
		if err != nil && !errors.Is(err, errFrame) && !errors.Is(err, errMismatch) && !strings.Contains(err.Error(), "file name") && !strings.Contains(err.Error(), "directory") {
			t.Errorf("refused by %v", err)
		}
		if names, _ := os.ReadDir(dir); len(names) != 1 {
			t.Errorf("written outside of the copy: %v", names)
		}
		was := h.meta
		again, err := openHeld("x", "y", filepath.Join(dir, "copy"))
		if err != nil {
			t.Fatal(err)
		}
		if len(again.meta.Sizes) != len(was.Sizes) {
			t.Errorf("files were %v, are %v", was.Sizes, again.meta.Sizes)
		}
	})
}

// A file that is sent anew under its old version takes the place of the one before: who
// has mapped that reads on, for of a shorter one the process would end (SIGBUS).
func TestAFileThatIsSentAnewIsAnotherOne(t *testing.T) {
	h, err := openHeld("x", "y", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const path = "parts/20260102T030405.000Z/index/bleve/000000000001.zap"
	send := func(bodies ...string) {
		t.Helper()
		var in []byte
		for _, body := range bodies {
			in = append(frame{kind: frameData, path: path, body: []byte(body)}.appendHead(in), body...)
		}
		if _, err := h.receive(strings.NewReader(string(in)), func(int64) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	send("what was there before")
	f, err := os.Open(h.path(path))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	send("once more", "new")
	before, err := io.ReadAll(f)
	if err != nil || string(before) != "what was there before" {
		t.Errorf("who had opened it reads %q (%v)", before, err)
	}
	if now, err := os.ReadFile(h.path(path)); err != nil || string(now) != "new" || h.meta.Sizes[path] != 3 {
		t.Errorf("there is %q, of %d bytes (%v)", now, h.meta.Sizes[path], err)
	}
}

package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOutputOutlivesItsWriter plays a container that writes and ends while
// nobody reads, and the runtime that comes back.
func TestOutputOutlivesItsWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stdout")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	both, err := os.OpenFile(path, os.O_RDWR, 0) // the shim's two ends
	if err != nil {
		t.Fatal(err)
	}
	o := newOutputs()
	o.hold("c", path, "", filepath.Join(t.TempDir(), "absent"))
	if _, err := both.WriteString("last words\n"); err != nil {
		t.Fatal(err)
	}
	if err := both.Close(); err != nil {
		t.Fatal(err)
	}
	o.ended("c") // the first question is answered at once, and the reader comes after it
	got := make(chan string, 1)
	o.mu.Lock()
	released := o.held["c"].released
	o.mu.Unlock()
	select {
	case <-released:
		t.Fatal("the pipe was given up before anyone read it")
	default:
	}
	// In a process of its own a reader is "elsewhere"; here it would be taken
	// for the shim's end, so the pipe is released by hand.
	reader, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		text, _ := io.ReadAll(reader)
		got <- string(text)
	}()
	o.forget("c")
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	select {
	case text := <-got:
		if text != "last words\n" {
			t.Errorf("have %q, want what was written", text)
		}
	case <-limit.C:
		t.Error("the reader never saw the end")
	}
	o.ended("c") // a container that is gone asks for nothing
	o.forget("c")
}

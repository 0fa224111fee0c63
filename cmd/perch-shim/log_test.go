package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 120_000_000, time.UTC)

func TestSplit(t *testing.T) {
	const at = "2026-01-01T12:00:00.12Z stdout "
	long := strings.Repeat("x", maxLine)
	for _, c := range []struct {
		does  string
		reads []string
		want  []string
	}{
		{"lines become entries", []string{"a\nb\n"}, []string{"F a", "F b"}},
		{"an empty line is one too", []string{"\n\n"}, []string{"F ", "F "}},
		{"a line may come in several reads", []string{"a", "b", "c\nd", "\n"}, []string{"F abc", "F d"}},
		{"what has no end is kept as a part", []string{"a\nb"}, []string{"F a", "P b"}},
		{"a line of the greatest length is whole", []string{long + "\n"}, []string{"F " + long}},
		{"a longer one comes in parts", []string{long + "yz\n"}, []string{"P " + long, "F yz"}},
		{"parts do not depend on the reads", []string{long[:9], long[9:], "y\n"}, []string{"P " + long, "F y"}},
		{"bytes are kept as they are", []string{"\x00\xff\r\n"}, []string{"F \x00\xff\r"}},
		{"nothing makes nothing", nil, nil},
	} {
		t.Run(c.does, func(t *testing.T) {
			s, want := splitter{stream: "stdout"}, ""
			var out []byte
			for _, r := range c.reads {
				out = s.split(out, noon, []byte(r))
			}
			out = s.end(out, noon)
			for _, w := range c.want {
				want += at + w + "\n"
			}
			if string(out) != want {
				t.Errorf("have %.200q, want %.200q", out, want)
			}
		})
	}
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte("a\nb"), 1)
	f.Add(bytes.Repeat([]byte("long"), maxLine), 1000)
	f.Fuzz(func(t *testing.T, data []byte, step int) {
		s := splitter{stream: "stderr"}
		var out []byte
		for rest := data; len(rest) > 0; {
			n := min(len(rest), max(1, step))
			out = s.split(out, noon, rest[:n])
			rest = rest[n:]
		}
		out = s.end(out, noon)
		var back []byte
		for line := range bytes.Lines(out) {
			text, ok := bytes.CutPrefix(line, []byte("2026-01-01T12:00:00.12Z stderr "))
			if !ok || len(text) < 3 || len(text) > maxLine+3 {
				t.Fatalf("not an entry: %q", line)
			}
			back = append(back, text[2:len(text)-1]...)
			if text[0] == 'F' {
				back = append(back, '\n')
			}
		}
		if !bytes.Equal(back, data) {
			t.Errorf("have %q back, want %q", back, data)
		}
	})
}

// stream plays a container's stdout: it returns the pipe's write end, the log
// and a function that waits for the stream's end.
func stream(t *testing.T, runtimePipe string) (to *os.File, log *logFile, wait func()) {
	t.Helper()
	dir := t.TempDir()
	log, err := openLog(filepath.Join(dir, "0.log"))
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	path, opened, err := capture(dir, "stdout", runtimePipe, log, &done)
	if err != nil {
		t.Fatal(err)
	}
	if to, err = os.OpenFile(path, os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	}
	opened()
	return to, log, done.Wait
}

func TestStreamGoesToTheLogWhenNobodyReads(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "runtime")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	to, log, wait := stream(t, pipe)
	const lines = 100_000 // far more than a pipe takes
	for range lines {
		if _, err := to.WriteString("0123456789\n"); err != nil {
			t.Fatal(err)
		}
	}
	_ = to.Close()
	wait()
	text, err := os.ReadFile(log.path)
	if err != nil || bytes.Count(text, []byte(" stdout F 0123456789\n")) != lines {
		t.Errorf("have %d lines, %v; want %d", bytes.Count(text, []byte("\n")), err, lines)
	}
}

func TestRenamedLogIsLeftForANewOne(t *testing.T) {
	to, log, wait := stream(t, "")
	say := func(text, path string) {
		t.Helper()
		if _, err := to.WriteString(text + "\n"); err != nil {
			t.Fatal(err)
		}
		limit, tick := time.NewTimer(10*time.Second), time.NewTicker(time.Millisecond)
		defer limit.Stop()
		defer tick.Stop()
		for {
			if have, _ := os.ReadFile(path); bytes.HasSuffix(have, []byte(text+"\n")) {
				return
			}
			select {
			case <-limit.C:
				t.Fatalf("%q did not arrive in %s", text, path)
			case <-tick.C:
			}
		}
	}
	say("before", log.path)
	if err := os.Rename(log.path, log.path+".1"); err != nil {
		t.Fatal(err)
	}
	say("after", log.path)
	_ = to.Close()
	wait()
	old, err := os.ReadFile(log.path + ".1")
	if err != nil || bytes.Contains(old, []byte("after")) {
		t.Errorf("the old log has %q, %v", old, err)
	}
}

func TestFullDiskIsToldInTheLog(t *testing.T) {
	log, err := openLog(filepath.Join(t.TempDir(), "0.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.close()
	good := log.file
	if log.file, err = os.OpenFile("/dev/full", os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	}
	// The file at the log's path stays the one that is open, so that only the
	// write fails.
	if log.info, err = os.Stat(log.path); err != nil {
		t.Fatal(err)
	}
	log.append([]byte("lost\n"))
	_ = log.file.Close()
	log.file = good
	log.append([]byte("kept\n"))
	text, err := os.ReadFile(log.path)
	if err != nil || !strings.Contains(string(text), "5 bytes of log could not be written") || !strings.HasSuffix(string(text), "\nkept\n") {
		t.Errorf("have %q, %v; want the loss told, then what was kept", text, err)
	}
}

func BenchmarkTee(b *testing.B) {
	log, err := openLog(filepath.Join(b.TempDir(), "0.log"))
	if err != nil {
		b.Fatal(err)
	}
	defer log.close()
	line := []byte(strings.Repeat("x", 99) + "\n")
	block := bytes.Repeat(line, 320)
	b.SetBytes(int64(len(block)))
	b.ReportAllocs()
	for b.Loop() {
		tee(bytes.NewReader(block), log, "stdout", nil)
	}
}

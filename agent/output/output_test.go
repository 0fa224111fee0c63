package output

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// record makes one CRI record, n seconds after t0.
func record(n int, stream, tag, text string) string {
	return fmt.Sprintf("%s %s %s %s\n", t0.Add(time.Duration(n)*time.Second).Format(time.RFC3339Nano), stream, tag, text)
}

func put(t *testing.T, path string, records ...string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(strings.Join(records, "")), 0o600); err != nil {
		t.Fatal(err)
	}
}

func all() Options { return Options{Tail: -1, Limit: -1} }

func dead() bool { return false }

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	put(t, path+".20260301-115900.000", record(-60, "stdout", "F", "older"))
	put(t, path, record(1, "stdout", "F", "one"), record(2, "stderr", "F", "two"), record(3, "stdout", "P", "th"), record(3, "stdout", "F", "ree"),
		"garbage\n", record(4, "stdout", "F", ""), record(5, "stdout", "F", "last"), "2026-03-01T12:00:06Z stdout F cut o")
	cases := []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"everything, through rotated parts", func(*Options) {}, "older\none\ntwo\nthree\n\nlast\ncut o\n"},
		{"only one stream", func(o *Options) { o.Stream = "stderr" }, "two\n"},
		{"since a time", func(o *Options) { o.Since = t0.Add(4 * time.Second) }, "\nlast\ncut o\n"},
		{"the last records", func(o *Options) { o.Tail = 2 }, "\nlast\ncut o\n"},
		{"more than there are", func(o *Options) { o.Tail = 1000 }, "older\none\ntwo\nthree\n\nlast\ncut o\n"},
		{"the last records of two parts", func(o *Options) { o.Tail = 8 }, "older\none\ntwo\nthree\n\nlast\ncut o\n"},
		{"a limit of bytes", func(o *Options) { o.Limit = 8 }, "older\non"},
		{"times, once for a line in pieces", func(o *Options) { o.Timestamps, o.Since, o.Limit = true, t0.Add(3*time.Second), 27 }, "2026-03-01T12:00:03Z three\n"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			o := all()
			c.change(&o)
			var out strings.Builder
			if err := Read(t.Context(), path, o, dead, &out); err != nil {
				t.Fatal(err)
			}
			if out.String() != c.want {
				t.Errorf("got %q, want %q", out.String(), c.want)
			}
		})
	}
}

// feed is a reader's output that tests wait on.
type feed chan string

func (f feed) Write(b []byte) (int, error) { f <- string(b); return len(b), nil }

func TestFollowGoesThroughRotationAndEndsWithTheContainer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	put(t, path, record(1, "stdout", "F", "one"))
	out, alive, done := make(feed, 10), make(chan bool, 100), make(chan error, 1)
	last := true
	go func() {
		done <- Read(t.Context(), path, Options{Follow: true, Tail: -1, Limit: -1}, func() bool {
			select {
			case last = <-alive:
			default:
			}
			return last
		}, out)
	}()
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-out:
			if got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("waited for %q", want)
		}
	}
	expect("one\n")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	half := record(2, "stdout", "F", "two")
	fmt.Fprint(f, half[:20])
	fmt.Fprint(f, half[20:])
	expect("two\n")
	if err := os.Rename(path, path+".20260301-120002.000"); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, record(3, "stdout", "F", "before the new file"))
	put(t, path, record(4, "stdout", "F", "after"))
	expect("before the new file\n")
	expect("after\n")
	alive <- false
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRotateKeepsWhatIsNotDrained(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0.log")
	drained, left := map[string]bool{}, []string{}
	now := t0
	rotate := func() (bool, Removed) {
		t.Helper()
		put(t, path, strings.Repeat("x", 100))
		now = now.Add(time.Second)
		did, removed, err := Rotate(t.Context(), path, 100, 2, now, func(context.Context) error { return os.WriteFile(path, nil, 0o600) },
			func(_ context.Context, p string) bool { return drained[filepath.Base(p)] },
			func(_ context.Context, p string) {
				if _, err := os.Stat(p); err != nil {
					t.Error("told too late:", err)
				}
				left = append(left, filepath.Base(p))
			})
		if err != nil {
			t.Fatal(err)
		}
		return did, removed
	}
	for range 5 {
		if did, removed := rotate(); !did || removed.Files != 0 {
			t.Fatalf("rotated %v, removed %+v", did, removed)
		}
	}
	if _, removed := rotate(); removed.Files != 1 || removed.Dropped != 100 {
		t.Errorf("beyond all patience: %+v, want one file dropped", removed)
	}
	drained["0.log.20260301-120002.000"] = true
	if _, removed := rotate(); removed.Files != 1 || removed.Dropped != 0 {
		t.Errorf("drained: %+v, want one file removed and nothing dropped", removed)
	}
	if len(left) != 1 || left[0] != "0.log.20260301-120001.000" {
		t.Errorf("told of %q", left)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("x", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	if _, _, err := Rotate(t.Context(), path, 100, 2, now.Add(time.Second), func(context.Context) error { return boom }, nil, nil); !errors.Is(err, boom) {
		t.Errorf("error %v, want boom", err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 100 {
		t.Errorf("the file has not got its name back: %v", err)
	}
}

// A container may end between the rename and the runtime's answer, and write its
// last lines into a new file of the old name before.
func TestAFileThatWasBegunMeanwhileIsNotOverwritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0.log")
	put(t, path, record(1, "stdout", "F", "before"))
	last := record(2, "stdout", "F", "last words")
	ended := errors.New("container is in CONTAINER_EXITED")
	rotated, _, err := Rotate(t.Context(), path, 1, 2, t0, func(context.Context) error {
		put(t, path, last)
		return ended
	}, func(context.Context, string) bool { return false }, func(context.Context, string) {})
	if !rotated || err != nil {
		t.Errorf("rotated %t: %v", rotated, err)
	}
	var out strings.Builder
	if err := Read(t.Context(), path, Options{Tail: -1, Limit: -1}, dead, &out); err != nil || out.String() != "before\nlast words\n" {
		t.Errorf("have %q: %v", out.String(), err)
	}
}

func TestRemoveWaitsForDrained(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ns_p_u")
	if err := os.MkdirAll(filepath.Join(dir, "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "c", "0.log"), "12345")
	no := func(context.Context, string) bool { return false }
	left := 0
	leaving := func(context.Context, string) { left++ }
	if done, r, err := Remove(t.Context(), dir, false, no, leaving); done || r.Files != 0 || err != nil {
		t.Errorf("not drained: %v %+v %v", done, r, err)
	}
	if done, r, err := Remove(t.Context(), dir, true, no, leaving); !done || left != 1 || r.Dropped != 5 || err != nil {
		t.Errorf("forced: %v %+v %v", done, r, err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory is left: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(record(1, "stdout", "F", "one")))
	f.Add([]byte(record(1, "stderr", "P:x", "")))
	f.Add([]byte("2026-03-01T12:00:06Z stdout F"))
	f.Add([]byte(" \n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Parse(b)
		if err == nil && (l.Time.IsZero() && !strings.HasPrefix(string(b), "0001") || l.Stream != "stdout" && l.Stream != "stderr" || len(l.Text) > len(b)) {
			t.Errorf("%q → %+v", b, l)
		}
	})
}

func FuzzReadTail(f *testing.F) {
	f.Add([]byte(record(1, "stdout", "F", "one")+record(2, "stdout", "P", "two")), int64(1))
	f.Fuzz(func(t *testing.T, b []byte, n int64) {
		path := filepath.Join(t.TempDir(), "0.log")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := Read(t.Context(), path, Options{Tail: n % 10, Limit: -1}, dead, &out); err != nil {
			t.Fatal(err)
		}
		if out.Len() > len(b)+1 {
			t.Errorf("%d bytes out of %d", out.Len(), len(b))
		}
	})
}

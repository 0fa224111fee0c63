package wal

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// A bit that flips costs the entry it is in, wherever that is: never another, and
// never the use of the log.
func TestAFlippedBitCostsItsEntryOnly(t *testing.T) {
	const entries, perSegment = 12, 4
	dir := t.TempDir()
	text := func(i int) string { return fmt.Sprintf("entry number %02d", i) }
	one := entryBytes + len(text(0))
	cfg := Config{Dir: dir, SegmentBytes: int64(headerBytes + perSegment*one)}
	l, _ := open(t, cfg)
	for i := range entries {
		if err := l.Append(t.Context(), []byte(text(i)), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for segment := range entries / perSegment {
		path := segmentPath(dir, uint64(segment)+1)
		whole, err := os.ReadFile(path)
		if err != nil || len(whole) != headerBytes+perSegment*one {
			t.Fatal(len(whole), err)
		}
		for at := range whole {
			for _, bit := range []byte{0, 5} {
				broken := append([]byte(nil), whole...)
				broken[at] ^= 1 << bit
				if err := os.WriteFile(path, broken, 0o600); err != nil {
					t.Fatal(err)
				}
				last := segment == entries/perSegment-1
				in, within := (at-headerBytes)/one, (at-headerBytes)%one // the entry that is hit
				var want []string
				for i := range entries {
					hit := at >= headerBytes && i == segment*perSegment+in
					// Without the length the rest of the segment cannot be found.
					rest := at >= headerBytes && within < 4 && i/perSegment == segment && i%perSegment >= in
					if !hit && !rest {
						want = append(want, text(i))
					}
				}
				if at >= headerBytes-4 && at < headerBytes { // is not used
					want = nil
					for i := range entries {
						want = append(want, text(i))
					}
				}
				var got []string
				if err := Read(dir, func(_ uint64, p []byte) error { got = append(got, string(p)); return nil }); err != nil {
					t.Fatalf("segment %d, byte %d: %v", segment, at, err)
				}
				if strings.Join(got, "|") != strings.Join(want, "|") {
					t.Fatalf("segment %d, byte %d, last %t: have\n%q, want\n%q", segment, at, last, got, want)
				}
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// What is damaged is told, and the log goes on to be written.
func TestADamagedLogIsToldAndGoesOn(t *testing.T) {
	for _, test := range []struct {
		what string
		at   int
		want string
	}{
		{"a header", 3, "zero one two three"},
		{"an entry", headerBytes + entryBytes + 1, "one two three"},
	} {
		t.Run(test.what, func(t *testing.T) {
			cfg := Config{Dir: t.TempDir(), SegmentBytes: 1 << 20}
			l, _ := open(t, cfg)
			for _, x := range []string{"zero", "one", "two"} {
				if err := l.Append(t.Context(), []byte(x), nil); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(segmentPath(cfg.Dir, 1))
			if err != nil {
				t.Fatal(err)
			}
			b[test.at] ^= 1
			if err := os.WriteFile(segmentPath(cfg.Dir, 1), b, 0o600); err != nil {
				t.Fatal(err)
			}
			l, err = Open(cfg, func(uint64, []byte) error { return nil }, quiet(), prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			if n := testutil.ToFloat64(l.m.broken); n != 1 {
				t.Errorf("%v segments were told to be damaged", n)
			}
			var seq uint64
			if err := l.Append(t.Context(), []byte("three"), func(s uint64) { seq = s }); err != nil || seq != 4 {
				t.Errorf("entry %d: %v", seq, err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			_, got := open(t, cfg)
			if strings.Join(got, " ") != test.want {
				t.Errorf("have %q, want %s", got, test.want)
			}
		})
	}
}

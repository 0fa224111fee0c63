package store

import (
	"reflect"
	"testing"

	"perch/logs/record"
)

// A checkpoint with a sum is what was written, or an error.
func FuzzCheckpoint(f *testing.F) {
	full := checkpoint{Partition: "20261120T100000.000Z", Bytes: 9, Positions: []record.Position{{File: "a\x00b", Inode: 1 << 63, Stdout: -1}}, Marks: []mark{{Hash: 1 << 63, Next: 7, place: place{Seq: 3, Ord: 2}}}}
	for _, cp := range []checkpoint{{}, full} {
		b, err := cp.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, 0, byte(0))
		f.Add(b, len(b)/2, byte(1))
	}
	f.Add([]byte(`{"positions":null}`), 3, byte(2))
	f.Add([]byte(`{"sum":"00000000",`), 0, byte(0))
	f.Fuzz(func(t *testing.T, b []byte, at int, flip byte) {
		cp, err := parseCheckpoint(b)
		if err != nil {
			return
		}
		good, err := cp.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseCheckpoint(good)
		if err != nil || !reflect.DeepEqual(again.Marks, cp.Marks) && len(cp.Marks) > 0 || again.Partition != cp.Partition || again.Bytes != cp.Bytes || len(again.Positions) != len(cp.Positions) {
			t.Fatalf("have %+v, want %+v (%v)", again, cp, err)
		}
		const head = len(`{"sum":"00000000",`)
		if flip == 0 || at < head || at >= len(good) {
			return
		}
		good[at] ^= flip
		if _, err := parseCheckpoint(good); err == nil {
			t.Fatalf("%s: byte %d was changed, and nobody saw it", good, at)
		}
	})
}

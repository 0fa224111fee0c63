package block

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestTimesAndLevelsComeBack(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for _, x := range []struct {
		what string
		time func(i int) int64
		how  packing
		most int // bytes for 1000 lines of one level
	}{
		{"nanoseconds that ascend", func(i int) int64 { return 1_790_000_000e9 + int64(i)*15e6 + rnd.Int64N(1e6) }, packedNot, 2800},
		{"the same distance always", func(i int) int64 { return int64(i)*1_000_001 + 7 }, packedNot, 60},
		{"in no order", func(int) int64 { return rnd.Int64N(1e9) }, packedNot, 4000},
		{"a night between two of them", func(i int) int64 { return int64(i/500)*30_000e9 + int64(i)*1001 }, packedNot, 900},
		{"as far apart as can be", func(i int) int64 { return []int64{math.MinInt64, math.MaxInt64, 1}[i%3] }, packedNot, 8200},
		{"whole milliseconds", func(i int) int64 { return 1_790_000_000e9 + rnd.Int64N(1000)*1e6 }, packedZstd, 6000},
		{"one time", func(int) int64 { return 1_790_000_000e9 + 1 }, packedNot, 60},
	} {
		for _, n := range []int{1, 2, groupTimes, groupTimes + 1, groupTimes + 2, 1000} {
			for _, level := range []func(i int) byte{func(int) byte { return 2 }, func(int) byte { return byte(rnd.IntN(5)) }, func(i int) byte { return byte(i / 100) }, func(i int) byte { return byte(rnd.Int()) }} {
				l := &Lines{}
				for i := range n {
					l.Times = append(l.Times, x.time(i))
					l.Levels = append(l.Levels, level(i))
				}
				b, how := appendTimes(nil, l)
				var have Lines
				if err := parseTimes(b, &have, n); err != nil {
					t.Fatalf("%s: %d lines: %v", x.what, n, err)
				}
				if !slices.Equal(have.Times, l.Times) || !bytes.Equal(have.Levels, l.Levels) {
					t.Fatalf("%s: %d lines differ", x.what, n)
				}
				if n == 1000 && (how != x.how || level(0) == 2 && level(1) == 2 && level(2) == 2 && l.Levels[n-1] == 2 && len(b) > x.most) {
					t.Errorf("%s: %d bytes, packing %d", x.what, len(b), how)
				}
				if parseTimes(b[:len(b)-1], &have, n) == nil || how == packedNot && parseTimes(b, &have, n+groupTimes) == nil {
					t.Errorf("%s: %d lines: what is cut off is not missed", x.what, n)
				}
			}
		}
	}
}

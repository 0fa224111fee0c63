package store

import (
	"math"
	"math/rand/v2"
	"testing"

	"perch/logs/index"
	"perch/logs/record"
)

func TestPiecesOfOneRecordAreReadOneAfterTheOther(t *testing.T) {
	cfg := Default(t.TempDir())
	cfg.LearnBlocks = 4
	s := open(t, cfg)
	defer func() { _ = s.Close() }()
	rnd := rand.New(rand.NewPCG(1, 2))
	st := streams(400)
	for range 3 {
		records := batch(st, 0, 30_000)
		for i := range records { // streams begin and end whenever they like
			records[i].Time = rnd.Int64N(1e12)
		}
		if err := s.Append(t.Context(), records, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Seal(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Append(t.Context(), batch(st, 0, 40), nil); err != nil { // heads
		t.Fatal(err)
	}
	v, err := s.View()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = v.Release() }()
	for _, newest := range []bool{true, false} {
		pieces := v.Select(t.Context(), 3e11, 6e11, func(s *record.Stream) bool { return s.Pod != "web-7" }, index.Need{})
		Sort(pieces, newest)
		again, records := 0, 0
		left := map[int]bool{}
		for i, p := range pieces {
			if i > 0 && p.record == pieces[i-1].record {
				again++
				continue
			}
			records++
			if left[p.record] {
				t.Fatalf("newest %v: record %d is come back to", newest, p.record)
			}
			left[p.record] = true
		}
		if records < 6 || again < 300 {
			t.Errorf("%d records of %d pieces", records, len(pieces))
		}
		later, sooner := int64(math.MinInt64), int64(math.MaxInt64)
		for i := len(pieces) - 1; i >= 0; i-- {
			p := &pieces[i]
			later, sooner = max(later, p.Max), min(sooner, p.Min)
			if newest && p.Later() < later || !newest && p.Sooner() > sooner {
				t.Fatalf("newest %v: piece %d and those after have %d to %d, it says %d and %d", newest, i, sooner, later, p.Sooner(), p.Later())
			}
		}
	}
}

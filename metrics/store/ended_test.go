package store

import (
	"context"
	"log/slog"
	"math"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

func TestSeriesThatEndedLeaveMemoryAtOnceAndCanBeReadForLong(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cfg := Default()
		cfg.Dir, cfg.NamespaceLimit = dir, 100
		reopen := func() *Store {
			s, err := New(cfg, slog.New(slog.DiscardHandler), nil)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		closed := func(s *Store) {
			if err := s.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		s := reopen()
		in := s.Inlet("test")
		write := func(from, to int, v float64) {
			var batch []Sample
			for i := from; i < to; i++ {
				batch = append(batch, Sample{ID: uint64(i + 1), Labels: labels.FromStrings("__name__", "x", "namespace", "red", "i", strconv.Itoa(i)), T: time.Now().UnixMilli(), V: v})
			}
			if done, err := in.Append(context.Background(), batch); err != nil || done.Refused > 0 {
				t.Fatal(done, err)
			}
		}
		write(0, 100, 1)
		time.Sleep(5 * time.Second)
		write(0, 60, math.Float64frombits(value.StaleNaN))
		time.Sleep(2 * time.Minute) // it looks once a minute
		if n := s.Series(); n != 40 {
			t.Errorf("%d series in memory, want 40", n)
		}
		write(100, 160, 1) // there is room again
		if n := len(read(t, s, "x")); n != 160 {
			t.Errorf("%d series can be read, want 160", n)
		}
		closed(s)
		s = reopen()
		if n := s.Series(); n != 100 {
			t.Errorf("%d series in memory after a restart, want 100", n)
		}
		if n := len(read(t, s, "x")); n != 160 {
			t.Errorf("%d series can be read after a restart, want 160", n)
		}
		closed(s)
	})
}

func TestWhatEndedIsWrittenOutSoonerWhenItGetsTight(t *testing.T) {
	for _, c := range []struct {
		name                 string
		series, ended, limit uint64
		since                time.Duration
		want                 bool
	}{
		{"nothing ended", 100, 0, 1000, time.Hour, false},
		{"too little ended", 100, 29, 1000, time.Hour, false},
		{"enough, and a minute has passed", 100, 30, 1000, time.Minute, true},
		{"enough, but it was just done", 100, 90, 1000, 59 * time.Second, false},
		{"just done, and half of the limit is used", 501, 400, 1000, 15 * time.Second, true},
		{"an empty store", 0, 0, 1000, time.Hour, false},
	} {
		if have := endedMustGo(c.series, c.ended, c.limit, c.since); have != c.want {
			t.Errorf("%s: %v", c.name, have)
		}
	}
}

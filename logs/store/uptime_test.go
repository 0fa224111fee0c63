package store

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"perch/logs/record"
)

// held is what a store has at one moment that could grow.
type held struct {
	sources, pointers, positions, parts int
	files, open                         int
	disk, heap                          int64
	goroutines, series                  int
}

func holds(t *testing.T, s *Store, reg *prometheus.Registry) (h held) {
	t.Helper()
	s.mu.RLock()
	h.sources, h.pointers, h.positions, h.parts = len(s.sources), len(s.byPointer), len(s.positions), len(s.parts)
	s.mu.RUnlock()
	err := filepath.WalkDir(s.cfg.Dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			h.files++
			h.disk += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	h.open = len(open)
	h.goroutines = runtime.NumGoroutine()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		h.series += len(f.GetMetric())
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools held goes with the second
	runtime.ReadMemStats(&m)
	h.heap = int64(m.HeapAlloc)
	return h
}

// most is the larger of each.
func (h held) most(o held) held {
	return held{
		sources: max(h.sources, o.sources), pointers: max(h.pointers, o.pointers), positions: max(h.positions, o.positions), parts: max(h.parts, o.parts),
		files: max(h.files, o.files), open: max(h.open, o.open), disk: max(h.disk, o.disk), heap: max(h.heap, o.heap),
		goroutines: max(h.goroutines, o.goroutines), series: max(h.series, o.series),
	}
}

// Pods come and go for days; what is kept is that of the last one, and of the
// write-ahead log's only segment.
func TestNothingGrowsWithUptime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := small(t.TempDir())
		cfg.BlockBytes, cfg.HeadBytes, cfg.SealBytes = 64<<10, 256<<10, 128<<10
		cfg.PartitionAge, cfg.PartitionBytes = 5*time.Hour, 1<<40
		cfg.RetentionAge, cfg.RetentionBytes = 24*time.Hour, 0
		reg := prometheus.NewRegistry()
		s, err := Open(cfg, quiet(), reg)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}()
		rnd := rand.New(rand.NewPCG(4, 4))
		raw := make([]byte, 3<<10)
		// A round is six hours in which four pods live.
		round := func(n int) held {
			for pod := range 4 {
				st := &record.Stream{Namespace: "shop", Pod: fmt.Sprintf("job-%d-%d", n, pod), Container: "app", Instance: "0", Output: record.Stdout, Kind: record.KindLog}
				var lines []record.Record
				for range 120 {
					for i := range raw {
						raw[i] = byte(rnd.Uint32())
					}
					lines = append(lines, record.Record{Time: time.Now().UnixNano(), Stream: st, Body: []byte("payload " + base64.StdEncoding.EncodeToString(raw))})
				}
				at := record.Position{File: st.Pod, Inode: uint64(n)}
				if err := s.Append(t.Context(), lines, []record.Position{at}); err != nil {
					t.Fatal(err)
				}
				s.Forget(at.File, at.Inode)
				time.Sleep(90 * time.Minute)
			}
			now := time.Now()
			maintain(t, s, now)
			if err := s.rewriteDue(t.Context(), now, 0); err != nil {
				t.Fatal(err)
			}
			return holds(t, s, reg)
		}
		const perDay = 4
		var base, later held
		for n := range 8 * perDay {
			switch h := round(n); {
			case n >= 5*perDay:
				later = later.most(h)
			case n >= 2*perDay:
				base = base.most(h)
			}
		}
		if base.parts < 3 || base.parts > 11 || testutil.ToFloat64(s.m.sealed) < 20 || testutil.ToFloat64(s.m.removed.WithLabelValues("age")) < 20 {
			t.Errorf("%d partitions, %v sealed, %v removed", base.parts, testutil.ToFloat64(s.m.sealed), testutil.ToFloat64(s.m.removed.WithLabelValues("age")))
		}
		for _, x := range []struct {
			what       string
			base, have int64
			more       int64 // allowed
		}{
			{"sources", int64(base.sources), int64(later.sources), 4},
			{"pointers to streams", int64(base.pointers), int64(later.pointers), 4},
			{"positions", int64(base.positions), int64(later.positions), 0},
			{"partitions", int64(base.parts), int64(later.parts), 1},
			{"files", int64(base.files), int64(later.files), 12}, // of a partition
			{"open files", int64(base.open), int64(later.open), 8},
			{"goroutines", int64(base.goroutines), int64(later.goroutines), 8},
			{"bytes on disk", base.disk, later.disk, base.disk / 5},
			{"bytes of heap", base.heap, later.heap, base.heap/5 + 1<<20},
			{"series", int64(base.series), int64(later.series), 1},
		} {
			if x.have > x.base+x.more {
				t.Errorf("%d %s after eight days, %d after five", x.have, x.what, x.base)
			}
		}
		t.Logf("until day 5 %+v, until day 8 %+v", base, later)
	})
}

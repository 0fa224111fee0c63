package store

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"perch/logs/index"
	"perch/logs/record"
)

// A stream that was silent is forgotten; its lines go on to have numbers of their
// own, through which pages, forwarding and contexts find them.
func TestNumbersGoOnAfterASilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := small(t.TempDir())
		cfg.BlockBytes, cfg.HeadBytes = 256<<10, 1<<20
		s := open(t, cfg)
		rare := &record.Stream{Namespace: "shop", Pod: "rare", Kind: record.KindLog}
		often := &record.Stream{Namespace: "shop", Pod: "often", Kind: record.KindLog}
		wrote := 0
		add := func(n int) {
			for range n {
				if err := s.Append(t.Context(), []record.Record{{Time: time.Now().UnixNano(), Stream: rare, Body: fmt.Appendf(nil, "line %d", wrote)}}, nil); err != nil {
					t.Fatal(err)
				}
				wrote++
			}
		}
		rnd := rand.New(rand.NewPCG(1, 1))
		// others pushes the lines of rare out of the write-ahead log.
		others := func() {
			body := make([]byte, 250<<10)
			for range 70 {
				for i := range body {
					body[i] = byte(rnd.Uint32())
				}
				if err := s.Append(t.Context(), []record.Record{{Time: time.Now().UnixNano(), Stream: often, Body: body}}, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		numbers := func() {
			t.Helper()
			v, err := s.View()
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := v.Release(); err != nil {
					t.Error(err)
				}
			}()
			have := map[uint64]string{}
			for _, p := range v.Select(t.Context(), math.MinInt64, math.MaxInt64, func(st *record.Stream) bool { return st.Pod == "rare" }, index.Need{Op: index.Any}) {
				l, err := p.Read(nil)
				if err != nil {
					t.Fatal(err)
				}
				for i := range p.Lines {
					n := p.First + uint64(i)
					if before, ok := have[n]; ok {
						t.Errorf("%q and %q have number %d", before, l.Body(i), n)
					}
					have[n] = string(bytes.Clone(l.Body(i)))
				}
			}
			for n := range wrote {
				if want := fmt.Sprintf("line %d", n); have[uint64(n)] != want {
					t.Errorf("line %d is %q", n, have[uint64(n)])
				}
			}
		}
		for range 2 {
			add(5)
			maintain(t, s, time.Now())
			time.Sleep(cfg.HeadAge + time.Second)
			maintain(t, s, time.Now()) // cuts it
			others()
			maintain(t, s, time.Now())
			maintain(t, s, time.Now()) // lets go of what the checkpoint before needed
			time.Sleep(cfg.HeadAge + time.Second)
			maintain(t, s, time.Now()) // forgets it
			s.mu.RLock()
			_, known := s.sources[rare.Hash()]
			s.mu.RUnlock()
			if known {
				t.Fatal("the stream was not forgotten")
			}
			numbers()
		}
		if err := s.Seal(t.Context()); err != nil {
			t.Fatal(err)
		}
		add(5)
		numbers()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, cfg)
		add(5)
		numbers()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

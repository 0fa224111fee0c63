package store

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"perch/logs/index"
)

// After the power failed an index may know blocks that are not on the disk, and the
// lines of which come into other blocks: what it says of those is not believed.
func TestAnIndexThatIsAheadOfItsBlocksHidesNothing(t *testing.T) {
	for what, v := range map[string]struct{ torn, again bool }{
		"blocks that were never written":               {},
		"a block that was half written":                {torn: true},
		"blocks written again before the index is":     {again: true},
		"a half block, and blocks before the index is": {true, true},
	} {
		t.Run(what, func(t *testing.T) {
			cfg := small(t.TempDir())
			s := open(t, cfg)
			const lines = 800
			for i := range lines / 20 {
				if err := s.Append(t.Context(), batch(streams(3), i*20, 20), nil); err != nil {
					t.Fatal(err)
				}
			}
			cut := func() {
				for s.cutOne() {
				}
			}
			cut()
			s.completeIndexes(t.Context())
			p := s.parts[0]
			if x := p.index(); len(s.parts) != 1 || len(p.metas) < 8 || x == nil || x.Upto() != len(p.metas) {
				t.Fatalf("%d blocks, index %v", len(p.metas), x)
			}
			left := p.file.Size() / 2
			if !v.torn { // to the end of a block
				left = 0
				for _, m := range p.metas[:len(p.metas)/2] {
					left += m.Size()
				}
			}
			path := filepath.Join(p.dir, "blocks.dat")
			end := func() {
				s.dirty = false // no checkpoint
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			end()
			if err := os.Truncate(path, left); err != nil {
				t.Fatal(err)
			}
			cfg.BlockBytes *= 2
			s = open(t, cfg)
			if v.again {
				s.mu.Lock()
				for _, src := range s.sources {
					s.seal(src)
				}
				s.mu.Unlock()
				cut()
				end()
				s = open(t, cfg)
			}
			if err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := s.count(s.parts[0]); n < 5 || s.parts[0].index() == nil || s.parts[0].index().Upto() != n {
				t.Fatalf("%d blocks, index %v", n, s.parts[0].index())
			}
			wantLines(t, all(t, s, index.Need{}), lines)
			for i := range lines {
				have := all(t, s, index.Need{Op: index.Word, Text: fmt.Sprintf("req%d", i*7919%100003)})
				if !slices.ContainsFunc(have, func(l string) bool { return lineNumber(l) == i }) {
					t.Fatalf("the index hides line %d", i)
				}
			}
			end()
		})
	}
}

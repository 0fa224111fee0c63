package store

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"testing"

	"perch/logs/index"
	"perch/logs/record"
	"perch/logs/wal"
)

const (
	// promised is what heads may take together, and what the store needs besides
	// for blocks that are being cut, the index and the write-ahead log.
	promised = 64 << 20
	besides  = 16 << 20
)

// unsynced does not wait for the disk.
type unsynced struct{ wal.File }

func (unsynced) Sync() error { return nil }

func liveHeap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools held goes with the second
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestMemoryStaysInItsBudgetHoweverManyStreamsWrite(t *testing.T) {
	const bytes = 80 << 20
	body := make([]byte, 0, 400)
	for _, x := range []struct {
		streams int
		early   bool // their heads do not fit in the budget, so blocks are not full
	}{{100, false}, {2000, true}} {
		base := liveHeap()
		cfg := Default(t.TempDir())
		cfg.CreateWAL = func(path string) (wal.File, error) {
			f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
			return unsynced{f}, err
		}
		if cfg.HeadBytes+besides > promised {
			t.Fatalf("heads may take %d bytes", cfg.HeadBytes)
		}
		s := open(t, cfg)
		st := streams(x.streams)
		lines, most, sent := 0, int64(0), 0
		for k := 0; sent < bytes; k++ {
			var records []record.Record
			for i := range 40 {
				body = fmt.Appendf(body[:0], "line %d INFO request req%d of stream %d took %d ms", lines, lines*7919%100003, k%x.streams, i)
				for len(body) < 300 {
					body = append(body, " and more of the same statement"...)
				}
				records = append(records, record.Record{Time: int64(lines) * 1e6, Stream: st[k%x.streams], Body: append([]byte(nil), body...)})
				lines++
				sent += len(body)
			}
			if err := s.Append(t.Context(), records, nil); err != nil {
				t.Fatal(err)
			}
			s.mu.RLock()
			heads := s.headBytes - s.sealedBytes
			s.mu.RUnlock()
			if heads > cfg.HeadBytes {
				t.Fatalf("%d streams: heads have %d bytes, may have %d", x.streams, heads, cfg.HeadBytes)
			}
			if k%1000 == 999 {
				most = max(most, liveHeap()-base)
			}
		}
		s.mu.RLock()
		held, counted := 0, s.headBytes
		for _, h := range s.sealed {
			held += h.bytes()
		}
		for _, src := range s.sources {
			if src.head != nil {
				held += src.head.bytes()
			}
		}
		blocks := s.parts[len(s.parts)-1].metas
		s.mu.RUnlock()
		if held != counted {
			t.Errorf("%d streams: %d bytes are counted, heads have %d", x.streams, counted, held)
		}
		if most > promised {
			t.Errorf("%d streams: %d MB of live heap, promised %d MB", x.streams, most>>20, promised>>20)
		}
		small := 0
		for _, m := range blocks {
			if m.Raw < int64(cfg.BlockBytes) {
				small++
			}
		}
		if early := small > len(blocks)/2; early != x.early || len(blocks) == 0 {
			t.Errorf("%d streams: %d of %d blocks were cut early", x.streams, small, len(blocks))
		}
		t.Logf("%d streams: %d MB of live heap at most, heads have %d MB, %d blocks, %d of them early", x.streams, most>>20, counted>>20, len(blocks), small)
		v, err := s.View()
		if err != nil {
			t.Fatal(err)
		}
		have := 0
		for _, p := range v.Select(t.Context(), math.MinInt64, math.MaxInt64, func(*record.Stream) bool { return true }, index.Need{}) {
			have += p.Lines
		}
		if err := v.Release(); err != nil || have != lines {
			t.Errorf("%d streams: %d lines of %d: %v", x.streams, have, lines, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFieldsLargerThanABlockAreStoredAndReadAfterARestart(t *testing.T) {
	cfg := Default(t.TempDir())
	s := open(t, cfg)
	large := strings.Repeat("frame ", 300<<10/6)
	st := streams(1)[0]
	for n := range 3 {
		var records []record.Record
		for i := range 2 {
			k := 2*n + i
			records = append(records, record.Record{Time: int64(k) + 1, Stream: st, Body: fmt.Appendf(nil, "line %d", k), Fields: []record.Field{{Key: "stack", Value: large}}})
		}
		if err := s.Append(t.Context(), records, nil); err != nil {
			t.Fatal(err)
		}
	}
	wantLines(t, all(t, s, index.Need{}), 6)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	wantLines(t, all(t, s, index.Need{}), 6)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

package store

import (
	"errors"
	"os"
	"testing"
	"time"

	"perch/logs/block"
	"perch/logs/index"
	"perch/logs/record"
)

// slow fills a store with few lines of many streams, cut again and again.
func slow(t *testing.T, cfg Config, n int) *Store {
	t.Helper()
	s := open(t, cfg)
	st := streams(40)
	for i := 0; i < n; i += n / 4 {
		appendAll(t, s, i, n/4, st)
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestFewLinesOfManyStreamsTakeLittleSpace(t *testing.T) {
	cfg := Default(t.TempDir())
	cfg.LearnBlocks = 4
	const n = 1600
	s := slow(t, cfg, n)
	raw := int64(0)
	for _, m := range s.parts[0].metas {
		raw += m.Raw
	}
	if size := s.parts[0].file.Size(); size > raw {
		t.Errorf("%d blocks of %d bytes take %d", len(s.parts[0].metas), raw, size)
	}
	for range 2 {
		wantLines(t, all(t, s, index.Need{}), n)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, cfg)
		wantLines(t, all(t, s, index.Need{}), n)
		if err := s.Seal(t.Context()); err != nil || !s.parts[0].isSealed() || len(s.parts[0].metas) != 40 {
			t.Fatalf("%d blocks, %v", len(s.parts[0].metas), err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOldHeadsTakeYoungSmallOnesAlong(t *testing.T) {
	cfg := Default(t.TempDir())
	s := open(t, cfg)
	defer func() { _ = s.Close() }()
	appendAll(t, s, 0, 40, streams(4))
	now := time.Now()
	s.mu.Lock()
	for _, src := range s.sources {
		switch src.stream.Pod {
		case "web-0":
			src.head.born = now.Add(-cfg.HeadAge)
		case "web-1", "web-2":
			src.head.born = now.Add(-cfg.HeadAge / 2)
		}
	}
	s.mu.Unlock()
	s.sealDue(now)
	var have []string
	for _, h := range s.sealed {
		have = append(have, h.stream.Pod)
	}
	if len(have) != 3 || have[0] != "web-0" || have[1] != "web-1" || have[2] != "web-2" {
		t.Errorf("sealed %v", have)
	}
	if n := together(s.sealed, cfg.small()); n != 3 {
		t.Errorf("%d are written together", n)
	}
}

func TestADamagedBundleIsKeptUnlessANamespaceInItGoes(t *testing.T) {
	for _, goes := range []bool{false, true} {
		cfg := Default(t.TempDir())
		cfg.LearnBlocks = 4
		s := slow(t, cfg, 1600)
		sick := s.parts[0].metas[50].Record(s.parts[0].metas)
		lost, end := 0, int64(0)
		for _, m := range sick {
			lost += m.Lines
		}
		for _, m := range s.parts[0].metas[:80] {
			end += m.Size()
		}
		f, err := os.OpenFile(s.parts[0].blocksFile(), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("damaged"), end-300); err != nil { // in the frames of the second bundle
			t.Fatal(err)
		}
		_ = f.Close()
		if err := s.Close(); err != nil { // what was unpacked is forgotten
			t.Fatal(err)
		}
		if goes {
			cfg.Namespaces = func() map[string]Retention { return map[string]Retention{"shop": {Bytes: 1}} }
		}
		s = open(t, cfg)
		if err := s.Seal(t.Context()); err != nil {
			t.Fatal(err)
		}
		if goes {
			if len(s.parts) > 1 || len(s.parts) == 1 && len(s.parts[0].metas) > 0 {
				t.Errorf("%d blocks are left", len(s.parts[0].metas))
			}
			_ = s.Close()
			continue
		}
		v, err := s.View()
		if err != nil {
			t.Fatal(err)
		}
		lines, broken := 0, 0
		for _, p := range v.Select(t.Context(), 0, 1<<62, func(*record.Stream) bool { return true }, index.Need{}) {
			l, err := p.Read(nil)
			switch {
			case err == nil:
				lines += l.Len()
			case errors.Is(err, block.ErrDamaged):
				broken++
			default:
				t.Error(err)
			}
		}
		_ = v.Release()
		if lines != 1600-lost || broken != len(sick) || len(sick) < 2 {
			t.Errorf("%d lines, %d blocks cannot be read; %d with %d lines were damaged", lines, broken, len(sick), lost)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

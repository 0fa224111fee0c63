package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"perch/logs/index"
	"perch/logs/record"
)

// served fills a store as it is after a while: partitions that are sealed, one that
// is being written, a write-ahead log of which the begin is gone, and lines that only
// that has. It returns the number of lines.
func served(t *testing.T, cfg Config) int {
	t.Helper()
	s := open(t, cfg)
	st := streams(5)
	n := 0
	for round := range 6 {
		for range 30 {
			n += 20
			if err := s.Append(t.Context(), batch(st, n-20, 20), []record.Position{{File: fmt.Sprint("f", round), Inode: 1, Stdout: int64(n)}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if round == 1 || round == 3 {
			if err := s.Seal(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	n += 20
	if err := s.Append(t.Context(), batch(st, n-20, 20), nil); err != nil {
		t.Fatal(err)
	}
	if first, _ := s.wal.Oldest(); first == 1 {
		t.Fatal("want a write-ahead log whose begin is gone")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

func worn(dir string) Config {
	cfg := small(dir)
	cfg.BlockBytes, cfg.WALBytes = 64<<10, 16<<10 // segments of 4 kB
	return cfg
}

func TestADamagedCheckpointDoesNotStopTheStore(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, path string)
		used   string
	}{
		{"a number is another", func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if i := bytes.LastIndexByte(b, '}') - 1; b[i] == '9' {
				b[i] = '8'
			} else {
				b[i]++
			}
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "before"},
		{"it is empty", func(t *testing.T, path string) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "before"},
		{"it was not put back", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, ""},
		{"both are damaged", func(t *testing.T, path string) {
			for _, name := range []string{path, path + ".before"} {
				if err := os.WriteFile(name, []byte("{\"posi"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}, "none"},
		{"both are gone", func(t *testing.T, path string) {
			if err := errors.Join(os.Remove(path), os.Remove(path+".before")); err != nil {
				t.Fatal(err)
			}
		}, "none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := worn(t.TempDir())
			n := served(t, cfg)
			read := int64(n - 20)
			c.damage(t, filepath.Join(cfg.Dir, checkpointName))
			var told bytes.Buffer
			for round := range 2 {
				s, err := Open(cfg, slog.New(slog.NewTextHandler(&told, nil)), prometheus.NewRegistry())
				if err != nil {
					t.Fatal(err)
				}
				wantLines(t, all(t, s, index.Need{}), n)
				for _, used := range []string{"before", "none"} {
					want := 0.0
					if used == c.used && round == 0 {
						want = 1
					}
					if have := testutil.ToFloat64(s.m.checkpoints.WithLabelValues(used)); have != want {
						t.Errorf("round %d: %v checkpoints were damaged and %s was used", round, have, used)
					}
				}
				if p, ok := s.Position("f5", 1); c.used != "none" && (!ok || p.Stdout != read) {
					t.Errorf("round %d: position %+v", round, p)
				}
				if p, ok := s.Position("f0", 1); c.used != "none" && (!ok || p.Stdout != 600) {
					t.Errorf("round %d: old position %+v", round, p)
				}
				appendAll(t, s, n, 20, streams(5))
				n += 20
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if c.used != "" && !strings.Contains(told.String(), "level=ERROR msg=\"checkpoint was") {
				t.Errorf("told %s", told.String())
			}
		})
	}
}

// Without a checkpoint nobody knows which blocks the write-ahead log still has, so a
// damaged one costs itself only.
func TestALostCheckpointAndADamagedBlockCostThatBlock(t *testing.T) {
	cfg := worn(t.TempDir())
	n := served(t, cfg)
	dir := filepath.Join(cfg.Dir, checkpointName)
	if err := errors.Join(os.Remove(dir), os.Remove(dir+".before")); err != nil {
		t.Fatal(err)
	}
	parts, err := filepath.Glob(filepath.Join(partitionsDir(cfg.Dir), "*", "blocks.dat"))
	if err != nil || len(parts) != 3 {
		t.Fatal(parts, err)
	}
	for _, path := range []string{parts[0], parts[2]} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/3] ^= 1
		if path == parts[2] { // and the last record is torn
			b = append(b, b[:50]...)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		s := open(t, cfg)
		v, err := s.View()
		if err != nil {
			t.Fatal(err)
		}
		lines := 0
		for _, p := range v.Select(t.Context(), -1, 1<<62, func(*record.Stream) bool { return true }, index.Need{}) {
			if l, err := p.Read(nil); err == nil {
				lines += l.Len()
			}
		}
		if err := v.Release(); err != nil {
			t.Fatal(err)
		}
		// Two records of 600 lines or more are damaged.
		if len(s.parts) != 3 || lines < n-1800 || lines >= n {
			t.Errorf("%d partitions, %d lines of %d", len(s.parts), lines, n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLinesAreKeptWhenTheWriteAheadLogWasLost(t *testing.T) {
	cfg := worn(t.TempDir())
	n := served(t, cfg) - 20
	if err := os.RemoveAll(walDir(cfg.Dir)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s := open(t, cfg)
		wantLines(t, all(t, s, index.Need{}), n)
		appendAll(t, s, n, 20, streams(5))
		n += 20
		wantLines(t, all(t, s, index.Need{}), n)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

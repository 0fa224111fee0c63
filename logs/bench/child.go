package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/bench/lines"
	"perch/logs/ingest"
	"perch/logs/ingest/chunk"
	"perch/logs/query"
	"perch/logs/record"
	"perch/logs/store"
	"perch/logs/wal"
)

// figures are what the measured process says of itself.
type figures struct {
	Ready   string             `json:"ready,omitempty"` // address of the door
	Files   string             `json:"files,omitempty"` // where a sender of copies asks for the store's files
	CPU     float64            `json:"cpu,omitempty"`   // seconds since ready
	Peak    float64            `json:"peak,omitempty"`  // MB of resident memory
	Disk    int64              `json:"disk,omitempty"`  // bytes of partitions
	Parts   map[string]int64   `json:"parts,omitempty"` // of Disk, by file
	Queries map[string]float64 `json:"queries,omitempty"`
	Hits    map[string]int64   `json:"hits,omitempty"`
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// unsynced acknowledges before lines are durable.
type unsynced struct{ wal.File }

func (unsynced) Sync() error { return nil }

// child is the measured process. It takes words on stdin: "flush" ends the
// ingest, "seal" seals, "query FROM TO" asks about that time, ns; each is
// answered with figures.
func child(dir string, synced bool, profile string) error {
	stop, err := startProfile(profile)
	if err != nil {
		return err
	}
	defer stop()
	cfg := store.Default(dir)
	if !synced {
		cfg.CreateWAL = func(path string) (wal.File, error) {
			f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
			return unsynced{f}, err
		}
	}
	quiet := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	reg := prometheus.NewRegistry()
	s, err := store.Open(cfg, quiet, reg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 2)
	go func() { ended <- s.Run(ctx) }()
	f, err := ingest.New(ingest.Default("127.0.0.1:0", "n1"), ingest.Parts{Identify: identify, Sink: s.Append, Seen: chunk.New(nil, reg)}, quiet, reg)
	if err != nil {
		return err
	}
	go func() { ended <- f.Run(ctx) }()
	out := json.NewEncoder(os.Stdout)
	files, err := serveFiles(s)
	if err != nil {
		return err
	}
	if err := out.Encode(figures{Ready: f.Addr().String(), Files: files}); err != nil {
		return err
	}
	start := cpuSeconds()
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var got figures
		word, rest, _ := strings.Cut(in.Text(), " ")
		switch word {
		case "flush":
			if err := s.Flush(ctx); err != nil {
				return err
			}
			stop()
			if err := writeAllocs(profile); err != nil {
				return err
			}
		case "seal":
			start = cpuSeconds()
			if err := s.Seal(ctx); err != nil {
				return err
			}
		case "query":
			var from, to int64
			if _, err := fmt.Sscan(rest, &from, &to); err != nil {
				return fmt.Errorf("read %q: %w", in.Text(), err)
			}
			if got.Queries, got.Hits, err = ask(ctx, s, from, to, quiet); err != nil {
				return err
			}
		}
		got.CPU = cpuSeconds() - start
		got.Peak = peakMB()
		got.Disk, got.Parts = disk(filepath.Join(dir, "parts"))
		if err := out.Encode(got); err != nil {
			return err
		}
	}
	cancel()
	<-ended
	<-ended
	return s.Close()
}

// startProfile profiles until stop is called, which may be more than once.
func startProfile(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { pprof.StopCPUProfile(); _ = f.Close() }), pprof.StartCPUProfile(f) // written when it stops
}

// writeAllocs writes what was allocated since the start beside the profile, if
// there is one.
func writeAllocs(profile string) error {
	if profile == "" {
		return nil
	}
	f, err := os.Create(profile + ".allocs")
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("allocs").WriteTo(f, 0), f.Close())
}

// identify takes the last byte of a loopback address as the stream's number.
func identify(from netip.Addr) (record.Stream, bool, bool) {
	b := from.As4()
	return *lines.Stream(int(b[3]) - 1), true, true
}

func peakMB() float64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	var kb float64
	_, _ = fmt.Sscan(rest, &kb) // else 0
	return kb / 1024
}

func disk(dir string) (total int64, parts map[string]int64) {
	parts = map[string]int64{}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // merged away meanwhile
		}
		if i, err := d.Info(); err == nil {
			name := filepath.Base(path)
			if name != "blocks.dat" && name != "filters" && name != "vocabulary" {
				name = "terms"
			}
			parts[name] += i.Size()
			total += i.Size()
		}
		return nil
	})
	return total, parts
}

// questions are the queries of the table, with what they may cost, in CPU
// milliseconds; 0: no figure is promised.
var questions = []struct {
	name, text, kind string
	goal             float64
}{
	{"rare id", "needle48213x", "newest", 3},
	{"common word, newest 100", "INFO", "newest", 15},
	{"count of a word", "INFO", "count", 60},
	{"phrase count", `"Receiving block"`, "count", 30},
	{"regex with a literal", `~"Receiving block blk_-6[0-9]*7 "`, "count", 150},
	{"regex without", `~[a-f]{3}9[0-9]z`, "count", 900},
	{"histogram by level, 60 bars", "", "bars", 130},
	{"histogram of a word, 60 bars", "INFO", "bars", 0},
	{"phrase in another case", `"receiving block"`, "count", 0},
	{"field with a value", "status:500", "count", 0},
	{"field above a number", "status:>500", "count", 0},
	{"histogram by a field, 60 bars", "status", "by", 0},
}

// bars of a histogram; a count has one.
const bars = 60

// ask measures every question about the time from..to, ns, both included, the
// best CPU milliseconds of five.
func ask(ctx context.Context, s *store.Store, from, to int64, log *slog.Logger) (map[string]float64, map[string]int64, error) {
	e := query.New(s, log)
	ms, hits := map[string]float64{}, map[string]int64{}
	for _, q := range questions {
		for range 5 {
			start := cpuSeconds()
			n := int64(0)
			r := query.Request{Text: q.text, From: from, To: to, Limit: 100, Step: to - from + 1}
			if q.kind == "bars" || q.kind == "by" {
				r.Step = (to - from + bars) / bars
			}
			if q.kind == "by" {
				r.Text, r.Field = "", q.text
			}
			if q.kind != "newest" {
				h, err := e.Histogram(ctx, r)
				if err != nil {
					return nil, nil, fmt.Errorf("ask %s: %w", q.name, err)
				}
				filled := 0
				for _, b := range h.Buckets {
					if b.Count > 0 {
						filled++
					}
				}
				if n = h.Total; q.kind == "bars" && filled < bars-1 && n > 100*bars {
					return nil, nil, fmt.Errorf("ask %s: only %d of %d bars have lines", q.name, filled, bars)
				}
			} else if _, err := e.Query(ctx, r, func(*query.Line) error { n++; return nil }); err != nil {
				return nil, nil, fmt.Errorf("ask %s: %w", q.name, err)
			}
			used := (cpuSeconds() - start) * 1000
			if best, ok := ms[q.name]; !ok || used < best {
				ms[q.name] = used
			}
			hits[q.name] = n
		}
	}
	return ms, hits, nil
}

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
// ingest, "seal" seals, "query" asks; each is answered with figures.
func child(dir string, sync bool, profile string) error {
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close() // the profile is written when it stops
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
	}
	cfg := store.Default(dir)
	if !sync {
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
	if err := out.Encode(figures{Ready: f.Addr().String()}); err != nil {
		return err
	}
	start := cpuSeconds()
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var got figures
		switch in.Text() {
		case "flush":
			if err := s.Flush(ctx); err != nil {
				return err
			}
			pprof.StopCPUProfile()
			if err := writeAllocs(profile); err != nil {
				return err
			}
		case "seal":
			start = cpuSeconds()
			if err := s.Seal(ctx); err != nil {
				return err
			}
		case "query":
			if got.Queries, got.Hits, err = ask(ctx, s, quiet); err != nil {
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

// questions are the queries of the table.
var questions = []struct{ name, text, kind string }{
	{"rare id", "needle48213x", "newest"},
	{"common word, newest 100", "INFO", "newest"},
	{"count of a word", "INFO", "count"},
	{"phrase count", `"Receiving block"`, "count"},
	{"regex with a literal", `~"Receiving block blk_-6[0-9]*7 "`, "count"},
	{"regex without", `~[a-f]{3}9[0-9]z`, "count"},
	{"histogram by level", "", "count"},
}

// ask measures every question, the best CPU milliseconds of five.
func ask(ctx context.Context, s *store.Store, log *slog.Logger) (map[string]float64, map[string]int64, error) {
	e := query.New(s, log)
	ms, hits := map[string]float64{}, map[string]int64{}
	for _, q := range questions {
		for range 5 {
			start := cpuSeconds()
			n := int64(0)
			r := query.Request{Text: q.text, From: lines.Start, To: lines.Start + 100*3600e9, Limit: 100}
			if q.kind == "count" {
				h, err := e.Histogram(ctx, r)
				if err != nil {
					return nil, nil, fmt.Errorf("ask %s: %w", q.name, err)
				}
				n = h.Total
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

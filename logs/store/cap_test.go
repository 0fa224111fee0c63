package store

import (
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"perch/logs/index"
	"perch/logs/record"
)

// The bytes that may be kept are a limit of the directory, however few they are:
// also while a partition is being written or sealed.
func TestTheDirectoryStaysWithinItsBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 32 << 20
		cfg := Default(t.TempDir())
		cfg.RetentionBytes = most
		s := open(t, cfg)
		rnd := rand.New(rand.NewPCG(7, 7))
		st := streams(4)
		peak, body := int64(0), make([]byte, 3<<10)
		for round := range 40 {
			var lines []record.Record
			for i := range 600 { // nearly 2 MB, of which little can be compressed
				for k := range body {
					body[k] = 'a' + byte(rnd.Uint32())%64
				}
				lines = append(lines, record.Record{Time: time.Now().UnixNano(), Stream: st[i%len(st)], Body: fmt.Appendf(nil, "%d %s", round, body)})
			}
			if err := s.Append(t.Context(), lines, nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(cfg.CheckpointEvery)
			maintain(t, s, time.Now())
			if round%5 == 4 {
				if err := s.rewriteDue(t.Context(), time.Now(), 0); err != nil {
					t.Fatal(err)
				}
			}
			size := int64(0)
			if err := filepath.WalkDir(cfg.Dir, func(_ string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				info, err := d.Info()
				size += info.Size()
				return err
			}); err != nil {
				t.Fatal(err)
			}
			peak = max(peak, size)
		}
		if u := s.Use(); peak > most+most/8 || peak < most/2 || u.Bytes > most {
			t.Errorf("%d bytes at most, %d now, of %d that may be kept", peak, u.Bytes, most)
		}
		t.Logf("at most %d MB", peak>>20)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestDecideRollForANamespace(t *testing.T) {
	start := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	cfg := Default("x")
	due := start.Add(cfg.PartitionAge / rollMost)
	by := policy{namespaces: map[string]Retention{"loud": {Bytes: 800}, "old": {Age: time.Hour}}}
	full := []partitionUse{{namespaces: map[string]int64{"loud": 750, "old": 900}}}
	for _, c := range []struct {
		name   string
		now    time.Time
		closed []partitionUse
		open   map[string]int64
		want   string
	}{
		{"nothing is written", due, full, nil, ""},
		{"much more than may be, all of it here", due, nil, map[string]int64{"calm": 9000, "loud": 900}, "loud"},
		{"more than may be with what is closed", due, full, map[string]int64{"loud": 100}, "loud"},
		{"most of it is closed already", due, full, map[string]int64{"loud": 99}, ""},
		{"no more than may be", due, full, map[string]int64{"loud": 50}, ""},
		{"the partition has just begun", due.Add(-time.Second), nil, map[string]int64{"loud": 900}, ""},
		{"a namespace without bytes of its own", due, full, map[string]int64{"old": 9000, "calm": 9000}, ""},
	} {
		if have, ok := decideRollFor(c.now, start, c.closed, c.open, by, cfg); have != c.want || ok != (c.want != "") {
			t.Errorf("%s: have %q %v", c.name, have, ok)
		}
	}
}

// A namespace that writes many times what it may keep, all in one partition, loses
// the oldest of it within the hour, and others lose nothing.
func TestANamespaceStaysNearItsBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 512 << 10
		cfg := Default(t.TempDir())
		cfg.BlockBytes = 32 << 10
		cfg.Namespaces = func() map[string]Retention { return map[string]Retention{"loud": {Bytes: most}} }
		s := open(t, cfg)
		rnd := rand.New(rand.NewPCG(7, 7))
		st := streams(4)
		st[0].Namespace, st[1].Namespace = "loud", "loud"
		body, n := make([]byte, 3<<10), 0
		use := func(name string) int64 {
			for _, u := range s.Use().Namespaces {
				if u.Name == name {
					return u.Bytes
				}
			}
			return 0
		}
		peak := int64(0)
		for range 36 { // three hours
			for range 10 {
				var lines []record.Record
				for range 10 {
					for k := range body {
						body[k] = 'a' + byte(rnd.Uint32())%64
					}
					lines = append(lines, record.Record{Time: time.Now().UnixNano() + int64(n), Stream: st[n%2], Body: fmt.Appendf(nil, "line %d %s", n, body)})
					n++
				}
				lines = append(lines, record.Record{Time: time.Now().UnixNano(), Stream: st[2+n%2], Body: []byte("line 1 of the others")})
				if err := s.Append(t.Context(), lines, nil); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(5 * time.Minute)
			maintain(t, s, time.Now())
			if err := s.rewriteDue(t.Context(), time.Now(), 0); err != nil {
				t.Fatal(err)
			}
			peak = max(peak, use("loud"))
		}
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		// What is written between two looks cannot be helped: 300 kB in five minutes.
		if peak > 4*most || peak < most/2 {
			t.Errorf("%d bytes at most of %d that may be kept", peak, most)
		}
		v, err := s.View()
		if err != nil {
			t.Fatal(err)
		}
		loud, calm, last := 0, 0, uint64(0)
		for _, p := range v.Select(t.Context(), 0, 1<<62, func(*record.Stream) bool { return true }, index.Need{}) {
			if p.Stream.Namespace == "loud" {
				loud += p.Lines
				last = max(last, p.First+uint64(p.Lines))
			} else {
				calm += p.Lines
			}
		}
		if err := v.Release(); err != nil {
			t.Fatal(err)
		}
		if calm != 360 {
			t.Errorf("the others have %d lines of 360", calm)
		}
		if last != 1800 || loud < 100 || loud > n/2 {
			t.Errorf("%d lines are kept of %d, the last is %d", loud, n, last)
		}
		if len(s.parts) < 2 || len(s.parts) > 3*rollMost/6+3 {
			t.Errorf("%d partitions", len(s.parts))
		}
		t.Logf("at most %d kB of %d, %d lines of %d, %d partitions", peak>>10, most>>10, loud, n, len(s.parts))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestTheNewestBlocksStayWhenANamespaceHasTooMany(t *testing.T) {
	s := open(t, small(t.TempDir()))
	defer func() { _ = s.Close() }()
	st := streams(2)
	st[1].Namespace = "other"
	appendAll(t, s, 0, 4000, st)
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	metas, size := s.parts[0].metas, int64(0)
	for _, m := range metas {
		if m.Stream == st[0] {
			size += m.Size()
		}
	}
	kept, dropped := rewrite{drop: map[string]string{"shop": "bytes"}, leave: map[string]int64{"shop": size / 2}}.split(metas)
	oldest, left, others := int64(math.MaxInt64), int64(0), 0
	for _, m := range kept {
		if m.Stream != st[0] {
			others++
			continue
		}
		oldest, left = min(oldest, m.Max), left+m.Size()
	}
	for _, m := range metas {
		if m.Stream == st[0] && m.Max > oldest && !slices.Contains(kept, m) {
			t.Error("a block went that is newer than one that stays")
		}
	}
	if left > size/2 || left < size/3 || dropped["bytes"] != len(metas)-len(kept) || others < 10 {
		t.Errorf("%d of %d bytes stay, %v blocks go of %d", left, size, dropped, len(metas))
	}
}

// Lines are kept for the time that was asked for and little more, also where no more
// are written.
func TestLinesGoSoonAfterTheirTime(t *testing.T) {
	for age, want := range map[time.Duration]time.Duration{0: 6 * time.Hour, 7 * 24 * time.Hour: 6 * time.Hour, 8 * time.Hour: time.Hour, time.Minute: leastSpan} {
		cfg := Default("x")
		if cfg.RetentionAge = age; cfg.within().PartitionAge != want {
			t.Errorf("retention of %s: partitions of %s, want %s", age, cfg.within().PartitionAge, want)
		}
	}
	for what, busy := range map[string]bool{"quiet": false, "busy": true} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := Default(t.TempDir())
				cfg.RetentionAge = time.Hour
				s := open(t, cfg)
				st := streams(1)
				began, first := time.Now(), time.Duration(0)
				for n := 0; first == 0 && time.Since(began) < 12*time.Hour; n++ {
					if n == 0 || busy {
						if err := s.Append(t.Context(), batch(st, n, 1), nil); err != nil {
							t.Fatal(err)
						}
					}
					time.Sleep(time.Minute)
					maintain(t, s, time.Now())
					if have := all(t, s, index.Need{}); len(have) == 0 || lineNumber(have[0]) > 0 {
						first = time.Since(began)
					}
				}
				// A head is cut after 10 minutes, and a partition is written for 7.5 minutes.
				if least, most := time.Hour, time.Hour+20*time.Minute; first < least || first > most {
					t.Errorf("the first line went after %s, want %s to %s", first, least, most)
				}
				if n := len(s.parts); n > 16 {
					t.Errorf("%d partitions", n)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

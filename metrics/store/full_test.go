package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/storage"
)

// smallDisk is a file system of so many megabytes with a filler of 3 in it.
func smallDisk(t *testing.T, mb int) (data, filler string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts")
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mb)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	filler = filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "data"), filler
}

// rounds writes batches: each has series of its own, so that records of series
// are long, and one that goes through all.
type rounds struct {
	in       *Inlet
	start    int64
	n        int
	accepted map[string]int
}

const eachRound = 1500

func (r *rounds) put() error {
	at := r.start + int64(r.n)
	batch := []Sample{{ID: 1, Labels: series("all", 0), T: at, V: float64(r.n)}}
	name := fmt.Sprintf("round_%d", r.n)
	for i := range eachRound {
		batch = append(batch, Sample{ID: uint64(2 + r.n*eachRound + i), Labels: series(name, i), T: at, V: 1})
	}
	r.n++
	_, err := r.in.Append(context.Background(), batch)
	if err == nil {
		r.accepted[name] = eachRound
		r.accepted["all"]++
	}
	return err
}

// check finds what was accepted, and nothing doubled.
func (r *rounds) check(t *testing.T, s *Store, when string) {
	t.Helper()
	for name, n := range r.accepted {
		got := read(t, s, name)
		if name == "all" {
			if len(got) != 1 || strings.Count(got[0], "@") != n {
				t.Errorf("%s: the series through all rounds has %d samples, accepted were %d", when, strings.Count(fmt.Sprint(got), "@"), n)
			}
		} else if len(got) != n {
			t.Errorf("%s: %s has %d series, accepted were %d", when, name, len(got), n)
		}
	}
}

// A disk that is full refuses what comes, and what was accepted before and
// after is there after a restart: no hole in the WAL that a repair would cut.
func TestAFullDiskLosesNothingThatWasAccepted(t *testing.T) {
	data, filler := smallDisk(t, 8)
	reserve := func(c *Config) { c.ReserveBytes, c.SeriesLimit = 1<<20, 1<<20 }
	s := open(t, data, reserve)
	r := &rounds{in: s.Inlet("test"), start: time.Now().Add(-time.Minute).UnixMilli(), accepted: map[string]int{}}
	refused := 0
	for refused < 20 && r.n < 400 {
		if err := r.put(); errors.Is(err, ErrFull) {
			refused++
		} else if err != nil {
			t.Fatal("refused for another reason: ", err)
		}
	}
	if refused == 0 || r.accepted["all"] < 3 {
		t.Fatalf("%d rounds accepted, %d refused", r.accepted["all"], refused)
	}
	app := s.AppenderV2(t.Context())
	if _, err := app.Append(0, series("scraped", 0), 0, r.start, 1, nil, nil, storage.AppendV2Options{}); !errors.Is(err, ErrFull) {
		t.Error("what is scraped was not refused:", err)
	}
	if err := app.Rollback(); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	s.room.looked = time.Time{}
	for range 5 {
		if err := r.put(); err != nil {
			t.Fatal("there is room again: ", err)
		}
	}
	// One whose first sample was refused goes on as a new one.
	late := fmt.Sprintf("round_%d", r.n-7)
	if _, err := r.in.Append(t.Context(), []Sample{{ID: uint64(2 + (r.n-7)*eachRound), Labels: series(late, 0), T: r.start + 10_000, V: 2}}); err != nil {
		t.Fatal(err)
	}
	r.accepted[late] = 1

	r.check(t, s, "before the restart")
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = open(t, data, reserve)
	if s.Repaired() {
		t.Error("the WAL was damaged")
	}
	r.check(t, s, "after the restart")
}

func TestAWriteThatFailedEndsTheStoreAndWhatWasAcceptedIsThereWhenItOpensAgain(t *testing.T) {
	data, filler := smallDisk(t, 8)
	s := open(t, data, func(c *Config) { c.ReserveBytes, c.SeriesLimit = 0, 1<<20 }) // so that the disk does fail it
	r := &rounds{in: s.Inlet("test"), start: time.Now().Add(-time.Minute).UnixMilli(), accepted: map[string]int{}}
	var err error
	for err == nil && r.n < 400 {
		s.room.looked, s.room.free = time.Now().Add(time.Hour), 1 // nobody sees it coming
		err = r.put()
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk did not fail it: %v", err)
	}
	select {
	case <-s.Broken():
	default:
		t.Error("the store does not say that it is broken")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := r.put(); !errors.Is(err, ErrBroken) {
		t.Errorf("a broken store says %v", err)
	}
	_ = s.Close(t.Context()) // as when the process ends
	s = open(t, data, func(c *Config) { c.ReserveBytes = 0 })
	r.check(t, s, "after the restart")
	r.in = s.Inlet("test")
	if err := r.put(); err != nil {
		t.Error(err)
	}
}

package onward

import (
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"perch/logs/index"
	"perch/logs/record"
	"perch/logs/store"
)

// came is how often each line came.
func (r *receiver) came() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.got)
}

// sending forwards what a store has to a receiver, until the test ends.
func sending(t *testing.T, s *store.Store) (*Onward, *receiver) {
	t.Helper()
	r := &receiver{got: map[string]int{}}
	addr, stop := r.open(t, "127.0.0.1:0")
	t.Cleanup(stop)
	cfg := Default(addr, "n1")
	cfg.Key = "s3"
	o, err := New(cfg, s, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	o.begun = true
	t.Cleanup(o.hangUp)
	return o, r
}

// A block that cannot be read any more is told, and does not hold up what comes
// after it for ever.
func TestADamagedBlockDoesNotHoldUpTheOthers(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(store.Default(dir), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []int{0, 100} { // a record of blocks for each hundred
		put(t, s, from, 100)
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "parts", "*", "blocks.dat"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1 // of the last record's lines
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	put(t, s, 200, 100)
	o, r := sending(t, s)
	for range 2 { // the second time nothing is lost or sent again
		if _, err := o.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		if lost := testutil.ToFloat64(o.m.lost); lost != 100 || len(r.came()) != 200 {
			t.Errorf("%d lines came, %v were lost", len(r.came()), lost)
		}
	}
	came := r.came()
	for i := range 100 {
		if line := "line " + strconv.Itoa(200+i); came[line] != 1 {
			t.Errorf("%s came %d times", line, came[line])
		}
	}
}

// The store may be unable to tell what a closed partition has; it has it still.
func TestStreamsThatCannotBeReadNowAreNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := openStore(t, dir)
		put(t, s, 0, 100)
		if err := s.Seal(t.Context()); err != nil {
			t.Fatal(err)
		}
		o, err := New(Default("far:24224", "n1"), s, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		for i := range 2 { // all was sent
			st := record.Stream{Namespace: "shop", Pod: "p" + strconv.Itoa(i)}
			o.sent[st.Hash()] = 50
		}
		want := maps.Clone(o.sent)
		stop := run(t, s.Run)
		time.Sleep(3 * time.Minute) // it lets go of what it knows of blocks
		stop()
		files, err := filepath.Glob(filepath.Join(dir, "parts", "*", "blocks.dat"))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		f, err := os.OpenFile(files[0], os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt(make([]byte, 40), 0); err != nil { // the first header
			t.Fatal(err)
		}
		v, err := s.View()
		if err != nil {
			t.Fatal(err)
		}
		v.Select(t.Context(), math.MinInt64, math.MaxInt64, func(*record.Stream) bool { return true }, index.Need{Op: index.Any})
		if err := v.Release(); err != nil || v.Lost() == nil {
			t.Fatal("the blocks are read still", err)
		}
		if _, err := o.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(o.sent, want) {
			t.Errorf("have %v, want %v", o.sent, want)
		}
	})
}

func TestAStreamWhoseNumbersBeginAnewIsSent(t *testing.T) {
	s := openStore(t, t.TempDir())
	put(t, s, 0, 100)
	o, r := sending(t, s)
	st := record.Stream{Namespace: "shop", Pod: "p0"} // retention had removed all of its 1,000 lines
	o.sent[st.Hash()] = 1000
	if _, err := o.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(r.came()); n != 100 {
		t.Errorf("%d lines came, want 100", n)
	}
}

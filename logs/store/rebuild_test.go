package store

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// standing is a context for work that takes long: whoever asks whether it ended waits.
type standing struct {
	context.Context
	asked chan struct{} // closed when somebody has, for the after'th time
	after int32
	goOn  chan struct{}
	times atomic.Int32
}

func (c *standing) Err() error {
	if n := c.times.Add(1); n == c.after {
		close(c.asked)
	}
	if c.times.Load() >= c.after {
		<-c.goOn
	}
	return c.Context.Err()
}

// While an index is built anew, which may take minutes, checkpoints are written and
// what is due goes, also the partition whose index it is.
func TestNothingWaitsForAnIndexThatIsBuiltAnew(t *testing.T) {
	for what, partition := range map[string]int{"another partition": -1, "the partition itself": 0} {
		t.Run(what, func(t *testing.T) {
			cfg := small(t.TempDir())
			if partition == 0 {
				cfg.RetentionAge = time.Hour
			}
			s := open(t, cfg)
			add := func(lines int) {
				t.Helper()
				if err := s.Append(t.Context(), batch(streams(3), 0, lines), nil); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				add(2000)
				if err := s.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := s.rollNow(); err != nil {
					t.Fatal(err)
				}
			}
			add(2000)
			if err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if partition < 0 { // all closed ones are due
				s.cfg.RetentionBytes = 1
			}
			at := (partition + len(s.parts)) % len(s.parts)
			p, first := s.parts[at], s.parts[0].name
			if err := os.RemoveAll(p.indexDir()); err != nil {
				t.Fatal(err)
			}
			// It asks twice for each partition that is newer, and then once and for each block.
			long := &standing{Context: t.Context(), asked: make(chan struct{}), after: int32(2*(len(s.parts)-1-at) + 3), goOn: make(chan struct{})}
			built, kept := make(chan struct{}), make(chan struct{})
			go func() { defer close(built); s.completeIndexes(long) }()
			<-long.asked
			add(1)
			if err := os.Remove(filepath.Join(cfg.Dir, checkpointName)); err != nil {
				t.Fatal(err)
			}
			go func() { defer close(kept); s.maintain(t.Context(), time.Now().Add(2*time.Hour)) }()
			wait := func(c chan struct{}) {
				t.Helper()
				select {
				case <-c:
				case <-time.After(time.Minute):
					t.Fatal("it waits")
				}
			}
			if partition < 0 {
				wait(kept)
			} else {
				for until := time.Now().Add(time.Minute); p.claimed.Load() == 0 && time.Now().Before(until); {
					runtime.Gosched()
				}
			}
			if _, err := os.Stat(filepath.Join(cfg.Dir, checkpointName)); err != nil {
				t.Error("no checkpoint meanwhile", err)
			}
			close(long.goOn)
			wait(built)
			wait(kept)
			if partition == 0 && p.index().Added() == p.count {
				t.Error("the index of what is removed was completed")
			}
			if _, err := os.Stat(filepath.Join(partitionsDir(cfg.Dir), first)); err == nil {
				t.Error("what was due is there")
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

package store

import (
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A clock that leaps ahead may be wrong: on a machine without a battery, before the
// network told it the time, everything kept would be too old at once. So ages are
// judged as if it had not leaped until it has stayed there for leapHold. A machine
// that was off for that long only waits.
const (
	leap     = time.Hour
	leapHold = time.Hour
)

// clock is the time by which ages are judged.
type clock struct {
	began time.Time // of the process, which counts on whatever the clock does

	mu    sync.Mutex    // guards what follows
	wall  time.Time     // at the last look
	run   time.Duration // since began, then
	ahead time.Duration // so much may the clock be wrong by,
	until time.Duration // as long as that
}

// used begins with the time at which something was kept last; zero if that is not known.
func (c *clock) used(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall, c.run = at, 0
}

// judge is the time by which ages are judged, how far the clock is ahead of it, and
// whether it has leaped since the last look.
func (c *clock) judge(wall time.Time, run time.Duration) (at time.Time, ahead time.Duration, leaped bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	step := time.Duration(0)
	if !c.wall.IsZero() {
		step = wall.Sub(c.wall) - (run - c.run)
	}
	c.wall, c.run = wall, run
	switch leaped = step > leap; {
	case leaped:
		c.ahead, c.until = c.ahead+step, run+leapHold
	case step < -leap:
		c.ahead = max(0, c.ahead+step)
	}
	if run >= c.until {
		c.ahead = 0
	}
	return wall.Add(-c.ahead), c.ahead, leaped
}

// judge is the time by which ages are judged at a time.
func (s *Store) judge(now time.Time) time.Time {
	at, ahead, leaped := s.clock.judge(now.Round(0), now.Sub(s.clock.began))
	if leaped {
		s.log.Warn("the clock leaped ahead, or nothing was stored for long: until it has stayed there, ages are judged as if it had not", "ahead", ahead.Round(time.Second), "stay", leapHold)
	}
	return at
}

// lastUsed is when the store in a directory last wrote down what it holds; zero if it never did.
func lastUsed(dir string) (last time.Time) {
	for _, name := range []string{checkpointName, checkpointBefore} {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}

// closedAt is when a partition was closed: when the next one was begun. Where that has
// a name of a clock that was ahead, it is when its own blocks were written.
func closedAt(next, written, now time.Time) time.Time {
	if next.Sub(now) > leap && !written.IsZero() && written.Before(next) {
		return written
	}
	return next
}

// begunAt is when a partition was begun. Where it has a name of a clock that was
// ahead, it is when this process opened it.
func begunAt(named, opened, now time.Time) time.Time {
	if named.Sub(now) > leap {
		return opened
	}
	return named
}

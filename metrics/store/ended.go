package store

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// endedShare of the series in memory may have ended; then they are written
	// out at once instead of with the next block. Without it a node that starts
	// many short pods fills its series limit within the hour.
	endedShare = 0.3

	endedLook  = 15 * time.Second
	endedEvery = time.Minute // unless it gets tight
)

// endedMustGo says whether series that ended are written out now. The database
// has such a rule itself, which rests for ten minutes before each block: long
// enough for a few pods a second to reach a limit.
func endedMustGo(series, ended, limit uint64, since time.Duration) bool {
	return ended > 0 && float64(ended) >= endedShare*float64(series) && (since >= endedEvery || series > limit/2)
}

// untilLook is the time to the middle of a quarter of a minute. At full minutes
// the database looks by itself, under the same lock, when it was opened at one: in
// the bubble of a test nobody may wait for a lock.
func untilLook(now time.Time) time.Duration {
	return now.Add(endedLook / 2).Truncate(endedLook).Add(endedLook / 2).Sub(now)
}

// letGo writes out what ended until the store is closed.
func (s *Store) letGo() {
	defer close(s.stopped)
	limit := uint64(s.cfg.SeriesLimit)
	if n := uint64(s.cfg.NamespaceLimit); n > 0 {
		limit = min(limit, n)
	}
	last := time.Now()
	for {
		select {
		case <-s.stop:
			return
		case <-time.After(untilLook(time.Now())):
		}
		if left, err := s.room.left(); err != nil || left <= 0 {
			continue // it writes a block
		}
		if h := s.db.Head(); s.held.Load() || !endedMustGo(h.NumSeries(), h.NumStaleSeries(), limit, time.Since(last)) {
			continue
		}
		if err := s.db.CompactStaleHead(); err != nil {
			s.log.Error("series that ended stay in memory", "err", err)
			if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EIO) {
				_ = s.room.done(err) // it writes to the WAL too
			}
		}
		last = time.Now()
	}
}

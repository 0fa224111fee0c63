package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
	"golang.org/x/sys/unix"
)

var (
	// ErrFull means that the disk has less than Config.ReserveBytes left.
	ErrFull = errors.New("disk is full")

	// ErrBroken means that a write failed before; see Store.Broken.
	ErrBroken = errors.New("an earlier write failed")
)

// roomEvery is how long an answer of the file system is believed.
const roomEvery = 100 * time.Millisecond

// room watches what the database cannot bear: a record written by half, on a
// full disk or a broken one. What follows such a record in the WAL is lost when
// it is replayed, and a chunk that cannot be written ends the process.
type room struct {
	dir     string
	reserve int64
	metrics *metrics

	mu     sync.Mutex
	looked time.Time
	free   int64
	err    error // of a failed commit
	broken chan struct{}
}

// left asks the file system how many bytes the store may still write.
func (r *room) left() (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.looked) > roomEvery {
		var fs unix.Statfs_t
		if err := unix.Statfs(r.dir, &fs); err != nil {
			return 0, fmt.Errorf("look for room in %s: %w", r.dir, err)
		}
		r.looked, r.free = now, int64(fs.Bavail)*fs.Bsize-r.reserve
		r.metrics.room.Set(float64(max(0, r.free)))
	}
	return r.free, r.err
}

// refusal is why nothing may be appended now, or nil.
func (r *room) refusal() error {
	free, err := r.left()
	if err == nil && free <= 0 {
		err = fmt.Errorf("%w: %s has less than %d MiB left, which are kept free; make room, or lower the retention", ErrFull, r.dir, r.reserve>>20)
	}
	if err != nil {
		r.metrics.refused.WithLabelValues("disk").Inc()
	}
	return err
}

// done takes the error of a commit.
func (r *room) done(err error) error {
	if err == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = fmt.Errorf("%w (%w): the store must be opened again", ErrBroken, err)
		close(r.broken)
	}
	return err
}

// appender refuses each sample when there is no room, before the database
// makes a series of it.
type appender struct {
	storage.Appender
	room *room
	err  error
}

func (a *appender) Append(ref storage.SeriesRef, l labels.Labels, t int64, v float64) (storage.SeriesRef, error) {
	if a.err != nil {
		return 0, a.err
	}
	return a.Appender.Append(ref, l, t, v)
}

func (a *appender) AppendExemplar(ref storage.SeriesRef, l labels.Labels, e exemplar.Exemplar) (storage.SeriesRef, error) {
	if a.err != nil {
		return 0, a.err
	}
	return a.Appender.AppendExemplar(ref, l, e)
}

func (a *appender) AppendHistogram(ref storage.SeriesRef, l labels.Labels, t int64, h *histogram.Histogram, fh *histogram.FloatHistogram) (storage.SeriesRef, error) {
	if a.err != nil {
		return 0, a.err
	}
	return a.Appender.AppendHistogram(ref, l, t, h, fh)
}

func (a *appender) AppendHistogramSTZeroSample(ref storage.SeriesRef, l labels.Labels, t, st int64, h *histogram.Histogram, fh *histogram.FloatHistogram) (storage.SeriesRef, error) {
	if a.err != nil {
		return 0, a.err
	}
	return a.Appender.AppendHistogramSTZeroSample(ref, l, t, st, h, fh)
}

func (a *appender) AppendSTZeroSample(ref storage.SeriesRef, l labels.Labels, t, st int64) (storage.SeriesRef, error) {
	if a.err != nil {
		return 0, a.err
	}
	return a.Appender.AppendSTZeroSample(ref, l, t, st)
}

func (a *appender) UpdateMetadata(ref storage.SeriesRef, l labels.Labels, m metadata.Metadata) (storage.SeriesRef, error) {
	if a.err != nil {
		return 0, a.err
	}
	return a.Appender.UpdateMetadata(ref, l, m)
}

func (a *appender) Commit() error {
	if a.err != nil {
		return errors.Join(a.err, a.Appender.Rollback())
	}
	return a.room.done(a.Appender.Commit())
}

// Rollback writes to the WAL too: the series that were new.
func (a *appender) Rollback() error {
	err := a.Appender.Rollback()
	if a.err != nil {
		return err
	}
	return a.room.done(err)
}

// appenderV2 is appender in the newer shape.
type appenderV2 struct {
	storage.AppenderV2
	room *room
	err  error
}

func (a *appenderV2) Append(ref storage.SeriesRef, l labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, o storage.AppendV2Options) (storage.SeriesRef, error) {
	if a.err != nil {
		return 0, a.err
	}
	return a.AppenderV2.Append(ref, l, st, t, v, h, fh, o)
}

func (a *appenderV2) Commit() error {
	if a.err != nil {
		return errors.Join(a.err, a.AppenderV2.Rollback())
	}
	return a.room.done(a.AppenderV2.Commit())
}

func (a *appenderV2) Rollback() error {
	err := a.AppenderV2.Rollback()
	if a.err != nil {
		return err
	}
	return a.room.done(err)
}

// Appender is storage.Appendable. Its samples are refused with ErrFull or
// ErrBroken when they cannot be kept.
func (s *Store) Appender(ctx context.Context) storage.Appender {
	return &appender{s.db.Appender(ctx), s.room, s.room.refusal()}
}

// AppenderV2 is storage.AppendableV2; as Appender.
func (s *Store) AppenderV2(ctx context.Context) storage.AppenderV2 {
	return &appenderV2{s.db.AppenderV2(ctx), s.room, s.room.refusal()}
}

// Room is how many bytes may still be written until samples are refused; 0 when
// that is not known.
func (s *Store) Room() int64 {
	left, err := s.room.left()
	if err != nil {
		return 0
	}
	return max(0, left)
}

// Broken is closed when a write to the WAL failed. Nothing is taken from then
// on: what followed in the WAL would be lost. Open the store again, which cuts
// what was written by half; it was never accepted.
func (s *Store) Broken() <-chan struct{} { return s.room.broken }

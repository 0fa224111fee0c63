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

// refused takes nothing: not even a series is made in the database.
type refused struct{ err error }

func (r refused) Append(storage.SeriesRef, labels.Labels, int64, float64) (storage.SeriesRef, error) {
	return 0, r.err
}

func (r refused) AppendExemplar(storage.SeriesRef, labels.Labels, exemplar.Exemplar) (storage.SeriesRef, error) {
	return 0, r.err
}

func (r refused) AppendHistogram(storage.SeriesRef, labels.Labels, int64, *histogram.Histogram, *histogram.FloatHistogram) (storage.SeriesRef, error) {
	return 0, r.err
}

func (r refused) AppendHistogramSTZeroSample(storage.SeriesRef, labels.Labels, int64, int64, *histogram.Histogram, *histogram.FloatHistogram) (storage.SeriesRef, error) {
	return 0, r.err
}

func (r refused) AppendSTZeroSample(storage.SeriesRef, labels.Labels, int64, int64) (storage.SeriesRef, error) {
	return 0, r.err
}

func (r refused) UpdateMetadata(storage.SeriesRef, labels.Labels, metadata.Metadata) (storage.SeriesRef, error) {
	return 0, r.err
}

func (r refused) SetOptions(*storage.AppendOptions) {}
func (r refused) Commit() error                     { return r.err }
func (r refused) Rollback() error                   { return nil }

// refusedV2 is refused in the newer shape.
type refusedV2 struct{ refused }

func (r refusedV2) Append(storage.SeriesRef, labels.Labels, int64, int64, float64, *histogram.Histogram, *histogram.FloatHistogram, storage.AppendV2Options) (storage.SeriesRef, error) {
	return 0, r.err
}

// appender tells the room how its writes ended.
type appender struct {
	storage.Appender
	room *room
}

func (a appender) Commit() error { return a.room.done(a.Appender.Commit()) }

// Rollback writes to the WAL too: the series that were new.
func (a appender) Rollback() error { return a.room.done(a.Appender.Rollback()) }

// appenderV2 is appender in the newer shape.
type appenderV2 struct {
	storage.AppenderV2
	room *room
}

func (a appenderV2) Commit() error   { return a.room.done(a.AppenderV2.Commit()) }
func (a appenderV2) Rollback() error { return a.room.done(a.AppenderV2.Rollback()) }

// Appender is storage.Appendable. Its samples are refused with ErrFull or
// ErrBroken when they cannot be kept.
func (s *Store) Appender(ctx context.Context) storage.Appender {
	if err := s.room.refusal(); err != nil {
		return refused{err}
	}
	return appender{s.db.Appender(ctx), s.room}
}

// AppenderV2 is storage.AppendableV2; as Appender.
func (s *Store) AppenderV2(ctx context.Context) storage.AppenderV2 {
	if err := s.room.refusal(); err != nil {
		return refusedV2{refused{err}}
	}
	return appenderV2{s.db.AppenderV2(ctx), s.room}
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

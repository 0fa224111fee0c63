package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// Sample is one number of one series. It is an unnamed struct so that areas
// which do not import each other can hand slices of it around.
//
// ID names the series within one inlet; 0 means "look it up by labels". T is in
// ms. A stale marker (value.StaleNaN) ends the series and frees its ID.
type Sample = struct {
	ID     uint64
	Labels labels.Labels
	T      int64
	V      float64
}

// Appended tells what became of a batch.
type Appended struct {
	Stored  int // includes repeats of what was there already
	Refused int // too old, out of order, conflicting or over the series limit
}

// maxRefs bounds the references of one inlet, 16 bytes each; past it the cache
// starts anew, which costs one lookup per series.
const maxRefs = 1 << 20

// Inlet is one writer's way into the store. It remembers where the writer's
// series are, so that a sample costs no lookup. Not for concurrent use.
type Inlet struct {
	name string
	s    *Store
	refs map[uint64]storage.SeriesRef
}

// Inlet makes a new way in; name must come from a short fixed list, it labels
// a metric.
func (s *Store) Inlet(name string) *Inlet {
	return &Inlet{name: name, s: s, refs: map[uint64]storage.SeriesRef{}}
}

// Forget drops the references, when IDs are about to mean other series.
func (i *Inlet) Forget() { clear(i.refs) }

// Append commits the batch. Samples the store refuses are counted and skipped;
// an error means that nothing of the batch is stored and it may be tried again.
func (i *Inlet) Append(ctx context.Context, batch []Sample) (Appended, error) {
	var done Appended
	if len(i.refs) > maxRefs {
		clear(i.refs)
	}
	app := i.s.Appender(ctx)
	for k := range batch {
		b := &batch[k]
		ref, err := app.Append(i.refs[b.ID], b.Labels, b.T, b.V)
		if err != nil {
			if !i.skip(err) {
				return Appended{}, errors.Join(fmt.Errorf("append series %s: %w", b.Labels, err), app.Rollback())
			}
			done.Refused++
			continue
		}
		done.Stored++
		switch {
		case b.ID == 0:
		case value.IsStaleNaN(b.V):
			delete(i.refs, b.ID)
		default:
			i.refs[b.ID] = ref
		}
	}
	if err := app.Commit(); err != nil {
		return Appended{}, fmt.Errorf("commit samples of %s: %w", i.name, err)
	}
	i.s.metrics.appended.WithLabelValues(i.name).Add(float64(done.Stored))
	return done, nil
}

// skip says whether the rest of the batch can go on after err, and counts why.
func (i *Inlet) skip(err error) bool {
	reason := ""
	switch {
	case errors.Is(err, ErrSeriesLimit):
		return true // counted where it was refused
	case errors.Is(err, storage.ErrOutOfBounds), errors.Is(err, storage.ErrTooOldSample):
		reason = "too_old"
	case errors.Is(err, storage.ErrOutOfOrderSample):
		reason = "out_of_order"
	case errors.Is(err, storage.ErrDuplicateSampleForTimestamp):
		reason = "conflict"
	default:
		if errors.Is(err, tsdb.ErrInvalidSample) {
			reason = "invalid"
		}
	}
	if reason == "" {
		return false
	}
	i.s.metrics.refused.WithLabelValues(reason).Inc()
	return true
}

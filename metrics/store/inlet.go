package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
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

// Histogram is one native histogram of one series: either H or FH. It belongs to
// the store once it is appended. One whose sum is a stale marker ends the series.
type Histogram struct {
	ID     uint64 // as of a Sample
	Labels labels.Labels
	T      int64 // ms
	H      *histogram.Histogram
	FH     *histogram.FloatHistogram
}

// Stale answers whether it ends its series.
func (h *Histogram) Stale() bool {
	return h.H != nil && value.IsStaleNaN(h.H.Sum) || h.FH != nil && value.IsStaleNaN(h.FH.Sum)
}

// Exemplar is an example of what a series counted. Its labels are With.
type Exemplar struct {
	ID     uint64 // as of a Sample
	Labels labels.Labels
	T      int64 // ms
	V      float64
	With   labels.Labels
}

// Batch is all that can be appended at once.
type Batch struct {
	Samples    []Sample
	Histograms []Histogram
	Exemplars  []Exemplar
}

// Len is how many samples, histograms and exemplars there are.
func (b Batch) Len() int { return len(b.Samples) + len(b.Histograms) + len(b.Exemplars) }

// Appended tells what became of a batch.
type Appended struct {
	Stored  int // includes repeats of what was there already
	Refused int // too old, too far ahead, out of order, conflicting or over the series limit
	Ahead   int // of these, too far ahead
}

// MaxAhead is how much newer than this machine's clock a sample may be. The window for
// late samples ends at the newest, so one of a time far ahead would make all others
// too old until that time has come.
const MaxAhead = 10 * time.Minute

// errAhead is of a sample that is newer than MaxAhead allows.
var errAhead = errors.New("the sample is of a time to come")

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

// Append commits samples; see AppendAll.
func (i *Inlet) Append(ctx context.Context, batch []Sample) (Appended, error) {
	return i.AppendAll(ctx, Batch{Samples: batch})
}

// AppendAll commits the batch. What the store refuses is counted and skipped; an
// error means that nothing of the batch is stored and it may be tried again.
func (i *Inlet) AppendAll(ctx context.Context, batch Batch) (Appended, error) {
	var done Appended
	if len(i.refs) > maxRefs {
		clear(i.refs)
	}
	app := i.s.Appender(ctx)
	latest := time.Now().Add(MaxAhead).UnixMilli()
	var failed error
	took := func(id uint64, l labels.Labels, stale bool, ref storage.SeriesRef, err error) bool {
		switch {
		case err != nil && !i.skip(err):
			failed = errors.Join(fmt.Errorf("append series %s: %w", l, err), app.Rollback())
			return false
		case err != nil:
			if done.Refused++; errors.Is(err, errAhead) {
				done.Ahead++
			}
			return true
		}
		done.Stored++
		switch {
		case id == 0:
		case stale:
			delete(i.refs, id)
		default:
			i.refs[id] = ref
		}
		return true
	}
	for k := range batch.Samples {
		b := &batch.Samples[k]
		ref, err := storage.SeriesRef(0), errAhead
		if b.T <= latest {
			ref, err = app.Append(i.refs[b.ID], b.Labels, b.T, b.V)
		}
		if !took(b.ID, b.Labels, value.IsStaleNaN(b.V), ref, err) {
			return Appended{}, failed
		}
	}
	for k := range batch.Histograms {
		b := &batch.Histograms[k]
		ref, err := storage.SeriesRef(0), b.valid()
		if b.T > latest {
			err = errAhead
		}
		if err == nil {
			ref, err = app.AppendHistogram(i.refs[b.ID], b.Labels, b.T, b.H, b.FH)
		}
		if !took(b.ID, b.Labels, b.Stale(), ref, err) {
			return Appended{}, failed
		}
	}
	for k := range batch.Exemplars {
		b := &batch.Exemplars[k]
		_, err := app.AppendExemplar(i.refs[b.ID], b.Labels, exemplar.Exemplar{Labels: b.With, Value: b.V, Ts: b.T, HasTs: true})
		switch {
		case errors.Is(err, ErrFull), errors.Is(err, ErrBroken):
			return Appended{}, errors.Join(fmt.Errorf("append exemplar of series %s: %w", b.Labels, err), app.Rollback())
		case err != nil: // of a series that was refused, too long, older than the newest: no reason to hold up what comes with it
			i.s.metrics.refused.WithLabelValues("exemplar").Inc()
			done.Refused++
		default:
			done.Stored++
		}
	}
	if err := app.Commit(); err != nil {
		return Appended{}, fmt.Errorf("commit samples of %s: %w", i.name, err)
	}
	i.s.metrics.appended.WithLabelValues(i.name).Add(float64(done.Stored))
	return done, nil
}

// errHistogram is of a histogram that contradicts itself.
var errHistogram = errors.New("histogram is not valid")

func (h *Histogram) valid() (err error) {
	switch {
	case h.H != nil && h.FH == nil:
		err = h.H.Validate()
	case h.FH != nil && h.H == nil:
		err = h.FH.Validate()
	default:
		err = errors.New("neither of whole numbers nor of fractions")
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errHistogram, err)
	}
	return nil
}

// skip says whether the rest of the batch can go on after err, and counts why.
func (i *Inlet) skip(err error) bool {
	reason := ""
	switch {
	case errors.Is(err, ErrSeriesLimit):
		return true // counted where it was refused
	case errors.Is(err, errAhead):
		reason = "too_new"
	case errors.Is(err, storage.ErrOutOfBounds), errors.Is(err, storage.ErrTooOldSample):
		reason = "too_old"
	case errors.Is(err, storage.ErrOutOfOrderSample):
		reason = "out_of_order"
	case errors.Is(err, storage.ErrDuplicateSampleForTimestamp):
		reason = "conflict"
	default:
		if errors.Is(err, tsdb.ErrInvalidSample) || errors.Is(err, errHistogram) {
			reason = "invalid"
		}
	}
	if reason == "" {
		return false
	}
	i.s.metrics.refused.WithLabelValues(reason).Inc()
	return true
}

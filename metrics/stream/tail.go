package stream

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
)

// Position is a place in the WAL of a store: a segment and bytes in it.
type Position struct {
	Segment int   `json:"segment"`
	Offset  int64 `json:"offset"`
}

// Before says whether p is a place before q.
func (p Position) Before(q Position) bool {
	return p.Segment < q.Segment || p.Segment == q.Segment && p.Offset < q.Offset
}

// End is where the WAL of a store ends now: every record that ends later is
// written later. Begin is where its oldest segment begins.
func End(storeDir string) (begin, end Position, _ error) {
	dir := filepath.Join(storeDir, "wal")
	first, last, err := wlog.Segments(dir)
	if err == nil && last < 0 {
		err = os.ErrNotExist
	}
	if err != nil {
		return begin, end, fmt.Errorf("list WAL %s: %w", dir, err)
	}
	now, err := os.Stat(wlog.SegmentName(dir, last))
	if err != nil {
		return begin, end, fmt.Errorf("look at WAL segment: %w", err)
	}
	return Position{Segment: first}, Position{last, now.Size()}, nil
}

// Pick says which series of the record that ends at a position are wanted.
type Pick func(at Position) func(ref uint64, l labels.Labels) bool

// tail reads a WAL that another part of this process writes.
type tail struct {
	dir     string                                        // of the WAL
	list    func(dir string) (first, last int, err error) // its segments
	log     *slog.Logger
	metrics *wlog.LiveReaderMetrics
	decoder record.Decoder
	series  map[chunks.HeadSeriesRef]labels.Labels

	pick Pick // nil: all

	at      Position
	skip    int64 // samples up to this offset of the first segment are sent
	file    *wlog.Segment
	reader  *wlog.LiveReader
	samples []record.RefSample
	defs    []record.RefSeries
	extra   extra
	lost    int // segments that were deleted unread
	many    int // series are forgotten when there are more, and twice as many as after the last time
	kept    int // series after the last time
}

// manySeries is tail.many outside of tests.
const manySeries = 20_000

func openTail(storeDir string, from Position, pick Pick, log *slog.Logger) *tail {
	return &tail{
		dir: filepath.Join(storeDir, "wal"), list: wlog.Segments, log: log, metrics: wlog.NewLiveReaderMetrics(nil),
		decoder: record.NewDecoder(labels.NewSymbolTable(), log),
		series:  map[chunks.HeadSeriesRef]labels.Labels{}, at: from, pick: pick, many: manySeries,
	}
}

// tries are how often a list of segments may be out of date when they are opened:
// the store deletes what is in blocks.
const tries = 20

func (t *tail) again(try func() error) (err error) {
	for range tries {
		if err = try(); !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return err
}

// start learns the series described before the position.
func (t *tail) start() error {
	oldest := t.at == Position{}
	return t.again(func() error { return t.begin(oldest) })
}

func (t *tail) begin(oldest bool) error {
	first, last, err := t.list(t.dir)
	if err != nil {
		return fmt.Errorf("list WAL %s: %w", t.dir, err)
	}
	if last < 0 {
		return fmt.Errorf("list WAL %s: %w", t.dir, os.ErrNotExist)
	}
	if t.at.Segment > last { // the store was replaced
		t.at = Position{Segment: first}
	}
	if t.at.Segment < first {
		if !oldest {
			t.lost += first - t.at.Segment
		}
		t.at = Position{Segment: first}
	}
	if err := t.learnBefore(first); err != nil {
		return err
	}
	t.skip = t.at.Offset
	return t.enter(t.at.Segment)
}

// learnBefore reads the series described before the segment that is at; first is
// the oldest segment there is.
func (t *tail) learnBefore(first int) error {
	if dir, _, err := wlog.LastCheckpoint(t.dir); err == nil {
		if err := t.learn(wlog.NewSegmentsReader(dir)); err != nil {
			return err
		}
	}
	for n := first; n < t.at.Segment; n++ {
		if err := t.learn(wlog.OpenReadSegment(wlog.SegmentName(t.dir, n))); err != nil {
			return err
		}
	}
	t.kept = len(t.series)
	return nil
}

// forget keeps of the series only those that the WAL still knows, when there are
// many others: without it a node that starts many short pods remembers them all.
func (t *tail) forget(first int) {
	if len(t.series) <= max(t.many, 2*t.kept) {
		return
	}
	had := t.series
	t.series = make(map[chunks.HeadSeriesRef]labels.Labels, t.kept)
	if err := t.learnBefore(first); err != nil { // deleted while it was read
		t.series = had
		t.log.Debug("ended series were not forgotten, the next segment tries again", "err", err)
	}
}

// learn reads the series of finished segments.
func (t *tail) learn(f io.ReadCloser, err error) error {
	if err != nil {
		return fmt.Errorf("open WAL %s: %w", t.dir, err)
	}
	defer f.Close()
	r := wlog.NewReader(f)
	for r.Next() {
		if err := t.define(r.Record()); err != nil {
			return err
		}
	}
	if r.Err() != nil {
		t.log.Warn("part of the metrics WAL was not readable", "err", r.Err())
	}
	return nil
}

func (t *tail) define(rec []byte) error {
	if t.decoder.Type(rec) != record.Series {
		return nil
	}
	var err error
	t.defs, err = t.decoder.Series(rec, t.defs[:0])
	if err != nil {
		return fmt.Errorf("decode series of WAL %s: %w", t.dir, err)
	}
	for _, d := range t.defs {
		t.series[d.Ref] = d.Labels
	}
	return nil
}

func (t *tail) enter(segment int) error {
	f, err := wlog.OpenReadSegment(wlog.SegmentName(t.dir, segment))
	if err != nil {
		return fmt.Errorf("open WAL segment: %w", err)
	}
	if t.file != nil {
		_ = t.file.Close() // read only
	}
	t.file = f
	t.reader = wlog.NewLiveReader(t.log, t.metrics, f)
	if segment != t.at.Segment {
		t.at, t.skip = Position{Segment: segment}, 0
	}
	return nil
}

// extra is what is decoded into, again and again.
type extra struct {
	whole     []record.RefHistogramSample
	fractions []record.RefFloatHistogramSample
	exemplars []record.RefExemplar
}

// sizeOf is how many samples a batch is worth: a histogram has many numbers.
func sizeOf(b Batch) int { return len(b.Samples) + 10*len(b.Histograms) + len(b.Exemplars) }

// next fills batch with what was committed since, up to about limit samples;
// nothing means that there is no more now. The position moves past it.
func (t *tail) next(batch Batch, limit int) (Batch, error) {
	for sizeOf(batch) < limit {
		// Asked before reading: a segment that has a successor now grows no
		// more, so its end is its end.
		_, last, err := t.list(t.dir)
		if err != nil {
			return batch, fmt.Errorf("list WAL %s: %w", t.dir, err)
		}
		if batch, err = t.read(batch, limit); err != nil || sizeOf(batch) >= limit {
			return batch, err
		}
		if last <= t.at.Segment {
			return batch, nil
		}
		if err := t.again(t.advance); err != nil {
			return batch, err
		}
	}
	return batch, nil
}

// read takes records of the open segment until its present end.
func (t *tail) read(batch Batch, limit int) (Batch, error) {
	for sizeOf(batch) < limit && t.reader.Next() {
		rec := t.reader.Record()
		if err := t.define(rec); err != nil {
			return batch, err
		}
		kind := t.decoder.Type(rec)
		if !carries(kind) || t.reader.Offset() <= t.skip {
			continue
		}
		at := Position{t.at.Segment, t.reader.Offset()}
		wanted := func(uint64, labels.Labels) bool { return true }
		if t.pick != nil {
			wanted = t.pick(at)
		}
		find := func(ref chunks.HeadSeriesRef) (labels.Labels, bool) {
			l, ok := t.series[ref]
			return l, ok && wanted(uint64(ref), l)
		}
		if err := t.take(kind, rec, &batch, find); err != nil {
			return batch, fmt.Errorf("decode %s of WAL %s: %w", kind, t.dir, err)
		}
		t.at = at
	}
	if err := t.reader.Err(); err != nil && !errors.Is(err, io.EOF) {
		// A torn record ends a segment when its writer was killed; the store
		// goes on in the next one.
		t.log.Warn("metrics WAL segment ended early", "err", err)
	}
	return batch, nil
}

// carries answers whether records of a kind hold what is sent.
func carries(kind record.Type) bool {
	switch kind {
	case record.Samples, record.SamplesV2, record.Exemplars,
		record.HistogramSamples, record.HistogramSamplesV2, record.CustomBucketsHistogramSamples,
		record.FloatHistogramSamples, record.FloatHistogramSamplesV2, record.CustomBucketsFloatHistogramSamples:
		return true
	}
	return false
}

// take adds a record to the batch.
func (t *tail) take(kind record.Type, rec []byte, batch *Batch, find func(chunks.HeadSeriesRef) (labels.Labels, bool)) (err error) {
	switch kind {
	case record.Samples, record.SamplesV2:
		t.samples, err = t.decoder.Samples(rec, t.samples[:0])
		for _, x := range t.samples {
			if l, ok := find(x.Ref); ok {
				batch.Samples = append(batch.Samples, Sample{ID: uint64(x.Ref), Labels: l, T: x.T, V: x.V})
			}
		}
	case record.Exemplars:
		t.extra.exemplars, err = t.decoder.Exemplars(rec, t.extra.exemplars[:0])
		for _, x := range t.extra.exemplars {
			if l, ok := find(x.Ref); ok {
				batch.Exemplars = append(batch.Exemplars, Exemplar{ID: uint64(x.Ref), Labels: l, T: x.T, V: x.V, With: x.Labels})
			}
		}
	case record.HistogramSamples, record.HistogramSamplesV2, record.CustomBucketsHistogramSamples:
		t.extra.whole, err = t.decoder.HistogramSamples(rec, t.extra.whole[:0])
		for _, x := range t.extra.whole {
			if l, ok := find(x.Ref); ok {
				batch.Histograms = append(batch.Histograms, Histogram{ID: uint64(x.Ref), Labels: l, T: x.T, H: x.H})
			}
		}
	default:
		t.extra.fractions, err = t.decoder.FloatHistogramSamples(rec, t.extra.fractions[:0])
		for _, x := range t.extra.fractions {
			if l, ok := find(x.Ref); ok {
				batch.Histograms = append(batch.Histograms, Histogram{ID: uint64(x.Ref), Labels: l, T: x.T, FH: x.FH})
			}
		}
	}
	return err
}

// advance goes to the next segment that still exists.
func (t *tail) advance() error {
	first, _, err := t.list(t.dir)
	if err != nil {
		return fmt.Errorf("list WAL %s: %w", t.dir, err)
	}
	want := max(t.at.Segment+1, first)
	skipped := want - t.at.Segment - 1
	if skipped > 0 { // the series that they described go on
		if err := t.learnBefore(first); err != nil {
			return err
		}
	}
	if err := t.enter(want); err != nil {
		return err
	}
	t.lost += skipped
	t.forget(first)
	return nil
}

func (t *tail) close() {
	if t.file != nil {
		_ = t.file.Close() // read only
	}
}

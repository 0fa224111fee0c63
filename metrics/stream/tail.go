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

	pick    Pick // nil: all
	at      Position
	skip    int64 // samples up to this offset of the first segment are sent
	file    *wlog.Segment
	reader  *wlog.LiveReader
	samples []record.RefSample
	defs    []record.RefSeries
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

// next fills batch with up to about limit samples that were committed since;
// none means that there are no more now. The position moves past them.
func (t *tail) next(batch []Sample, limit int) ([]Sample, error) {
	for len(batch) < limit {
		// Asked before reading: a segment that has a successor now grows no
		// more, so its end is its end.
		_, last, err := t.list(t.dir)
		if err != nil {
			return batch, fmt.Errorf("list WAL %s: %w", t.dir, err)
		}
		if batch, err = t.read(batch, limit); err != nil || len(batch) >= limit {
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
func (t *tail) read(batch []Sample, limit int) ([]Sample, error) {
	for len(batch) < limit && t.reader.Next() {
		rec := t.reader.Record()
		if err := t.define(rec); err != nil {
			return batch, err
		}
		switch t.decoder.Type(rec) {
		case record.Samples, record.SamplesV2:
		default:
			continue
		}
		if t.reader.Offset() <= t.skip {
			continue
		}
		var err error
		t.samples, err = t.decoder.Samples(rec, t.samples[:0])
		if err != nil {
			return batch, fmt.Errorf("decode samples of WAL %s: %w", t.dir, err)
		}
		at := Position{t.at.Segment, t.reader.Offset()}
		wanted := func(uint64, labels.Labels) bool { return true }
		if t.pick != nil {
			wanted = t.pick(at)
		}
		for _, x := range t.samples {
			if l, ok := t.series[x.Ref]; ok && wanted(uint64(x.Ref), l) {
				batch = append(batch, Sample{ID: uint64(x.Ref), Labels: l, T: x.T, V: x.V})
			}
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

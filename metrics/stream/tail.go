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

// position is a place in the WAL behind which everything was acknowledged.
type position struct {
	Segment int   `json:"segment"`
	Offset  int64 `json:"offset"`
}

// tail reads a WAL that another part of this process writes.
type tail struct {
	dir     string // of the WAL
	log     *slog.Logger
	metrics *wlog.LiveReaderMetrics
	decoder record.Decoder
	series  map[chunks.HeadSeriesRef]labels.Labels

	at      position
	skip    int64 // samples up to this offset of the first segment are sent
	file    *wlog.Segment
	reader  *wlog.LiveReader
	samples []record.RefSample
	defs    []record.RefSeries
	lost    int // segments that were deleted unread
}

func openTail(storeDir string, from position, log *slog.Logger) *tail {
	return &tail{
		dir: filepath.Join(storeDir, "wal"), log: log, metrics: wlog.NewLiveReaderMetrics(nil),
		decoder: record.NewDecoder(labels.NewSymbolTable(), log),
		series:  map[chunks.HeadSeriesRef]labels.Labels{}, at: from,
	}
}

// start learns the series described before the position.
func (t *tail) start() error {
	first, last, err := wlog.Segments(t.dir)
	if err != nil {
		return fmt.Errorf("list WAL %s: %w", t.dir, err)
	}
	if last < 0 {
		return fmt.Errorf("list WAL %s: %w", t.dir, os.ErrNotExist)
	}
	if t.at.Segment > last { // the store was replaced
		t.at = position{Segment: first}
	}
	if t.at.Segment < first {
		if t.at != (position{}) {
			t.lost += first - t.at.Segment
		}
		t.at = position{Segment: first}
	}
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
	t.skip = t.at.Offset
	return t.enter(t.at.Segment)
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
		t.at, t.skip = position{Segment: segment}, 0
	}
	return nil
}

// next fills batch with up to about limit samples that were committed since;
// none means that there are no more now. The position moves past them.
func (t *tail) next(batch []Sample, limit int) ([]Sample, error) {
	for len(batch) < limit {
		// Asked before reading: a segment that has a successor now grows no
		// more, so its end is its end.
		_, last, err := wlog.Segments(t.dir)
		if err != nil {
			return batch, fmt.Errorf("list WAL %s: %w", t.dir, err)
		}
		if batch, err = t.read(batch, limit); err != nil || len(batch) >= limit {
			return batch, err
		}
		if last <= t.at.Segment {
			return batch, nil
		}
		if err := t.advance(); err != nil {
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
		for _, x := range t.samples {
			if l, ok := t.series[x.Ref]; ok {
				batch = append(batch, Sample{ID: uint64(x.Ref), Labels: l, T: x.T, V: x.V})
			}
		}
		t.at.Offset = t.reader.Offset()
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
	first, _, err := wlog.Segments(t.dir)
	if err != nil {
		return fmt.Errorf("list WAL %s: %w", t.dir, err)
	}
	want := t.at.Segment + 1
	if want < first {
		t.lost += first - want
		want = first
	}
	return t.enter(want)
}

func (t *tail) close() {
	if t.file != nil {
		_ = t.file.Close() // read only
	}
}

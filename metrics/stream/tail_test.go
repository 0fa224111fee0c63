package stream

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
)

// logOf writes a WAL as a store does: segment n has the definition of series n and
// a sample of each series so far, whose value is n.
func logOf(t *testing.T, dir string, segments int) *wlog.WL {
	t.Helper()
	w, err := wlog.NewSize(quiet, nil, filepath.Join(dir, "wal"), 1<<20, compression.Snappy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	var enc record.Encoder
	var samples []record.RefSample
	for n := range segments {
		if n > 0 {
			if _, err := w.NextSegmentSync(); err != nil {
				t.Fatal(err)
			}
		}
		ref := chunks.HeadSeriesRef(n + 1)
		samples = append(samples, record.RefSample{Ref: ref})
		for i := range samples {
			samples[i].T, samples[i].V = time.Now().UnixMilli(), float64(n)
		}
		if err := w.Log(enc.Series([]record.RefSeries{{Ref: ref, Labels: labels.FromStrings("i", fmt.Sprint(n))}}, nil), enc.Samples(samples, nil)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// truncate deletes segments up to one, as a store does.
func truncate(t *testing.T, w *wlog.WL, last int) {
	t.Helper()
	first, _, err := wlog.Segments(w.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wlog.Checkpoint(quiet, w, first, last, func(chunks.HeadSeriesRef) bool { return true }, time.Now().Add(time.Hour).UnixMilli(), false); err != nil {
		t.Fatal(err)
	}
	if err := w.Truncate(last + 1); err != nil {
		t.Fatal(err)
	}
	if err := wlog.DeleteCheckpoints(w.Dir(), last); err != nil {
		t.Fatal(err)
	}
}

func TestAWALThatIsTruncatedMeanwhileIsReadFromWhereItBeginsThen(t *testing.T) {
	const segments = 10
	for _, tc := range []struct {
		about    string
		from     Position
		read     int   // samples before it is truncated, of 1 + 2 + 3 …
		truncate []int // up to these segments, each right after the segments were listed
		lost     int
		first    int // whose samples are read next
	}{
		{"nothing is deleted", Position{1, 1}, 0, nil, 0, 1},
		{"what is before the position, while it starts", Position{6, 0}, 0, []int{2, 4}, 0, 6},
		{"the position, while it starts", Position{1, 1}, 0, []int{4}, 4, 5},
		{"the position, and once more", Position{1, 1}, 0, []int{2, 6}, 6, 7},
		{"the oldest, when it is to begin there", Position{}, 0, []int{2, 5}, 0, 6},
		{"what was read, and what is next", Position{}, 1, []int{4}, 4, 5},
		{"what is next, twice", Position{}, 3, []int{3, 6}, 5, 7},
	} {
		t.Run(tc.about, func(t *testing.T) {
			dir := t.TempDir()
			w := logOf(t, dir, segments)
			r := openTail(dir, tc.from, nil, quiet)
			defer r.close()
			racing := tc.read == 0
			r.list = func(dir string) (int, int, error) {
				first, last, err := wlog.Segments(dir)
				if racing && len(tc.truncate) > 0 {
					truncate(t, w, tc.truncate[0])
					tc.truncate = tc.truncate[1:]
				}
				return first, last, err
			}
			if err := r.start(); err != nil {
				t.Fatal(err)
			}
			var batch Batch
			var err error
			if tc.read > 0 {
				if batch, err = r.next(Batch{}, tc.read); err != nil || batch.Len() != tc.read {
					t.Fatal(batch.Len(), err)
				}
			}
			racing = true
			if batch, err = r.next(Batch{}, 1000); err != nil {
				t.Fatal(err)
			}
			var got, want []string
			for _, s := range batch.Samples {
				got = append(got, fmt.Sprint(s.Labels.Get("i"), "=", s.V))
			}
			for n := tc.first; n < segments; n++ {
				for i := range n + 1 {
					want = append(want, fmt.Sprint(i, "=", n))
				}
			}
			if !slices.Equal(got, want) || r.lost != tc.lost {
				t.Errorf("read %v, want %v; lost %d segments, want %d", got, want, r.lost, tc.lost)
			}
		})
	}
}

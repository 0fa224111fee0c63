package stream

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"perch/metrics/store"
)

// all returns kind, value and time of everything in a store, exemplars too.
func all(t testing.TB, s *store.Store) map[string][]string {
	t.Helper()
	q, err := s.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	any := labels.MustNewMatcher(labels.MatchNotEqual, "__name__", "")
	set := q.Select(context.Background(), true, nil, any)
	out := map[string][]string{}
	for set.Next() {
		name := set.At().Labels().String()
		it := set.At().Iterator(nil)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			switch kind {
			case chunkenc.ValFloat:
				at, v := it.At()
				out[name] = append(out[name], fmt.Sprintf("%g@%d", v, at))
			case chunkenc.ValHistogram:
				at, h := it.AtHistogram(nil)
				out[name] = append(out[name], fmt.Sprintf("%s sum %x@%d", h, math.Float64bits(h.Sum), at))
			default:
				at, h := it.AtFloatHistogram(nil)
				out[name] = append(out[name], fmt.Sprintf("fractions %s@%d", h, at))
			}
		}
	}
	ex, err := s.ExemplarQuerier(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	found, err := ex.Select(math.MinInt64, math.MaxInt64, []*labels.Matcher{any})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range found {
		for _, e := range x.Exemplars {
			name := "exemplars of " + x.SeriesLabels.String()
			out[name] = append(out[name], fmt.Sprintf("%g@%d %s", e.Value, e.Ts, e.Labels))
		}
	}
	return out
}

// mixed is one round of samples, histograms of all shapes and an exemplar.
func mixed(k int, at int64) Batch {
	b := Batch{Samples: []Sample{{ID: 1, Labels: name(1), T: at, V: float64(k)}}}
	add := func(id uint64, h *histogram.Histogram, f *histogram.FloatHistogram) {
		b.Histograms = append(b.Histograms, Histogram{ID: id, Labels: name(int(id)), T: at, H: h, FH: f})
	}
	add(2, tsdbutil.GenerateTestHistogram(int64(k)), nil)
	add(3, nil, tsdbutil.GenerateTestFloatHistogram(int64(k)))
	add(4, tsdbutil.GenerateTestCustomBucketsHistogram(int64(k)), nil)
	add(5, nil, tsdbutil.GenerateTestCustomBucketsFloatHistogram(int64(k)))
	add(6, tsdbutil.GenerateTestGaugeHistogram(int64(k)), nil)
	b.Exemplars = []Exemplar{{ID: 2, Labels: name(2), T: at, V: float64(k) + .5, With: labels.FromStrings("trace_id", fmt.Sprint("t", k))}}
	return b
}

func put(t testing.TB, in *store.Inlet, b Batch) {
	t.Helper()
	if done, err := in.AppendAll(t.Context(), b); err != nil || done.Refused > 0 {
		t.Fatal(done, err)
	}
}

func TestHistogramsAndExemplarsOfAWorkerReachTheServerThroughOutagesAndRestarts(t *testing.T) {
	dir, state := t.TempDir(), filepath.Join(t.TempDir(), "acked")
	from, into := newStore(t, dir), newStore(t, t.TempDir())
	recv := NewReceiver("nodes", DefaultReceiver(), into, quiet, nil)
	d, srv := serve(t, recv)
	in := from.Inlet("test")
	start := time.Now().UnixMilli() - 30*60_000
	write := func(first, last int) {
		for k := first; k < last; k++ {
			put(t, in, mixed(k, start+int64(k)*5000))
		}
	}
	same := func() bool { return reflect.DeepEqual(all(t, into), all(t, from)) }

	write(1, 20)
	stop := forward(t, dir, state, srv.URL)
	until(t, "the first rounds", same)
	d.mute.Store(true) // an answer is lost
	write(20, 40)
	until(t, "what was sent twice", same)
	d.away.Store(true)
	write(40, 60)
	stop() // the worker restarts
	stop = forward(t, dir, state, srv.URL)
	*recv = *NewReceiver("nodes", DefaultReceiver(), into, quiet, nil) // and the server
	d.away.Store(false)
	until(t, "what was held back", same)
	stale := mixed(61, start+61*5000)
	stale.Histograms[0].H = &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}
	stale.Exemplars = nil
	put(t, in, stale)
	put(t, in, mixed(62, start+62*5000)) // it goes on
	until(t, "a series that ended and goes on", same)
	stop()
	if got := all(t, into); len(got) != 7 || len(got[name(2).String()]) != 61 || len(got["exemplars of "+name(2).String()]) != 60 {
		t.Errorf("stored %d series, %d histograms, %d exemplars", len(got), len(got[name(2).String()]), len(got["exemplars of "+name(2).String()]))
	}
}

// older is a receiver of the version before: it reads PMS1, and its answers have
// no header that tells what it reads.
func older(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if raw, err := s2.Decode(nil, body); err != nil || string(raw[:len(magic)]) != magic {
			http.Error(w, "malformed batch: no PMS1 at the start", http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		in := httptest.NewRecorder()
		next.ServeHTTP(in, r)
		w.WriteHeader(in.Code)
	})
}

func TestAReceiverOfTheVersionBeforeGetsSamplesAndTheRestIsCountedUntilItIsUpdated(t *testing.T) {
	into := newStore(t, t.TempDir())
	now := older(NewReceiver("nodes", DefaultReceiver(), into, quiet, nil))
	var updated atomic.Bool
	next := NewReceiver("nodes", DefaultReceiver(), into, quiet, nil)
	_, srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if updated.Load() {
			next.ServeHTTP(w, r)
			return
		}
		now.ServeHTTP(w, r)
	}))
	c := NewClient("server", ClientConfig{URL: srv.URL}, srv.Client(), nil)
	start := time.Now().UnixMilli() - 60_000
	for k := range 10 {
		if k == 6 {
			updated.Store(true)
		}
		if err := c.SendAll(t.Context(), mixed(k, start+int64(k)*1000)); err != nil {
			t.Fatal(err)
		}
		if c.Old() != (k < 6) {
			t.Errorf("round %d: old is %v", k, c.Old())
		}
	}
	// Nothing but histograms: there is nothing to send to an old one.
	if got := testutil.ToFloat64(c.metrics.unread); got != 6*6 {
		t.Errorf("%g were counted as not read, want 36", got)
	}
	got := all(t, into)
	if len(got[name(1).String()]) != 10 || len(got[name(2).String()]) != 4 || len(got["exemplars of "+name(2).String()]) != 4 {
		t.Errorf("stored %v", got)
	}
}

func TestABatchOfSamplesIsReadByEveryVersion(t *testing.T) {
	if b := encoded(&session{}, []Sample{{Labels: name(1), T: 5, V: 1}}); string(b[:4]) != "PMS1" {
		t.Errorf("it begins with %q", b[:4])
	}
}

func TestAHistogramThatContradictsItselfHoldsUpNothing(t *testing.T) {
	into := newStore(t, t.TempDir())
	_, srv := serve(t, NewReceiver("nodes", DefaultReceiver(), into, quiet, nil))
	c := NewClient("server", ClientConfig{URL: srv.URL}, srv.Client(), nil)
	b := mixed(1, time.Now().UnixMilli())
	b.Histograms[1].FH.Count = -1
	b.Exemplars = append(b.Exemplars, Exemplar{ID: 99, Labels: name(99), T: b.Samples[0].T, V: 1}) // of a series that is not there
	if err := c.SendAll(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if got := all(t, into); len(got) != 6 || got[name(3).String()] != nil {
		t.Errorf("stored %v", got)
	}
}

func TestManyLargeHistogramsAreSentInSeveralBatchesAndNothingTwice(t *testing.T) {
	big := &histogram.FloatHistogram{PositiveBuckets: make([]float64, heavy/4)}
	b := Batch{Samples: make([]Sample, 3), Exemplars: make([]Exemplar, 2)}
	for range 11 {
		b.Histograms = append(b.Histograms, Histogram{FH: big})
	}
	var got []string
	for p := range parts(b) {
		got = append(got, fmt.Sprint(len(p.Samples), len(p.Histograms), len(p.Exemplars)))
	}
	if want := []string{"3 4 0", "0 4 0", "0 3 2"}; !reflect.DeepEqual(got, want) {
		t.Errorf("parts of samples, histograms, exemplars: %v, want %v", got, want)
	}
	for range parts(Batch{}) {
		t.Error("an empty batch has a part")
	}
}

// bytesOf encodes a batch whose series are all new.
func bytesOf(b Batch) []byte {
	var st staged
	var numbers []uint64
	var fresh []labels.Labels
	add := func(l labels.Labels) { fresh, numbers = append(fresh, l), append(numbers, uint64(len(fresh)+1)) }
	for _, x := range b.Samples {
		add(x.Labels)
	}
	for _, x := range b.Histograms {
		add(x.Labels)
	}
	for _, x := range b.Exemplars {
		add(x.Labels)
	}
	return encode(nil, &session{}, 1, fresh, b, numbers, &st)
}

func TestEveryHistogramSurvives(t *testing.T) {
	for k := range 5 {
		want := mixed(k, 1e12+int64(k))
		want.Histograms = append(want.Histograms, Histogram{Labels: name(7), T: 3, H: &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}})
		h, r, err := open(bytesOf(want))
		if err != nil || !h.two {
			t.Fatal(h, err)
		}
		got, _, err := r.decode(&session{}, h, nil)
		if err != nil || len(got.Histograms) != len(want.Histograms) || len(got.Exemplars) != 1 {
			t.Fatal(got, err)
		}
		for i, x := range got.Histograms {
			w := want.Histograms[i]
			if x.T != w.T || !labels.Equal(x.Labels, w.Labels) || w.H != nil && !x.H.Equals(w.H) || w.FH != nil && !x.FH.Equals(w.FH) {
				t.Errorf("sent %v, got %v", w, x)
			}
			if w.H != nil && x.H.CounterResetHint != w.H.CounterResetHint {
				t.Errorf("sent hint %d, got %d", w.H.CounterResetHint, x.H.CounterResetHint)
			}
		}
		if x, w := got.Exemplars[0], want.Exemplars[0]; x.T != w.T || x.V != w.V || !labels.Equal(x.With, w.With) {
			t.Errorf("sent %v, got %v", w, x)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encoded(&session{}, []Sample{{Labels: name(1), T: 5, V: 1}, {Labels: name(2), T: 6, V: 0.5}})[len(magic)+sessionLength+1:], false)
	f.Add(bytesOf(mixed(3, 1e12))[len(magic)+sessionLength+1:], true)
	f.Fuzz(func(t *testing.T, b []byte, two bool) {
		// Past the checksum, which fuzzing would not guess; it is the last four bytes.
		r := &reader{b: b[:max(0, len(b)-4)]}
		s := &session{}
		batch, st, err := r.decode(s, header{two: two}, decorate("n"))
		if err == nil {
			s.commit(st)
			for _, id := range ids(batch) {
				if id == 0 || id > uint64(len(s.sets)) {
					t.Fatalf("series %d of %d", id, len(s.sets))
				}
			}
			for i := range batch.Histograms {
				if h := &batch.Histograms[i]; (h.H == nil) == (h.FH == nil) {
					t.Fatal("a histogram of no kind, or of two")
				}
			}
		}
		_, _, _ = open(b)
	})
}

func ids(b Batch) (out []uint64) {
	for _, x := range b.Samples {
		out = append(out, x.ID)
	}
	for _, x := range b.Histograms {
		out = append(out, x.ID)
	}
	for _, x := range b.Exemplars {
		out = append(out, x.ID)
	}
	return out
}

package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"perch/metrics/store"
)

var quiet = slog.New(slog.DiscardHandler)

func newStore(t testing.TB, dir string) *store.Store {
	t.Helper()
	cfg := store.Default()
	cfg.Dir = dir
	s, err := store.New(cfg, quiet, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

// read returns value@time of each sample per label set.
func read(t testing.TB, s *store.Store) map[string][]string {
	t.Helper()
	q, err := s.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchNotEqual, "__name__", ""))
	out := map[string][]string{}
	for set.Next() {
		it := set.At().Iterator(nil)
		for it.Next() == chunkenc.ValFloat {
			at, v := it.At()
			out[set.At().Labels().String()] = append(out[set.At().Labels().String()], fmt.Sprintf("%g@%d", v, at))
		}
	}
	return out
}

func name(i int) labels.Labels {
	return labels.FromStrings("__name__", "m", "i", strconv.Itoa(i), "node", "said-by-sender")
}

// door is a receiver that can be away, and can lose its answers.
type door struct {
	http.Handler
	away, mute atomic.Bool
}

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if d.away.Load() {
		http.Error(w, "away", http.StatusServiceUnavailable)
		return
	}
	if d.mute.Swap(false) {
		d.Handler.ServeHTTP(httptest.NewRecorder(), r)
		http.Error(w, "answer lost", http.StatusBadGateway)
		return
	}
	d.Handler.ServeHTTP(w, r)
}

func serve(t testing.TB, h http.Handler) (*door, *httptest.Server) {
	d := &door{Handler: h}
	s := httptest.NewServer(d)
	t.Cleanup(s.Close)
	return d, s
}

func nodeOf(*http.Request) (string, error) { return "n1", nil }

func TestSamplesArriveOnceWhateverHappens(t *testing.T) {
	into := newStore(t, t.TempDir())
	cfg := DefaultReceiver()
	cfg.NodeOf = nodeOf
	recv := NewReceiver("nodes", cfg, into, quiet, nil)
	d, srv := serve(t, recv)
	c := NewClient("server", ClientConfig{URL: srv.URL}, srv.Client(), nil)
	start := time.Now().UnixMilli()
	want := map[string][]string{}
	for k := range 30 {
		var batch []Sample
		for i := range 5 {
			v := float64(k * i)
			if i == 3 {
				v += 0.25
			}
			at := start + int64(k)*1000
			batch = append(batch, Sample{ID: uint64(i + 1), Labels: name(i), T: at, V: v})
			l := labels.FromStrings("__name__", "m", "exported_node", "said-by-sender", "i", strconv.Itoa(i), "node", "n1").String()
			want[l] = append(want[l], fmt.Sprintf("%g@%d", v, at))
		}
		switch k {
		case 7: // the answer is lost: sent again, stored once
			d.mute.Store(true)
		case 12: // the receiver restarts and knows no session
			*recv = *NewReceiver("nodes", cfg, into, quiet, nil)
		case 20: // it is away, then restarts
			d.away.Store(true)
		}
		err := c.Send(t.Context(), batch)
		if (k == 7 || k == 20) != (err != nil) {
			t.Fatalf("batch %d: %v", k, err)
		}
		if err != nil {
			d.away.Store(false)
			if err := c.Send(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := read(t, into); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if got := recv.Missing([]string{"n2", "n1"}, time.Now(), time.Minute); !reflect.DeepEqual(got, []string{"n2"}) {
		t.Errorf("missing %v", got)
	}
}

func TestASeriesThatEndedIsNotRemembered(t *testing.T) {
	into := newStore(t, t.TempDir())
	recv := NewReceiver("local", DefaultReceiver(), into, quiet, nil)
	d, srv := serve(t, recv)
	c := NewClient("local", ClientConfig{URL: srv.URL}, srv.Client(), nil)
	at := time.Now().UnixMilli()
	for k, v := range []float64{1, 2, math.Float64frombits(value.StaleNaN), 3, 4} {
		batch := []Sample{{ID: 1, Labels: name(1), T: at + int64(k)*1000, V: v}, {ID: 2, Labels: name(2), T: at + int64(k)*1000, V: 7}}
		if v == 3 { // the answer is lost
			d.mute.Store(true)
			if c.Send(t.Context(), batch) == nil {
				t.Fatal("no error")
			}
		}
		if err := c.Send(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range recv.sessions {
		if sets := s.s.sets; len(sets) != 3 || !sets[0].IsEmpty() || sets[1].IsEmpty() || !labels.Equal(sets[2], name(1)) {
			t.Errorf("it knows %v", sets)
		}
	}
	if got := read(t, into)[name(1).String()]; len(got) != 5 || got[4] != fmt.Sprintf("4@%d", at+4000) {
		t.Errorf("stored %v", got)
	}
}

func TestARepeatIsCountedAndADifferentBatchIsNotTakenForIt(t *testing.T) {
	into := newStore(t, t.TempDir())
	recv := NewReceiver("nodes", DefaultReceiver(), into, quiet, nil)
	d, srv := serve(t, recv)
	c := NewClient("server", ClientConfig{URL: srv.URL}, srv.Client(), nil)
	now := time.Now().UnixMilli()
	one := []Sample{{ID: 1, Labels: name(1), T: now, V: 1}}
	d.mute.Store(true)
	if c.Send(t.Context(), one) == nil {
		t.Fatal("the answer was lost")
	}
	if err := c.Send(t.Context(), one); err != nil || testutil.ToFloat64(recv.metrics.repeats) != 1 {
		t.Fatal(err, testutil.ToFloat64(recv.metrics.repeats))
	}
	d.mute.Store(true)
	if c.Send(t.Context(), []Sample{{ID: 1, Labels: name(1), T: now + 1, V: 1}}) == nil {
		t.Fatal("the answer was lost")
	}
	if err := c.Send(t.Context(), []Sample{{ID: 1, Labels: name(1), T: now + 2, V: 1}}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, into)[name(1).String()]; len(got) != 3 {
		t.Errorf("got %v", got)
	}
}

// until retries cond until it is true; the test fails after a deadline.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !cond() {
		select {
		case <-deadline:
			t.Fatal("not in time: ", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// forward runs a forwarder until the returned func is called.
func forward(t testing.TB, dir, state, url string) func() {
	t.Helper()
	cfg := DefaultForward(state)
	cfg.Interval, cfg.Retry, cfg.Batch = 5*time.Millisecond, 5*time.Millisecond, 37
	return run(t, cfg, dir, url)
}

// run forwards until the returned func is called.
func run(t testing.TB, cfg ForwardConfig, dir, url string) func() {
	t.Helper()
	f, err := NewForwarder(cfg, dir, NewClient(cfg.Name, ClientConfig{URL: url}, http.DefaultClient, nil), quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	return start(t, f)
}

// start runs a forwarder until the returned func is called.
func start(t testing.TB, f *Forwarder) func() {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestAnOutageAndRestartsOfBothSidesLeaveNoGap(t *testing.T) {
	dir, state := t.TempDir(), filepath.Join(t.TempDir(), "acked")
	from := newStore(t, dir)
	into := newStore(t, t.TempDir())
	recv := NewReceiver("nodes", DefaultReceiver(), into, quiet, nil)
	d, srv := serve(t, recv)

	in := from.Inlet("test")
	start := time.Now().UnixMilli() - 40*60_000
	write := func(first, last int) {
		for k := first; k < last; k++ {
			var batch []Sample
			for i := range 7 {
				batch = append(batch, Sample{uint64(i + 1), name(i), start + int64(k)*5000, float64(k) + float64(i)/8})
			}
			if done, err := in.Append(t.Context(), batch); err != nil || done.Refused > 0 {
				t.Fatal(done, err)
			}
		}
	}
	all := func() bool { return reflect.DeepEqual(read(t, into), read(t, from)) }

	write(0, 50)
	stop := forward(t, dir, state, srv.URL)
	write(50, 100)
	until(t, "the first hundred", all)
	d.away.Store(true)
	write(100, 300) // 16 minutes of an outage
	stop()          // and the worker restarts
	stop = forward(t, dir, state, srv.URL)
	*recv = *NewReceiver("nodes", DefaultReceiver(), into, quiet, nil) // and the server
	write(300, 320)
	d.away.Store(false)
	until(t, "what was held back", all)
	stop()
	write(320, 330)
	stop = forward(t, dir, state, srv.URL)
	defer stop()
	until(t, "what came while the worker was down", all)
}

func TestAnHourWithoutTheServerLeavesNoGapThoughBlocksAreWritten(t *testing.T) {
	const series = 600
	for _, hold := range []bool{true, false} {
		t.Run(map[bool]string{true: "held", false: "not held, which loses some"}[hold], func(t *testing.T) {
			cfg := store.DefaultWorker()
			cfg.Dir, cfg.WALSegmentBytes = t.TempDir(), 1<<20
			from, err := store.New(cfg, quiet, prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = from.Close(context.Background()) })
			into := newStore(t, t.TempDir())
			d, srv := serve(t, NewReceiver("nodes", DefaultReceiver(), into, quiet, nil))

			start := time.Now().UnixMilli() - 100*60_000
			in, own := from.Inlet("test"), into.Inlet("own")
			minute := func(m int) {
				var batch []Sample
				for k := range 12 {
					for i := range series {
						batch = append(batch, Sample{uint64(i + 1), name(i), start + int64(m*12+k)*5000, math.Sin(float64((m*12+k)*series + i))}) // does not compress
					}
				}
				if done, err := in.Append(t.Context(), batch); err != nil || done.Refused > 0 {
					t.Fatal(done, err)
				}
				// The server's own series go on, so that what comes late is old.
				if _, err := own.Append(t.Context(), []Sample{{1, labels.FromStrings("__name__", "own"), start + int64(m)*60_000, 1}}); err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(from.Compact(t.Context()), into.Compact(t.Context())); err != nil {
					t.Fatal(err)
				}
			}
			// count is how many samples the server has.
			count := func() (n int) {
				for l, samples := range read(t, into) {
					if !strings.Contains(l, "own") {
						n += len(samples)
					}
				}
				return n
			}
			fc := DefaultForward(filepath.Join(t.TempDir(), "acked"))
			fc.Interval, fc.Retry = 5*time.Millisecond, 5*time.Millisecond
			var waiting atomic.Bool
			if hold {
				fc.Hold = func(h bool) { waiting.Store(h); from.HoldWAL(h) }
			}
			f, err := NewForwarder(fc, cfg.Dir, NewClient("server", ClientConfig{URL: srv.URL}, http.DefaultClient, nil), quiet, nil)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- f.Run(ctx) }()
			t.Cleanup(func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
			for m := range 35 {
				minute(m)
			}
			until(t, "what came before", func() bool { return count() == 35*12*series })
			d.away.Store(true)
			minute(35)
			until(t, "that samples wait", func() bool { return waiting.Load() == hold })
			for m := range 59 {
				minute(36 + m)
			}
			d.away.Store(false)
			if !hold {
				until(t, "the loss of segments", func() bool { return testutil.ToFloat64(f.metrics.lost) > 0 })
				return
			}
			until(t, "an hour that was held back", func() bool { return count() == 95*12*series })
			until(t, "the end of holding", func() bool { return !waiting.Load() })
			minute(95) // may write blocks again
			until(t, "what came after", func() bool { return count() == 96*12*series })
			if n := testutil.ToFloat64(f.metrics.lost); n != 0 {
				t.Errorf("%g segments lost", n)
			}
		})
	}
}

func TestDecodeRefusesWhatIsTooMuch(t *testing.T) {
	recv := NewReceiver("nodes", DefaultReceiver(), newStore(t, t.TempDir()), quiet, nil)
	for _, c := range []struct {
		name, body string
		code       int
	}{
		{"nothing", "", http.StatusRequestEntityTooLarge},
		{"garbage", strings.Repeat("x", 100), http.StatusBadRequest},
		{"a frame without magic", "\x10\x3cabcdefghijklmnop", http.StatusBadRequest},
		{"more bytes than allowed", strings.Repeat("x", 17<<20), http.StatusRequestEntityTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			recv.ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader(c.body)))
			if w.Code != c.code {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, c.code)
			}
		})
	}
	cfg := DefaultReceiver()
	cfg.NodeOf = func(*http.Request) (string, error) { return "", errors.New("no client certificate") }
	w := httptest.NewRecorder()
	NewReceiver("x", cfg, nil, quiet, nil).ServeHTTP(w, httptest.NewRequest("POST", "/", nil))
	if w.Code != http.StatusForbidden {
		t.Error(w.Code)
	}
}

func encoded(s *session, batch []Sample) []byte {
	var st staged
	numbers := make([]uint64, len(batch))
	var fresh []labels.Labels
	for i := range batch {
		numbers[i] = uint64(i + 1)
		fresh = append(fresh, batch[i].Labels)
	}
	return encode(nil, s, 1, fresh, Batch{Samples: batch}, numbers, &st)
}

func TestEveryValueSurvives(t *testing.T) {
	var batch []Sample
	for i, v := range []float64{0, 1, -1, 0.1, math.Inf(1), math.Inf(-1), math.NaN(), math.Float64frombits(value.StaleNaN), math.Copysign(0, -1), 1 << 53, 1<<53 - 1, -(1 << 53), math.MaxFloat64, 5e-324} {
		batch = append(batch, Sample{Labels: name(i), T: int64(i) * 7, V: v})
	}
	h, r, err := open(encoded(&session{}, batch))
	if err != nil {
		t.Fatal(err)
	}
	all, _, err := r.decode(&session{}, h, nil)
	got := all.Samples
	if err != nil || len(got) != len(batch) {
		t.Fatal(got, err)
	}
	for i := range got {
		if got[i].T != batch[i].T || math.Float64bits(got[i].V) != math.Float64bits(batch[i].V) || !labels.Equal(got[i].Labels, batch[i].Labels) {
			t.Errorf("sent %v, got %v", batch[i], got[i])
		}
	}
}

// BenchmarkSend is client, HTTP, receiver and store together.
func BenchmarkSend(b *testing.B) {
	recv := NewReceiver("nodes", DefaultReceiver(), newStore(b, b.TempDir()), quiet, nil)
	_, srv := serve(b, recv)
	c := NewClient("server", ClientConfig{URL: srv.URL}, srv.Client(), nil)
	batch := make([]Sample, 5000)
	for i := range batch {
		batch[i] = Sample{ID: uint64(i + 1), Labels: name(i)}
	}
	now := time.Now().UnixMilli()
	b.ReportAllocs()
	began := cpu()
	for b.Loop() {
		now += 5000
		for i := range batch {
			batch[i].T = now
			batch[i].V += float64(i % 7)
		}
		if err := c.Send(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric((cpu()-began).Seconds()/float64(b.N*len(batch))*1e6, "cpu-s/Msample")
	b.ReportMetric(testutil.ToFloat64(c.metrics.bytes)/float64(b.N*len(batch)), "B/sample")
}

// cpu is what this process has used by now: it holds on a busy machine.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

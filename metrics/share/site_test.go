package share

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"perch/metrics/store"
	"perch/metrics/stream"
)

var quiet = slog.New(slog.DiscardHandler)

func newStore(t testing.TB) *store.Store {
	t.Helper()
	cfg := store.Default()
	cfg.Dir, cfg.StripeSize, cfg.Exemplars = t.TempDir(), 64, 100
	s, err := store.New(cfg, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

// all are the samples of each series of a database, by its labels.
func all(t testing.TB, db storage.Queryable) (map[string][]string, string) {
	t.Helper()
	q, err := db.Querier(math.MinInt64/2, math.MaxInt64/2)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
	out := map[string][]string{}
	for set.Next() {
		l := set.At().Labels().String()
		if out[l] != nil {
			t.Fatalf("series %s comes twice", l)
		}
		out[l] = texts(set.At())
	}
	if err := set.Err(); err != nil {
		t.Fatal(err)
	}
	w, _ := set.Warnings().AsStrings("", 0, 0)
	return out, strings.Join(w, "; ")
}

// texts are the values and times of a series.
func texts(s storage.Series) (out []string) {
	it := s.Iterator(nil)
	for {
		switch it.Next() {
		case chunkenc.ValFloat:
			at, v := it.At()
			out = append(out, fmt.Sprintf("%g@%d", v, at))
		case chunkenc.ValHistogram, chunkenc.ValFloatHistogram:
			at, h := it.AtFloatHistogram(nil)
			out = append(out, fmt.Sprintf("%s@%d", h, at))
		default:
			return out
		}
	}
}

func until(t testing.TB, what string, good func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(120 * time.Second); !good(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("not in time: ", what)
		}
	}
}

// keeper is a further store and its doors.
type keeper struct {
	Store
	db   *store.Store
	url  string
	away atomic.Bool
}

func (k *keeper) gate(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if k.away.Load() {
			panic(http.ErrAbortHandler)
		}
		h.ServeHTTP(w, r)
	})
}

// restart has it forget who sends.
func (k *keeper) restart(recv *atomic.Pointer[stream.Receiver]) {
	recv.Store(stream.NewReceiver("server", stream.DefaultReceiver(), k.db, quiet, nil))
}

func newKeeper(t testing.TB, name string) (*keeper, *atomic.Pointer[stream.Receiver]) {
	k, recv := &keeper{Store: Store{name, name + ":1"}, db: newStore(t)}, &atomic.Pointer[stream.Receiver]{}
	k.restart(recv)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /in", func(w http.ResponseWriter, r *http.Request) { recv.Load().ServeHTTP(w, r) })
	mux.Handle("/ask/", http.StripPrefix("/ask", Serve(k.db, quiet)))
	srv := httptest.NewUnstartedServer(k.gate(mux))
	srv.Config.ErrorLog = slog.NewLogLogger(quiet.Handler(), slog.LevelDebug)
	srv.Start()
	t.Cleanup(srv.Close)
	k.url = srv.URL
	return k, recv
}

// site is a server, its further stores by name, and one store that got everything.
type site struct {
	t     *testing.T
	mu    sync.Mutex
	there []Store
	kept  map[string]*keeper
	recv  map[string]*atomic.Pointer[stream.Receiver]
	whole *store.Store
	dir   string

	own    *store.Store // the server's
	in     *store.Inlet
	ref    *store.Inlet
	sender *Sender
	fan    *Fan
	forget time.Duration // see Config
	keep   time.Duration // Config.Retention
	full   atomic.Bool
	held   atomic.Bool
	stop   func()
}

func (s *site) stores(context.Context) []Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.there)
}

func (s *site) set(names ...string) {
	s.mu.Lock()
	s.there = nil
	for _, n := range names {
		s.there = append(s.there, s.kept[n].Store)
	}
	s.mu.Unlock()
	until(s.t, fmt.Sprintf("the stores are %v", names), func() bool { return len(s.sender.Stores()) == len(names) })
}

func newSite(t *testing.T, keepers ...string) *site {
	s := &site{t: t, kept: map[string]*keeper{}, recv: map[string]*atomic.Pointer[stream.Receiver]{}, whole: newStore(t), own: newStore(t), dir: t.TempDir(), forget: -1, keep: time.Hour}
	for _, k := range keepers {
		s.kept[k], s.recv[k] = newKeeper(t, k)
	}
	s.in, s.ref = s.own.Inlet("test"), s.whole.Inlet("test")
	s.start(NoGap())
	t.Cleanup(func() { s.stop() })
	return s
}

// goes runs until the end of the test, or until stop.
func goes(t testing.TB, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

func fast(c stream.ForwardConfig) stream.ForwardConfig {
	c.Interval, c.Retry, c.RetryMax, c.Batch = 50*time.Millisecond, 50*time.Millisecond, 100*time.Millisecond, 100
	return c
}

// start begins as the daemon does.
func (s *site) start(lost Gap) {
	s.t.Helper()
	cfg := Default()
	cfg.Look, cfg.Forget, cfg.WAL, cfg.Dir, cfg.Lost, cfg.Retention, cfg.Forward = 50*time.Millisecond, s.forget, s.own.Dir(), s.dir, lost, s.keep, fast(cfg.Forward)
	sender, err := NewSender(cfg, Parts{Stores: s.stores, Full: s.full.Load,
		Hold: func(on bool) { s.held.Store(on); s.own.HoldWAL(on) },
		To:   func(x Store) (string, *http.Client) { return s.kept[x.Name].url + "/in", &http.Client{} }}, quiet, prometheus.NewRegistry())
	if err != nil {
		s.t.Fatal(err)
	}
	limits := DefaultLimits()
	limits.Look, limits.Timeout = 100*time.Millisecond, 20*time.Second
	fan, err := NewFan(limits, FanParts{Own: s.own, Gap: sender.Gap, Stores: sender.Stores,
		At: func(x Store) (string, *http.Client) { return s.kept[x.Name].url + "/ask", &http.Client{} }}, quiet, prometheus.NewRegistry())
	if err != nil {
		s.t.Fatal(err)
	}
	s.sender, s.fan = sender, fan
	stops := []func(){goes(s.t, sender.Run), goes(s.t, fan.Run)}
	s.stop = func() {
		for _, f := range stops {
			f()
		}
	}
}

// restart ends the server as a kill does and starts it again.
func (s *site) restart() {
	s.stop()
	s.start(NoGap())
}

// loseDisk has the server begin with an empty store.
func (s *site) loseDisk() {
	s.stop()
	s.own = newStore(s.t)
	s.in = s.own.Inlet("test")
	s.start(GapOf(s.own.MaxTime(), s.own.Repaired(), time.Now()))
}

// write has the server store samples of some of its series.
func (s *site) write(random *rand.Rand, at int64) {
	s.t.Helper()
	var batch store.Batch
	for i := range 60 {
		if random.IntN(4) == 0 {
			continue
		}
		l := labels.FromStrings("__name__", fmt.Sprint("m_", i%7), "i", fmt.Sprint(i), "node", fmt.Sprint("n", i%3))
		if i%10 == 0 {
			batch.Histograms = append(batch.Histograms, store.Histogram{ID: uint64(i + 1), Labels: l, T: at, H: tsdbutil.GenerateTestHistogram(at % 1000)})
			continue
		}
		batch.Samples = append(batch.Samples, store.Sample{ID: uint64(i + 1), Labels: l, T: at, V: float64(random.IntN(1000))})
	}
	for _, in := range []*store.Inlet{s.in, s.ref} {
		if done, err := in.AppendAll(s.t.Context(), batch); err != nil || done.Refused > 0 {
			s.t.Fatal(done, err)
		}
	}
}

// copied waits until each sample is in one of the further stores, and tells of one
// that is in two, or where it does not belong.
func (s *site) copied(what string) {
	s.t.Helper()
	until(s.t, what, func() bool {
		want, _ := all(s.t, s.whole) // first: what is written meanwhile may be copied already
		seen := map[string]string{}
		for name, k := range s.kept {
			got, _ := all(s.t, k.db)
			for l, list := range got {
				for _, x := range list {
					if other := seen[l+x]; other != "" {
						s.t.Fatalf("%s: %s %s is in %s and %s", what, l, x, other, name)
					}
					seen[l+x] = name
				}
			}
		}
		for l, list := range want {
			for _, x := range list {
				if seen[l+x] == "" {
					return false
				}
			}
		}
		return true
	})
}

// same wants the server to answer as if nothing had happened.
func (s *site) same(what string) {
	s.t.Helper()
	want, _ := all(s.t, s.whole)
	if got, warning := all(s.t, s.fan); !reflect.DeepEqual(got, want) || warning != "" {
		s.t.Fatalf("%s: got %d series, want %d, warned %q", what, len(got), len(want), warning)
	}
	// The same by chunks, as another Prometheus reads it.
	chunks, err := s.fan.ChunkQuerier(0, math.MaxInt64/2)
	if err != nil {
		s.t.Fatal(err)
	}
	defer chunks.Close()
	set := storage.NewSeriesSetFromChunkSeriesSet(chunks.Select(s.t.Context(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+")))
	n := 0
	for set.Next() {
		n++
		got := texts(set.At())
		if l := set.At().Labels().String(); !slices.Equal(got, want[l]) {
			s.t.Fatalf("%s: by chunks %s is %v, want %v", what, l, got, want[l])
		}
	}
	if set.Err() != nil || n != len(want) {
		s.t.Fatalf("%s: by chunks %d series, want %d (%v)", what, n, len(want), set.Err())
	}
}

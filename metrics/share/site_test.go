package share

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
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

	"perch/metrics/store"
	"perch/metrics/stream"
)

var quiet = slog.New(slog.DiscardHandler)

func newStore(t testing.TB) *store.Store {
	t.Helper()
	cfg := store.Default()
	cfg.Dir, cfg.StripeSize, cfg.Exemplars = t.TempDir(), 64, 0
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
		for it := set.At().Iterator(nil); it.Next() == chunkenc.ValFloat; {
			at, v := it.At()
			out[l] = append(out[l], fmt.Sprintf("%g@%d", v, at))
		}
	}
	if err := set.Err(); err != nil {
		t.Fatal(err)
	}
	w, _ := set.Warnings().AsStrings("", 0, 0)
	return out, strings.Join(w, "; ")
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

// keeper is a store of a node and its doors.
type keeper struct {
	Store
	db   *store.Store
	recv *stream.Receiver
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

func newKeeper(t testing.TB, name string, server bool) *keeper {
	k := &keeper{Store: Store{name, name + ":1", server}, db: newStore(t)}
	cfg := stream.DefaultReceiver()
	cfg.NodeOf = func(r *http.Request) (string, error) { return strings.TrimPrefix(r.URL.Path, "/from/"), nil }
	k.recv = stream.NewReceiver("nodes", cfg, k.db, quiet, nil)
	plain := stream.NewReceiver("plain", stream.DefaultReceiver(), k.db, quiet, nil)
	mux := http.NewServeMux()
	mux.Handle("POST /from/", k.recv)
	mux.Handle("POST /plain", plain)
	mux.Handle("/ask/", http.StripPrefix("/ask", Serve(k.db, k.recv.Newest, quiet)))
	srv := httptest.NewUnstartedServer(k.gate(mux))
	srv.Config.ErrorLog = slog.NewLogLogger(quiet.Handler(), slog.LevelDebug)
	srv.Start()
	t.Cleanup(srv.Close)
	k.url = srv.URL
	return k
}

// site is a cluster: stores by name, nodes that send, and one store that got
// everything at once.
type site struct {
	t     *testing.T
	mu    sync.Mutex
	there []Store
	kept  map[string]*keeper
	fan   *Fan
	whole *store.Store
	nodes map[string]*sending
}

// sending is a node and its own samples.
type sending struct {
	name   string
	buffer *store.Store
	in     *store.Inlet
	ref    *store.Inlet
	dir    string
	stop   func()
	sender atomic.Pointer[Sender]
}

func (s *site) stores(context.Context) []Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.there)
}

func (s *site) set(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.there = nil
	for _, n := range names {
		s.there = append(s.there, s.kept[n].Store)
	}
}

const server = "s"

func newSite(t *testing.T, keepers, nodes []string) *site {
	s := &site{t: t, kept: map[string]*keeper{}, nodes: map[string]*sending{}, whole: newStore(t)}
	for _, k := range append([]string{server}, keepers...) {
		s.kept[k] = newKeeper(t, k, k == server)
	}
	// The server's own database, with what nodes sent before there were others.
	for _, n := range append([]string{server}, nodes...) {
		b := newStore(t)
		if n == server {
			b = s.kept[server].db
		}
		s.nodes[n] = &sending{name: n, buffer: b, in: b.Inlet("test"), ref: s.whole.Inlet("test"), dir: t.TempDir()}
	}
	limits := DefaultLimits()
	limits.Look, limits.Timeout = 100*time.Millisecond, 20*time.Second
	var err error
	s.fan, err = NewFan(limits, FanParts{Own: s.kept[server].db,
		Stores: func() []Store { return s.nodes[server].sender.Load().Stores() },
		At:     func(x Store) (string, *http.Client) { return s.kept[x.Name].url + "/ask", &http.Client{} },
		Newest: s.kept[server].recv.Newest}, quiet, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range s.nodes {
		s.start(n)
	}
	t.Cleanup(func() {
		for _, n := range s.nodes {
			n.stop()
		}
	})
	goes(t, s.fan.Run)
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

// start begins to send what a node has, as the daemon does.
func (s *site) start(n *sending) {
	cfg := Default()
	cfg.Look, cfg.Forget, cfg.WAL, cfg.Dir, cfg.Forward = 50*time.Millisecond, -1, n.buffer.Dir(), n.dir, fast(cfg.Forward)
	parts := Parts{Stores: s.stores, Hold: n.buffer.HoldWAL}
	if n.name == server {
		cfg.Self = server
		parts.To = func(x Store) (string, *http.Client) { return s.kept[x.Name].url + "/plain", &http.Client{} }
		parts.First = func() error {
			if _, beside := s.fan.now(); beside == nil {
				b := newStore(s.t)
				s.kept[server].recv.Into(b)
				s.fan.Beside(b)
			}
			return nil
		}
	} else {
		parts.To = func(x Store) (string, *http.Client) { return s.kept[x.Name].url + "/from/" + n.name, &http.Client{} }
	}
	sender, err := NewSender(cfg, parts, quiet, prometheus.NewRegistry())
	if err != nil {
		s.t.Fatal(err)
	}
	n.sender.Store(sender)
	stops := []func(){goes(s.t, sender.Run)}
	if n.name != server {
		to := fast(stream.DefaultForward(filepath.Join(n.dir, "sent")))
		to.Pick = sender.PickServer()
		f, err := stream.NewForwarder(to, n.buffer.Dir(), stream.NewClient("server", stream.ClientConfig{URL: s.kept[server].url + "/from/" + n.name}, &http.Client{}, nil), quiet, nil)
		if err != nil {
			s.t.Fatal(err)
		}
		stops = append(stops, goes(s.t, f.Run))
	}
	n.stop = func() {
		for _, f := range stops {
			f()
		}
	}
}

// write has a node make samples of some of its series.
func (s *site) write(n *sending, random *rand.Rand, at int64) {
	s.t.Helper()
	var own, decorated []store.Sample
	for i := range 30 {
		if random.IntN(4) == 0 {
			continue
		}
		// The server tells of other nodes; what workers say of nodes is theirs.
		l := labels.FromStrings("__name__", fmt.Sprint("m_", i%7), "i", fmt.Sprint(i), "from", n.name, "node", fmt.Sprint("n", i%3))
		x := store.Sample{ID: uint64(i + 1), Labels: l, T: at, V: float64(random.IntN(1000))}
		own = append(own, x)
		if n.name != server {
			x.Labels = labels.NewBuilder(l).Set("node", n.name).Labels()
		}
		decorated = append(decorated, x)
	}
	for _, w := range []struct {
		in    *store.Inlet
		batch []store.Sample
	}{{n.in, own}, {n.ref, decorated}} {
		if done, err := w.in.Append(s.t.Context(), w.batch); err != nil || done.Refused > 0 {
			s.t.Fatal(done, err)
		}
	}
}

// same waits until all stores together have what the one has.
func (s *site) same(what string) {
	s.t.Helper()
	want, _ := all(s.t, s.whole)
	until(s.t, what, func() bool {
		got, warning := all(s.t, s.fan)
		return reflect.DeepEqual(got, want) && warning == ""
	})
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
		var got []string
		for it := set.At().Iterator(nil); it.Next() == chunkenc.ValFloat; {
			at, v := it.At()
			got = append(got, fmt.Sprintf("%g@%d", v, at))
		}
		if l := set.At().Labels().String(); !slices.Equal(got, want[l]) {
			s.t.Fatalf("%s: by chunks %s is %v, want %v", what, l, got, want[l])
		}
	}
	if set.Err() != nil || n != len(want) {
		s.t.Fatalf("%s: by chunks %d series, want %d (%v)", what, n, len(want), set.Err())
	}
}

// copies counts in how many stores each sample is.
func (s *site) copies() map[string]int {
	out := map[string]int{}
	add := func(dbs ...storage.Queryable) {
		mine := map[string]bool{}
		for _, db := range dbs {
			got, _ := all(s.t, db)
			for l, list := range got {
				for _, x := range list {
					mine[l+x] = true
				}
			}
		}
		for x := range mine {
			out[x]++
		}
	}
	for name, k := range s.kept {
		if _, beside := s.fan.now(); name == server && beside != nil {
			add(k.db, beside)
			continue
		}
		add(k.db)
	}
	return out
}

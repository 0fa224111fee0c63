package share

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"perch/metrics/store"
)

// TestEachSampleHasACopy is the promise: whatever further stores come, go, are away
// and return, and however often server and stores restart, each sample of the
// server is in one of them, once; and when the server loses its disk, it answers
// with what it had.
func TestEachSampleHasACopy(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 7))
			s := newSite(t, "b", "c")
			at := time.Now().UnixMilli() - 30*60_000
			write := func(rounds int) {
				for range rounds {
					at += 1000
					s.write(random, at)
				}
			}
			write(5)
			s.same("without others")
			s.set("b")
			write(5)
			s.copied("the first store gets what was there before it")
			s.set("b", "c")
			write(5)
			s.copied("with two stores")
			for step := range 12 {
				k := s.kept[[]string{"b", "c"}[random.IntN(2)]]
				switch random.IntN(4) {
				case 0, 1:
					k.away.Store(!k.away.Load())
				case 2:
					s.stop()
					write(1)
					s.start(NoGap())
				case 3:
					k.restart(s.recv[k.Name])
				}
				write(3)
				s.same(fmt.Sprintf("step %d: who is away is not missed", step))
			}
			for _, k := range s.kept {
				k.away.Store(false)
			}
			s.copied("all are back")
			until(t, "nothing is kept for them any more", func() bool { return !s.held.Load() })

			// One goes for good, and comes again.
			s.set("b")
			write(5)
			s.copied("one went")
			s.set("b", "c")
			write(5)
			s.copied("it came again")

			s.loseDisk()
			until(t, "the others are asked", func() bool { return len(s.fan.away()) == 0 })
			s.same("without its disk")
			at = time.Now().UnixMilli() + 1000
			write(5)
			s.same("and with what came after")
			s.copied("which is copied too")
			s.restart()
			until(t, "the others are asked", func() bool { return len(s.fan.away()) == 0 })
			s.same("after a restart")
		})
	}
}

func TestAnAnswerWithoutAStoreThatMayHaveWhatTheServerLostSaysSo(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	s := newSite(t, "b", "c")
	s.set("b", "c")
	at := time.Now().UnixMilli() - 60_000
	for k := range 5 {
		s.write(random, at+int64(k))
	}
	s.copied("all are well")
	s.kept["b"].away.Store(true)
	until(t, "b is known to be away", func() bool { return slices.Equal(s.fan.away(), []string{"b"}) })
	s.same("b is not missed as long as the server has all")

	s.loseDisk()
	until(t, "c is asked", func() bool { return slices.Equal(s.fan.away(), []string{"b"}) })
	want, _ := all(t, s.whole)
	got, warning := all(t, s.fan)
	if !strings.HasPrefix(warning, "partial answer: ") || !strings.HasSuffix(warning, ": b") {
		t.Errorf("warning is %q", warning)
	}
	if len(got) == 0 || len(got) >= len(want) {
		t.Errorf("c alone has %d of %d series", len(got), len(want))
	}
	q, err := s.fan.Querier(0, math.MaxInt64/2)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if _, w, err := q.LabelValues(t.Context(), "i", nil); err != nil || len(w) != 1 {
		t.Errorf("values of a label: %v %v", w, err)
	}
	s.set("c")
	if _, warning := all(t, s.fan); !strings.HasSuffix(warning, ": b") {
		t.Errorf("when b lost its place the warning is %q", warning)
	}
	s.set("b", "c")
	// What the server has itself is whole.
	now := time.Now().UnixMilli() + 1
	s.write(random, now)
	for about, hints := range map[string]*storage.SelectHints{"a query": nil, "a selector of a longer query": {Start: now, End: now + 1}} {
		from := now
		if hints != nil {
			from = 0
		}
		q, err := s.fan.Querier(from, now+1)
		if err != nil {
			t.Fatal(err)
		}
		set := q.Select(t.Context(), true, hints, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
		n := 0
		for set.Next() {
			n++
		}
		if set.Err() != nil || len(set.Warnings()) > 0 || n == 0 {
			t.Errorf("%s of after the loss: %d series, %v %v", about, n, set.Warnings(), set.Err())
		}
		_ = q.Close()
	}
	s.kept["b"].away.Store(false)
	until(t, "b is back", func() bool { return len(s.fan.away()) == 0 })
	s.same("all are back")
}

func TestALossIsForgottenWithTheRetention(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	s := newSite(t, "b", "c")
	s.set("b", "c")
	for k := range 5 {
		s.write(random, time.Now().UnixMilli()-60_000+int64(k))
	}
	s.copied("all are well")
	s.loseDisk()
	until(t, "b and c are asked", func() bool { return len(s.fan.away()) == 0 })
	s.kept["b"].away.Store(true)
	s.set("c")
	until(t, "b is known to be away", func() bool { return slices.Equal(s.fan.away(), []string{"b"}) })
	if _, warning := all(t, s.fan); !strings.HasSuffix(warning, ": b") {
		t.Errorf("before, the warning is %q", warning)
	}
	if _, err := s.sender.history.became(s.sender.history.seen(), NoGap(), time.Now()); err != nil {
		t.Fatal(err)
	}
	until(t, "nobody is asked for what is too old", func() bool { return len(s.fan.away()) == 0 })
	s.stop()
	s.start(Gap{math.MinInt64, time.Now().Add(-s.keep).UnixMilli()})
	until(t, "what is lost is too old", func() bool { return s.sender.Gap() == NoGap() })
	s.restart()
	if gap := s.sender.Gap(); gap != NoGap() {
		t.Errorf("after the next start the gap is %v", gap)
	}
}

func TestNobodyIsAskedWhatTheServerHas(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	s := newSite(t, "b")
	s.loseDisk() // as a first start: nothing was there
	s.set("b")
	for k := range 5 {
		s.write(random, time.Now().UnixMilli()+int64(k))
	}
	s.copied("all are well")
	until(t, "b is asked what it has", func() bool {
		peers := s.fan.now()
		return len(peers) == 1 && peers[0].view().Known && peers[0].view().Oldest < math.MaxInt64
	})
	s.kept["b"].away.Store(true)
	s.same("a young server")
	q, err := s.fan.Querier(0, math.MaxInt64/2)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if _, others := q.(querier); others {
		t.Error("a store that is younger than the server may be asked")
	}
}

func TestTheLogIsKeptForWhoIsAwayUnlessTheServerIsFull(t *testing.T) {
	random := rand.New(rand.NewPCG(8, 9))
	s := newSite(t, "b")
	s.forget = time.Hour
	s.restart()
	s.set("b")
	s.kept["b"].away.Store(true)
	s.write(random, time.Now().UnixMilli())
	until(t, "it is kept", s.held.Load)
	stands := func(behind, away bool) func() bool {
		return func() bool {
			all := s.sender.Standings(time.Now())
			return len(all) == 1 && all[0].Name == "b" && (all[0].Behind > time.Second) == behind && !all[0].Until.IsZero() == away
		}
	}
	until(t, "it is told that b is behind", stands(true, false))
	there := s.stores(t.Context())
	s.mu.Lock()
	s.there = nil
	s.mu.Unlock()
	until(t, "it is told that b is away", stands(true, true))
	s.mu.Lock()
	s.there = there
	s.mu.Unlock()
	until(t, "it is told that b is there", stands(true, false))
	s.full.Store(true)
	until(t, "it is not kept", func() bool { return !s.held.Load() })
	s.full.Store(false)
	until(t, "it is kept again", s.held.Load)
	s.kept["b"].away.Store(false)
	until(t, "it need not be kept", func() bool { return !s.held.Load() })
	s.copied("b is back")
	until(t, "it is told that b is not behind", func() bool {
		s.write(random, time.Now().UnixMilli())
		return stands(false, false)()
	})
}

func TestLabelsOfAllStoresAndNoneTwice(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	s := newSite(t, "b", "c")
	s.set("b", "c")
	for k := range 5 {
		s.write(random, time.Now().UnixMilli()-60_000+int64(k))
	}
	s.copied("all are there")
	s.loseDisk()
	until(t, "the others are asked", func() bool { return len(s.fan.away()) == 0 })
	s.write(random, time.Now().UnixMilli()+1)
	ask := func(db storage.Queryable, limit int, ms ...*labels.Matcher) (values, names []string) {
		q, err := db.Querier(0, math.MaxInt64/2)
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		hints := &storage.LabelHints{Limit: limit}
		values, _, err = q.LabelValues(t.Context(), "i", hints, ms...)
		if err != nil {
			t.Fatal(err)
		}
		names, _, err = q.LabelNames(t.Context(), hints, ms...)
		if err != nil {
			t.Fatal(err)
		}
		return values, names
	}
	for _, ms := range [][]*labels.Matcher{nil, {labels.MustNewMatcher(labels.MatchRegexp, "__name__", "m_[12]")},
		{labels.MustNewMatcher(labels.MatchRegexp, "node", "|n1")}, {labels.MustNewMatcher(labels.MatchEqual, "node", "n2")}} {
		values, names := ask(s.fan, 0, ms...)
		wantValues, wantNames := ask(s.whole, 0, ms...)
		if !slices.Equal(values, wantValues) || !slices.Equal(names, wantNames) {
			t.Errorf("%v: got %v and %v, want %v and %v", ms, values, names, wantValues, wantNames)
		}
	}
	if values, _ := ask(s.fan, 3); len(values) != 3 {
		t.Errorf("three of the values are %v", values)
	}
}

func TestAStoreThatAnswersBadlyIsAwayAndTheAnswerComes(t *testing.T) {
	much := newStore(t)
	var batch []store.Sample
	for i := range 1000 {
		batch = append(batch, store.Sample{Labels: series(i), T: 1000, V: 1})
	}
	if _, err := much.Inlet("test").Append(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	for about, answer := range map[string]http.HandlerFunc{
		"it has more than is taken": Serve(much, quiet).ServeHTTP,
		"it never answers": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // only then the server sees that nobody waits
			<-r.Context().Done()
		},
		"it sends nothing without end": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse")
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		},
		"it sends no series": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse")
			_, _ = w.Write([]byte("an error at this place"))
		},
		"it refuses": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) },
	} {
		t.Run(about, func(t *testing.T) {
			mux := http.NewServeMux()
			mux.HandleFunc("POST /read", answer)
			mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"oldest":0}`)) })
			// Its requests end with the test, whatever the handler has seen.
			ctx, end := context.WithCancel(t.Context())
			srv := httptest.NewUnstartedServer(mux)
			srv.Config.BaseContext = func(net.Listener) context.Context { return ctx }
			srv.Config.ErrorLog = slog.NewLogLogger(quiet.Handler(), slog.LevelDebug)
			srv.Start()
			defer srv.Close()
			defer end()
			own := newStore(t)
			if _, err := own.Inlet("test").Append(t.Context(), []store.Sample{{1, series(1), 1000, 1}}); err != nil {
				t.Fatal(err)
			}
			f, err := NewFan(Limits{Timeout: 300 * time.Millisecond, Bytes: 8 << 10, AtOnce: 1, Look: time.Hour}, FanParts{Own: own, Gap: func() Gap { return Gap{0, 1 << 50} },
				Stores: func() []Store { return []Store{{"b", "b:1"}, {"c", "c:1"}} },
				At:     func(Store) (string, *http.Client) { return srv.URL, &http.Client{} }}, quiet, prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			until(t, "both are there", func() bool { f.look(t.Context()); return len(f.away()) == 0 })
			close(f.looked)
			got, warning := all(t, f)
			away := 2
			switch about {
			case "it has more than is taken":
				away = 0 // that may be this question's fault
			case "it never answers":
				if len(f.away()) != 0 {
					t.Error("away for one answer that is late")
				}
				all(t, f)
				all(t, f)
			}
			if len(got) != 1 || !strings.Contains(warning, "b, c") || len(f.away()) != away {
				t.Errorf("got %v, warned %q, away are %v", got, warning, f.away())
			}
		})
	}
}

// torn is a store whose disk fails after some series.
type torn struct{ *store.Store }

type tornQuerier struct{ storage.ChunkQuerier }

type tornSet struct {
	storage.ChunkSeriesSet
	left int
}

func (s torn) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	q, err := s.Store.ChunkQuerier(mint, maxt)
	return tornQuerier{q}, err
}

func (q tornQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.ChunkSeriesSet {
	return &tornSet{q.ChunkQuerier.Select(ctx, sorted, hints, ms...), 2}
}

func (s *tornSet) Next() bool { s.left--; return s.left >= 0 && s.ChunkSeriesSet.Next() }
func (s *tornSet) Err() error { return errors.New("the disk fails") }

func TestAnAnswerThatFailsOnTheWayIsCutOffAndTheStoreSaysWhy(t *testing.T) {
	db := newStore(t)
	for i := range 5 {
		if _, err := db.Inlet("test").Append(t.Context(), []store.Sample{{Labels: series(i), T: 1000, V: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	var said strings.Builder
	srv := httptest.NewServer(Serve(torn{db}, slog.New(slog.NewTextHandler(&said, nil))))
	p, err := newPeer(Store{"b", "b:1"}, srv.URL, srv.Client(), DefaultLimits(), func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.list(t.Context(), 0, 2000, nil, []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+")})
	srv.Close() // and what it said is said
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(said.String(), "the disk fails") {
		t.Errorf("got %v; the store said %q", err, said.String())
	}
}

package share

import (
	"context"
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

// TestSeveralStoresAreAsOne is the promise: whatever stores come, go, are away
// and return, and whatever senders restart, all of them together are what one
// large store is; and no sample is in more than two.
func TestSeveralStoresAreAsOne(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 7))
			s := newSite(t, []string{"b", "c"}, []string{"b", "c", "d"})
			at := time.Now().UnixMilli() - 30*60_000
			var before int64
			write := func(rounds int) {
				for range rounds {
					at += 1000
					for _, n := range s.nodes {
						s.write(n, random, at)
					}
				}
			}
			knows := func(want int) {
				until(t, fmt.Sprintf("all know %d stores", want), func() bool {
					for _, n := range s.nodes {
						if len(n.sender.Load().Stores()) != want {
							return false
						}
					}
					return true
				})
			}
			write(5)
			s.same("with the server only")
			if _, beside := s.fan.now(); beside != nil {
				t.Fatal("one store needed a second database")
			}
			before = at
			s.set(server, "b", "c")
			knows(3)
			first := at
			write(5)
			s.same("with three stores")

			away := ""
			for step := range 8 {
				switch random.IntN(4) {
				case 0:
					if away == "" {
						away = []string{"b", "c"}[random.IntN(2)]
						s.kept[away].away.Store(true)
					}
				case 1:
					if away != "" {
						s.kept[away].away.Store(false)
						away = ""
					}
				case 2: // a sender ends as killed and starts again
					n := s.nodes[[]string{"b", "c", "d", server}[random.IntN(4)]]
					n.stop()
					write(1)
					s.start(n)
				case 3: // everybody who receives forgets who sends
					for _, k := range s.kept {
						if _, beside := s.fan.now(); k.Server {
							k.recv.Into(beside)
						} else {
							k.recv.Into(k.db)
						}
					}
				}
				write(3)
				s.same(fmt.Sprintf("step %d, %q away", step, away))
			}
			if away != "" {
				s.kept[away].away.Store(false)
			}
			s.same("all are back")
			until(t, "every sample is in two stores", func() bool {
				for x, n := range s.copies() {
					var v float64
					var ms int64
					if _, err := fmt.Sscanf(x[strings.LastIndex(x, "}")+1:], "%g@%d", &v, &ms); err != nil {
						t.Fatal(x, err)
					}
					switch {
					case n > Replication:
						t.Fatalf("%s is in %d stores", x, n)
					case ms > first && n < Replication:
						return false
					case ms <= before && n != 1:
						t.Fatalf("%s is of before and in %d stores", x, n)
					}
				}
				return true
			})

			// One goes for good.
			s.set(server, "b")
			knows(2)
			gone := at
			write(5)
			s.same("one went for good")
			until(t, "its successor has its part", func() bool {
				for x, n := range s.copies() {
					ms := x[strings.LastIndex(x, "@")+1:]
					if n > Replication {
						t.Fatalf("%s is in %d stores", x, n)
					} else if ms > fmt.Sprint(gone) && n < Replication {
						return false
					}
				}
				return true
			})
		})
	}
}

func TestAnAnswerWithoutTwoStoresSaysSo(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	s := newSite(t, []string{"b", "c"}, []string{"d"})
	s.set(server, "b", "c")
	until(t, "all know the stores", func() bool {
		return len(s.nodes["d"].sender.Load().Stores()) == 3 && len(s.nodes[server].sender.Load().Stores()) == 3
	})
	at := time.Now().UnixMilli()
	for k := range 5 {
		s.write(s.nodes["d"], random, at+int64(k))
	}
	s.same("all are well")
	missing := func() string {
		nodes, several := s.fan.Missing([]string{"d"}, time.Now(), time.Hour)
		if !several {
			t.Fatal("the server is alone")
		}
		return strings.Join(nodes, " ")
	}
	until(t, "all stores are known to have something of d", func() bool {
		peers, _ := s.fan.now()
		for _, p := range peers {
			if p.view().Newest["d"].IsZero() {
				return false
			}
		}
		return len(peers) == 2 && missing() == ""
	})
	s.kept["b"].away.Store(true)
	s.same("one is away")
	if m := missing(); m != "" {
		t.Errorf("with one away %s is missing", m)
	}
	s.kept["c"].away.Store(true)
	got, warning := all(t, s.fan)
	if !strings.Contains(warning, "partial answer") || !strings.Contains(warning, "b, c") {
		t.Errorf("warning is %q", warning)
	}
	if want, _ := all(t, s.whole); len(got) == 0 || len(got) >= len(want) {
		t.Errorf("the server alone has %d of %d series", len(got), len(want))
	}
	if m := missing(); m != "d" {
		t.Errorf("with two away %q is missing", m)
	}
	q, err := s.fan.Querier(0, math.MaxInt64/2)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if _, w, err := q.LabelValues(t.Context(), "i", nil); err != nil || len(w) != 1 {
		t.Errorf("values of a label: %v %v", w, err)
	}
	s.kept["b"].away.Store(false)
	s.kept["c"].away.Store(false)
	s.same("all are back")
	until(t, "nobody is missing", func() bool { return missing() == "" })
	// Of a node that it never heard, and of one that is behind.
	if nodes, _ := s.fan.Missing([]string{"d", "e"}, time.Now(), time.Hour); !slices.Equal(nodes, []string{"e"}) {
		t.Errorf("missing are %v", nodes)
	}
	if nodes, _ := s.fan.Missing([]string{"d"}, time.Now().Add(time.Hour), time.Minute); !slices.Equal(nodes, []string{"d"}) {
		t.Errorf("missing are %v", nodes)
	}
}

func TestLabelsOfAllStoresAndNoneTwice(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	s := newSite(t, []string{"b", "c"}, []string{"d"})
	s.set(server, "b", "c")
	until(t, "all know the stores", func() bool {
		return len(s.nodes["d"].sender.Load().Stores()) == 3 && len(s.nodes[server].sender.Load().Stores()) == 3
	})
	for k := range 5 {
		s.write(s.nodes["d"], random, time.Now().UnixMilli()+int64(k))
	}
	s.same("all are there")
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
		{labels.MustNewMatcher(labels.MatchRegexp, "namespace", "|a")}, {labels.MustNewMatcher(labels.MatchEqual, "namespace", "a")}} {
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
		"it has more than is taken": Serve(much, nil, quiet).ServeHTTP,
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
			mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"newest":{}}`)) })
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
			f, err := NewFan(Limits{Timeout: 300 * time.Millisecond, Bytes: 8 << 10, AtOnce: 1, Look: time.Hour}, FanParts{Own: own,
				Stores: func() []Store { return []Store{{"s", "s:1", true}, {"b", "b:1", false}, {"c", "c:1", false}} },
				At:     func(Store) (string, *http.Client) { return srv.URL, &http.Client{} },
				Newest: func() map[string]time.Time { return nil }}, quiet, prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			if err := f.follow(); err != nil {
				t.Fatal(err)
			}
			f.look(t.Context())
			if a := f.away(); len(a) > 0 {
				t.Fatalf("%v are away", a)
			}
			got, warning := all(t, f)
			if len(got) != 1 || !strings.Contains(warning, "b, c") || len(f.away()) != 2 {
				t.Errorf("got %v, warned %q, away are %v", got, warning, f.away())
			}
		})
	}
}

package promapi

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
)

// turns lets a bounded number of queries run; the others wait for theirs until
// their own timeout. Those that come over HTTP leave ownTurns to rules and
// autoscalers, which must not wait for dashboards; and of these, what a namespace's
// rules and autoscalers ask runs one at a time and leaves a turn to the cluster's, which
// must not wait for theirs. It is the engine's query tracker.
type turns struct {
	slots   chan struct{}
	asked   chan struct{} // of slots, those of HTTP
	spaced  chan struct{} // of slots, those of namespaces
	others  chan struct{} // of slots, both: one is left
	waiting prometheus.Gauge

	mu     sync.Mutex        // guards what follows
	spaces map[string]*space // whose queries run or wait
	held   map[int]*space    // by turn
	last   int
}

// space is a namespace that asks.
type space struct {
	name  string
	turn  chan struct{}
	users int
}

const (
	ownTurns    = 2
	spacedTurns = 2
)

// askedKey marks the context of a query that came over HTTP: true, or false when
// perch itself asks.
type askedKey struct{}

// WithOwnTurn is for requests that perch's own parts make over HTTP, autoscalers
// among them: they do not wait for those of others.
func WithOwnTurn(ctx context.Context) context.Context {
	return context.WithValue(ctx, askedKey{}, false)
}

func asked(ctx context.Context) bool {
	yes, _ := ctx.Value(askedKey{}).(bool)
	return yes
}

func newTurns(n int, reg prometheus.Registerer) *turns {
	t := &turns{slots: make(chan struct{}, n), asked: make(chan struct{}, max(1, n-ownTurns)), spaced: make(chan struct{}, spacedTurns),
		others: make(chan struct{}, max(1, n-1)), spaces: map[string]*space{}, held: map[int]*space{}, last: firstSpaced, waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "perch_promapi_queries_waiting", Help: "Queries that wait because enough others run.",
		})}
	reg.MustRegister(t.waiting, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "perch_promapi_queries_running", Help: "Queries that run now.",
	}, func() float64 { return float64(len(t.slots)) }))
	return t
}

func (t *turns) GetMaxConcurrent() int { return cap(t.slots) }

// Whose turn it is that Delete ends; those of namespaces have numbers from firstSpaced on.
const (
	ownTurn = iota
	askedTurn
	firstSpaced
)

func (t *turns) Insert(ctx context.Context, _ string) (int, error) {
	t.waiting.Inc()
	defer t.waiting.Dec()
	switch a := AccessOf(ctx); {
	case asked(ctx):
		return askedTurn, take(ctx, t.asked, t.others, t.slots)
	case !a.All && len(a.Namespaces) == 1:
		x := t.enter(a.Namespaces[0])
		if err := take(ctx, x.turn, t.spaced, t.others, t.slots); err != nil {
			t.leave(x)
			return 0, err
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.last++
		t.held[t.last] = x
		return t.last, nil
	}
	return ownTurn, take(ctx, t.slots)
}

// take takes a place of each in turn, or none.
func take(ctx context.Context, places ...chan struct{}) error {
	for i, p := range places {
		select {
		case p <- struct{}{}:
		case <-ctx.Done():
			give(places[:i]...)
			return ctx.Err()
		}
	}
	return nil
}

func give(places ...chan struct{}) {
	for _, p := range slices.Backward(places) {
		<-p
	}
}

func (t *turns) enter(name string) *space {
	t.mu.Lock()
	defer t.mu.Unlock()
	x := t.spaces[name]
	if x == nil {
		x = &space{name: name, turn: make(chan struct{}, 1)}
		t.spaces[name] = x
	}
	x.users++
	return x
}

func (t *turns) leave(x *space) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if x.users--; x.users == 0 {
		delete(t.spaces, x.name)
	}
}

func (t *turns) Delete(turn int) {
	switch turn {
	case ownTurn:
		give(t.slots)
	case askedTurn:
		give(t.asked, t.others, t.slots)
	default:
		t.mu.Lock()
		x := t.held[turn]
		delete(t.held, turn)
		t.mu.Unlock()
		give(x.turn, t.spaced, t.others, t.slots)
		t.leave(x)
	}
}

func (t *turns) Close() error { return nil }

// Finished is one query that came over HTTP.
type Finished struct {
	Path   string
	Query  string
	Took   time.Duration
	Status int
}

// logged tells tell about each query once it is answered: those in PromQL, and those
// that name series by selectors (federation, remote read, series, labels).
func logged(tell func(context.Context, Finished), next http.Handler) http.Handler {
	if tell == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began, read := time.Now(), ""
		if r.URL.Path == "/api/v1/read" {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				answerError(w, http.StatusBadRequest, "bad_data", "read body: "+err.Error())
				return
			}
			r.Body, read = io.NopCloser(bytes.NewReader(body)), selectors(body)
		}
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(rec, r)
		q := cmp.Or(r.Form.Get("query"), strings.Join(r.Form["match[]"], " "), read)
		if q != "" || selects(r.URL.Path) {
			tell(r.Context(), Finished{Path: r.URL.Path, Query: q, Took: time.Since(began), Status: rec.status})
		}
	})
}

// selects answers whether a path reads series even without a selector.
func selects(path string) bool {
	switch path {
	case "/federate", "/api/v1/read", "/api/v1/series", "/api/v1/labels":
		return true
	}
	return strings.HasPrefix(path, "/api/v1/label/")
}

// longestSelectors is how much of a remote read's selectors is told.
const longestSelectors = 4 << 10

// selectors are those of a remote read; empty when it is malformed.
func selectors(body []byte) string {
	raw := unpacked(body)
	if raw == nil {
		return ""
	}
	var ask prompb.ReadRequest
	if ask.Unmarshal(raw) != nil {
		return ""
	}
	var out []string
	for _, q := range ask.Queries {
		ms, err := remote.FromLabelMatchers(q.Matchers)
		if err != nil {
			return ""
		}
		var all []string
		for _, m := range ms {
			all = append(all, m.String())
		}
		out = append(out, "{"+strings.Join(all, ",")+"}")
	}
	text := strings.Join(out, " ")
	return text[:min(len(text), longestSelectors)]
}

type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(code int) {
	r.status = code
	r.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

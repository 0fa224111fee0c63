package promapi

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// turns lets a bounded number of queries run; the others wait for theirs until
// their own timeout. Those that come over HTTP leave ownTurns to rules and
// autoscalers, which must not wait for dashboards. It is the engine's query tracker.
type turns struct {
	slots   chan struct{}
	asked   chan struct{} // of slots, those of HTTP
	waiting prometheus.Gauge
}

const ownTurns = 2

// askedKey marks the context of a query that came over HTTP.
type askedKey struct{}

func newTurns(n int, reg prometheus.Registerer) *turns {
	t := &turns{slots: make(chan struct{}, n), asked: make(chan struct{}, max(1, n-ownTurns)), waiting: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "perch_promapi_queries_waiting", Help: "Queries that wait because enough others run.",
	})}
	reg.MustRegister(t.waiting, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "perch_promapi_queries_running", Help: "Queries that run now.",
	}, func() float64 { return float64(len(t.slots)) }))
	return t
}

func (t *turns) GetMaxConcurrent() int { return cap(t.slots) }

// Whose turn it is that Delete ends.
const (
	ownTurn = iota
	askedTurn
)

func (t *turns) Insert(ctx context.Context, _ string) (int, error) {
	t.waiting.Inc()
	defer t.waiting.Dec()
	turn := ownTurn
	if ctx.Value(askedKey{}) != nil {
		turn = askedTurn
		select {
		case t.asked <- struct{}{}:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	select {
	case t.slots <- struct{}{}:
		return turn, nil
	case <-ctx.Done():
		if turn == askedTurn {
			<-t.asked
		}
		return 0, ctx.Err()
	}
}

func (t *turns) Delete(turn int) {
	<-t.slots
	if turn == askedTurn {
		<-t.asked
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

// logged tells tell about each query once it is answered.
func logged(tell func(context.Context, Finished), next http.Handler) http.Handler {
	if tell == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(rec, r)
		if q := r.Form.Get("query"); q != "" {
			tell(r.Context(), Finished{Path: r.URL.Path, Query: q, Took: time.Since(began), Status: rec.status})
		}
	})
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

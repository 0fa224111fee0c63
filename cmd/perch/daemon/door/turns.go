package door

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Limit says how many requests are answered at the same time, because each may need
// much memory.
type Limit struct {
	All, Each int           // of all callers, and of one; requests without a caller are perch's own
	Wait      time.Duration // how long a request waits for its turn
	Exchange  time.Duration // how long a body may take to arrive and an answer to be read: the turn lasts as long
}

// Turns keep a Limit.
type Turns struct {
	limit   Limit
	room    chan struct{}
	waiting prometheus.Gauge
	refused prometheus.Counter

	mu   sync.Mutex
	each map[string]*share // of callers that have a turn or wait for one
}

type share struct {
	room  chan struct{}
	users int
}

// NewTurns makes the turns of one kind of requests, which is the label of their
// metrics.
func NewTurns(kind string, limit Limit, reg prometheus.Registerer) *Turns {
	label := prometheus.Labels{"kind": kind}
	t := &Turns{limit: limit, room: make(chan struct{}, limit.All), each: map[string]*share{},
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_door_turns_waiting", ConstLabels: label,
			Help: "Requests that wait because enough others are being answered."}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_door_turns_refused_total", ConstLabels: label,
			Help: "Requests that were refused because they waited for too long, or whose client left meanwhile."})}
	reg.MustRegister(t.waiting, t.refused, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "perch_door_turns_taken", ConstLabels: label,
		Help: "Requests that are being answered, of those that must wait for a turn."}, func() float64 { return float64(len(t.room)) }))
	return t
}

var errTurn = errors.New("too many of these requests are being answered: try again in a moment, with fewer at once")

// take waits for a turn of the caller and then for one of all.
func (t *Turns) take(ctx context.Context, caller string) (done func(), err error) {
	patience := time.NewTimer(t.limit.Wait)
	defer patience.Stop()
	t.waiting.Inc()
	defer t.waiting.Dec()
	enter := func(room chan struct{}) error {
		select {
		case room <- struct{}{}:
			return nil
		case <-patience.C:
			return errTurn
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	own, leave := t.shareOf(caller)
	if err := enter(own); err != nil {
		leave()
		return nil, err
	}
	if err := enter(t.room); err != nil {
		<-own
		leave()
		return nil, err
	}
	return func() { <-t.room; <-own; leave() }, nil
}

// shareOf is the caller's part of all turns, kept until all who asked for it have left.
func (t *Turns) shareOf(caller string) (room chan struct{}, leave func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.each[caller]
	if s == nil {
		n := t.limit.Each
		if caller == "" {
			n = t.limit.All
		}
		s = &share{room: make(chan struct{}, n)}
		t.each[caller] = s
	}
	s.users++
	return s.room, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if s.users--; s.users == 0 {
			delete(t.each, caller)
		}
	}
}

// Limit has requests to next wait for their turn. One that has waited for too long is
// answered with 503. Those of exempt, if there is such a function, need no turn.
func (t *Turns) Limit(next http.Handler, exempt func(*http.Request) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if exempt != nil && exempt(r) {
			next.ServeHTTP(w, r)
			return
		}
		done, err := t.take(r.Context(), UserOf(r.Context()).Name)
		if err != nil {
			t.refused.Inc()
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Retry-After", "5")
			w.WriteHeader(http.StatusServiceUnavailable)
			_ = json.NewEncoder(w).Encode(map[string]string{"status": "error", "errorType": "unavailable", "error": err.Error()}) // the client is gone if this fails
			return
		}
		defer done()
		c, until := http.NewResponseController(w), time.Now().Add(t.limit.Exchange)
		_ = errors.Join(c.SetReadDeadline(until), c.SetWriteDeadline(until)) // what can have none ends with its client
		next.ServeHTTP(w, r)
	})
}

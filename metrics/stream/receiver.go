package stream

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"

	"perch/metrics/store"
)

// ReceiverConfig bounds what senders may cost.
type ReceiverConfig struct {
	SessionLimit int           // senders at once
	Idle         time.Duration // after which a session is forgotten
	BatchBytes   int64         // of one batch, before decompression
	RawBytes     int           // of one batch, after it

	// NodeOf names the authenticated node that sends; its series then carry
	// that node label whatever they say, so that no node writes series of another;
	// what they say is kept as exported_node. nil keeps labels as they come, for
	// the local socket.
	NodeOf func(*http.Request) (string, error)
}

// DefaultReceiver takes hundreds of nodes.
func DefaultReceiver() ReceiverConfig {
	return ReceiverConfig{SessionLimit: 1000, Idle: 15 * time.Minute, BatchBytes: 16 << 20, RawBytes: 64 << 20}
}

// Receiver commits batches to the store. It is an http.Handler:
//
//	204 committed (now or before), but for what the store refuses, which is counted
//	400 malformed · 403 no node name
//	409 session not known: begin a new one · 413 too large · 500 not stored, try again
type Receiver struct {
	cfg     ReceiverConfig
	store   *store.Store
	log     *slog.Logger
	metrics *receiverMetrics

	mu       sync.Mutex
	sessions map[[sessionLength]byte]*sender
	heard    map[string]time.Time // node → last committed batch
	newest   map[string]int64     // node → newest committed sample, ms
	lagging  map[string]*lagging  // nodes whose newest sample is old
	ahead    map[string]ahead     // nodes of which samples were refused as too far ahead
}

// ahead is how far a node's clock was, and when.
type ahead struct {
	by time.Duration
	at time.Time
}

type sender struct {
	mu    sync.Mutex
	s     session
	inlet *store.Inlet
	node  string
	used  time.Time
}

// NewReceiver makes a receiver; the name labels its metrics: local or nodes.
func NewReceiver(name string, cfg ReceiverConfig, into *store.Store, log *slog.Logger, reg prometheus.Registerer) *Receiver {
	r := &Receiver{
		cfg: cfg, store: into, log: log, metrics: newReceiverMetrics(name, reg),
		sessions: map[[sessionLength]byte]*sender{}, heard: map[string]time.Time{}, newest: map[string]int64{}, lagging: map[string]*lagging{}, ahead: map[string]ahead{},
	}
	if reg != nil {
		reg.MustRegister(clocks{r})
	}
	return r
}

func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set(formHeader, magic2)
	code, err := r.take(w, req)
	if err != nil {
		r.metrics.refused.WithLabelValues(fmt.Sprint(code)).Inc()
		http.Error(w, err.Error(), code)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (r *Receiver) take(w http.ResponseWriter, req *http.Request) (int, error) {
	node := ""
	if r.cfg.NodeOf != nil {
		var err error
		if node, err = r.cfg.NodeOf(req); err != nil {
			return http.StatusForbidden, err
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, r.cfg.BatchBytes))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return http.StatusRequestEntityTooLarge, err
	case err != nil:
		return http.StatusBadRequest, err
	}
	if n, err := s2.DecodedLen(body); err != nil || n > r.cfg.RawBytes {
		return http.StatusRequestEntityTooLarge, fmt.Errorf("%w: decompressed size", errMalformed)
	}
	raw, err := s2.Decode(nil, body)
	if err != nil {
		return http.StatusBadRequest, fmt.Errorf("%w: %w", errMalformed, err)
	}
	h, rest, err := open(raw)
	if err != nil {
		return http.StatusBadRequest, err
	}
	from := r.sender(h, node)
	if from == nil {
		return http.StatusConflict, errSession
	}
	from.mu.Lock()
	defer from.mu.Unlock()
	switch {
	case h.seq == from.s.seq && h.sum == from.s.sum:
		r.metrics.repeats.Inc()
		return 0, nil // the answer was lost, the batch was not
	case h.seq == from.s.seq+1:
	default:
		return http.StatusConflict, errSession
	}
	batch, st, err := rest.decode(&from.s, h, decorate(node))
	if err != nil {
		return http.StatusBadRequest, err
	}
	done, err := from.inlet.AppendAll(req.Context(), batch)
	if err != nil {
		return http.StatusInternalServerError, err
	}
	from.s.commit(st)
	r.metrics.samples.Add(float64(done.Stored))
	r.metrics.skipped.Add(float64(done.Refused))
	r.mu.Lock()
	from.used = time.Now()
	if node != "" {
		r.heard[node] = from.used
	}
	if node != "" && batch.Len() > 0 {
		_, newest := times(batch)
		r.clock(node, newest, done.Ahead > 0, from.used)
	}
	r.mu.Unlock()
	return 0, nil
}

// clock remembers the newest sample of a node, and whether it was too far ahead to be
// stored.
func (r *Receiver) clock(node string, newest int64, tooFar bool, now time.Time) {
	if !tooFar {
		r.newest[node] = max(r.newest[node], newest)
		delete(r.ahead, node)
		return
	}
	by := time.UnixMilli(newest).Sub(now)
	if _, known := r.ahead[node]; !known {
		r.log.Warn("samples of a node refused, its clock is ahead", "node", node, "ahead", by)
	}
	r.ahead[node] = ahead{by, now}
}

// clocks tells of nodes that are ahead, as long as they send.
type clocks struct{ r *Receiver }

func (c clocks) Describe(ch chan<- *prometheus.Desc) { ch <- c.r.metrics.ahead }

func (c clocks) Collect(ch chan<- prometheus.Metric) {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	for node, a := range c.r.ahead {
		if time.Since(a.at) > c.r.cfg.Idle {
			delete(c.r.ahead, node)
			continue
		}
		ch <- prometheus.MustNewConstMetric(c.r.metrics.ahead, prometheus.GaugeValue, a.by.Seconds(), node)
	}
}

// decorate gives series the node that sends them.
func decorate(node string) func(*labels.Builder) {
	if node == "" {
		return nil
	}
	return func(b *labels.Builder) {
		said := b.Get("node")
		b.Set("node", node)
		if said == "" || said == node {
			return
		}
		kept := "exported_node"
		for b.Get(kept) != "" {
			kept = "exported_" + kept
		}
		b.Set(kept, said)
	}
}

// sender finds the session or, at its first batch, makes it; nil when it is
// not known.
func (r *Receiver) sender(h header, node string) *sender {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sessions[h.id]; s != nil {
		if s.node != node {
			return nil
		}
		return s
	}
	if h.seq != 1 {
		return nil
	}
	r.trim()
	s := &sender{inlet: r.store.Inlet(r.metrics.name), node: node, used: time.Now()}
	s.s.id = h.id
	r.sessions[h.id] = s
	r.metrics.sessions.Set(float64(len(r.sessions)))
	return s
}

// trim forgets idle sessions, and the longest idle one when there are too many;
// its sender begins a new one.
func (r *Receiver) trim() {
	now := time.Now()
	for len(r.sessions) > 0 {
		var oldest *sender
		for _, s := range r.sessions {
			if oldest == nil || s.used.Before(oldest.used) {
				oldest = s
			}
		}
		if len(r.sessions) < r.cfg.SessionLimit && now.Sub(oldest.used) < r.cfg.Idle {
			return
		}
		delete(r.sessions, oldest.s.id)
	}
}

// catchingUp is how many times patience the newest sample of a node may be old: one
// that sends what waited during an outage is heard long before its newest samples
// come. It is more than once, because clocks differ.
const catchingUp = 3

// lagging is a node whose newest sample is old: it catches up, or its clock is late.
type lagging struct {
	lag  time.Duration
	at   time.Time // of lag
	late bool      // the clock is
}

// lagLook is how long a node is watched until its clock is called late: one that
// catches up has come nearer by a sixth of that time at least.
const lagLook = time.Minute

// catchesUp answers whether older samples than these are still to come.
func (l *lagging) catchesUp(lag time.Duration, now time.Time) bool {
	if since := now.Sub(l.at); l.at.IsZero() {
		l.lag, l.at = lag, now
	} else if since >= lagLook {
		l.late = l.lag-lag < lagLook/6
		l.lag, l.at = lag, now
	}
	return !l.late
}

// Missing names, sorted, the nodes of want that sent nothing for longer than
// patience, or nothing of recent times unless their clock is late, or nothing that
// is stored because it is ahead. It fits promapi's Parts.Missing.
func (r *Receiver) Missing(want []string, now time.Time, patience time.Duration) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, n := range want {
		lag := now.Sub(time.UnixMilli(r.newest[n]))
		switch {
		case now.Sub(r.heard[n]) > patience, now.Sub(r.ahead[n].at) <= patience:
			out = append(out, n)
		case lag <= catchingUp*patience:
			delete(r.lagging, n)
		default:
			if r.lagging[n] == nil {
				r.lagging[n] = &lagging{}
			}
			if r.lagging[n].catchesUp(lag, now) {
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return out
}

package daemon

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/record"
)

const (
	maxUnwritten  = 5_000           // records that wait, 1 KB each or so
	unwrittenFor  = time.Hour       // then a record is given up: nothing may wait behind it for ever
	tryHistory    = 5 * time.Second // between two tries
	refusedInARow = 3               // ends a try: it is the disk and not the record
	lastTry       = 2 * time.Second // when the process ends
)

// historian writes what happened to alerts and silences beside the lines. A store that
// refuses, as on a full disk, is when most happens: what it refuses waits in memory and
// is written later, in order and with its own time. Nobody waits for the disk.
type historian struct {
	keep    func(context.Context, record.Record) error
	log     *slog.Logger
	more    chan struct{} // capacity 1
	waiting prometheus.Gauge
	dropped *prometheus.CounterVec

	mu        sync.Mutex
	unwritten []unwritten
	full      bool // and it was logged
}

type unwritten struct {
	record.Record
	since time.Time
}

func newHistorian(keep func(context.Context, record.Record) error, log *slog.Logger, reg prometheus.Registerer) *historian {
	h := &historian{keep: keep, log: log, more: make(chan struct{}, 1),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_history_unwritten_records", Help: "Beginnings and ends of alerts, and silences, that the log store refused and that are written later."}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_history_dropped_records_total", Help: "Such records that were given up: full (too many waited), old (refused for an hour)."}, []string{"reason"})}
	for _, reason := range []string{"full", "old"} {
		h.dropped.WithLabelValues(reason)
	}
	reg.MustRegister(h.waiting, h.dropped)
	return h
}

// note takes a record to be written. It never blocks for long.
func (h *historian) note(_ context.Context, r record.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.unwritten) >= maxUnwritten {
		h.dropped.WithLabelValues("full").Inc()
		if !h.full {
			h.log.Error("history of alerts is lost, too much of it waits", "count", len(h.unwritten))
		}
		h.full = true
		return
	}
	h.unwritten = append(h.unwritten, unwritten{r, time.Now()})
	select {
	case h.more <- struct{}{}:
	default:
	}
}

// Run writes until ctx ends, and then once more.
func (h *historian) Run(ctx context.Context) error {
	again := time.NewTimer(0)
	defer again.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTry)
			defer cancel()
			if err := h.write(last); err != nil {
				h.log.Error("history of alerts is lost", "count", h.left(), "err", err)
			}
			return nil
		case <-h.more:
			if failing { // until the next try
				continue
			}
		case <-again.C:
		}
		err := h.write(ctx)
		if err != nil && !failing {
			h.log.Warn("history of alerts was not written, trying again", "count", h.left(), "err", err)
		}
		if failing = err != nil; failing {
			again.Reset(tryHistory)
		}
	}
}

// write tries what waits, oldest first; what is refused goes on to wait.
func (h *historian) write(ctx context.Context) (failed error) {
	h.mu.Lock()
	all := h.unwritten
	h.unwritten = nil
	h.mu.Unlock()
	var left []unwritten
	row := 0
	for i, u := range all {
		if row == refusedInARow || ctx.Err() != nil {
			left = append(left, all[i:]...)
			break
		}
		err := h.keep(ctx, u.Record)
		switch {
		case err == nil:
			row = 0
		case time.Since(u.since) >= unwrittenFor:
			h.dropped.WithLabelValues("old").Inc()
			h.log.Error("a record of the history of alerts is lost", "record", string(u.Body), "err", err)
		default:
			failed = err
			row++
			left = append(left, u)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unwritten = append(left, h.unwritten...)
	h.full = h.full && len(left) > 0
	h.waiting.Set(float64(len(left)))
	return failed
}

func (h *historian) left() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.unwritten)
}

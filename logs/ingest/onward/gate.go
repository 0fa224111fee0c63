package onward

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/record"
)

// Mark is the field that tells which cluster sent a line on.
const Mark = "perch_cluster"

// Gate leaves out lines that this cluster sent on and a receiver sent back: they
// are stored already, and would go round for ever. Make it with NewGate.
type Gate struct {
	mark   string
	next   func(context.Context, []record.Record, []record.Position) error
	log    *slog.Logger
	looped prometheus.Counter
	told   atomic.Int64 // when, in seconds
}

// NewGate stands before next, for lines that come from outside.
func NewGate(mark string, next func(context.Context, []record.Record, []record.Position) error, log *slog.Logger, reg prometheus.Registerer) *Gate {
	g := &Gate{mark: mark, next: next, log: log,
		looped: prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_onward_looped_lines_total", Help: "Lines that this cluster sent on and that were sent back to it; they are left out."})}
	reg.MustRegister(g.looped)
	return g
}

// Append hands on what is not this cluster's own.
func (g *Gate) Append(ctx context.Context, records []record.Record, positions []record.Position) error {
	keep := records
	for i := range records {
		own := g.own(&records[i])
		if own && len(keep) == len(records) { // the first: the sender's list stays as it is
			keep = append(make([]record.Record, 0, len(records)-1), records[:i]...)
		} else if !own && len(keep) < i {
			keep = append(keep, records[i])
		}
	}
	if n := len(records) - len(keep); n > 0 {
		g.looped.Add(float64(n))
		if now := time.Now().Unix(); now-g.told.Load() >= 60 {
			g.told.Store(now)
			g.log.Warn("lines that were sent on came back and are left out: the receiver of --forward-to sends to this cluster", "lines", n, "from", records[0].Stream.Namespace+"/"+records[0].Stream.Pod)
		}
	}
	return g.next(ctx, keep, positions)
}

// own answers whether a line went out here, through whatever other clusters it
// came back: each puts "field." before the fields it was given.
func (g *Gate) own(r *record.Record) bool {
	for i := range r.Fields {
		f := &r.Fields[i]
		if before, ok := strings.CutSuffix(f.Key, Mark); ok && f.Value == g.mark && strings.ReplaceAll(before, "field.", "") == "" {
			return true
		}
	}
	return false
}

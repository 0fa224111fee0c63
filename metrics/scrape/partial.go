package scrape

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"

	"perch/metrics/store"
)

// gate is the way into the store for what is scraped. Where the store has no
// room for new series, the known ones of the same answer are stored all the same
// and the others are counted by target: Prometheus would lose the whole answer.
type gate struct {
	into storage.AppendableV2

	mu      sync.Mutex
	refused map[*scrape.Target]int // in the newest answer
}

// AppenderV2 implements storage.AppendableV2.
func (g *gate) AppenderV2(ctx context.Context) storage.AppenderV2 {
	t, _ := scrape.TargetFromContext(ctx)
	return &gated{AppenderV2: g.into.AppenderV2(ctx), gate: g, target: t}
}

type gated struct {
	storage.AppenderV2
	gate    *gate
	target  *scrape.Target
	refused int
}

// Append implements storage.AppenderV2.
func (a *gated) Append(ref storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, opts storage.AOptions) (storage.SeriesRef, error) {
	ref, err := a.AppenderV2.Append(ref, ls, st, t, v, h, fh, opts)
	if errors.Is(err, store.ErrSeriesLimit) {
		a.refused++
		return 0, nil
	}
	return ref, err
}

// Commit implements storage.AppenderV2.
func (a *gated) Commit() error {
	a.gate.tell(a.target, a.refused)
	return a.AppenderV2.Commit()
}

func (g *gate) tell(t *scrape.Target, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n == 0 {
		delete(g.refused, t)
		return
	}
	g.refused[t] = n
}

// move says of a target what was said of the one it follows.
func (g *gate) move(was, now *scrape.Target) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n := g.refused[was]; n > 0 {
		g.refused[now] = n
	}
}

// of is how many series of a target's newest answer were refused.
func (g *gate) of(t *scrape.Target) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refused[t]
}

// forget drops what is known of targets that are no more.
func (g *gate) forget(live map[*scrape.Target]bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for t := range g.refused {
		if !live[t] {
			delete(g.refused, t)
		}
	}
}

// The reasons for which an answer is cut off.
const (
	cutSamples = "sample_limit"
	cutBody    = "body_size_limit"
	cutLabels  = "label_limit"
	cutGarbage = "garbage"
	cutSeries  = "series_limit" // the store's: the rest of the answer is there
)

// cutOff says why a target's newest answer is not or not wholly stored, empty
// when it is or when there was none.
func cutOff(err error, refused int) string {
	if err == nil {
		if refused > 0 {
			return cutSeries
		}
		return ""
	}
	text := err.Error()
	for _, c := range []struct{ part, reason string }{
		{"sample limit exceeded", cutSamples},
		{"body size limit exceeded", cutBody},
		{"label_limit", cutLabels}, {"label_name_length_limit", cutLabels}, {"label_value_length_limit", cutLabels},
		{"expected a valid start token", cutGarbage}, {"while parsing", cutGarbage}, {"expected label", cutGarbage}, {"expected value", cutGarbage},
		{"invalid metric name", cutGarbage}, {"metric name", cutGarbage}, {"unsupported Content-Type", cutGarbage}, {"gzip:", cutGarbage},
	} {
		if strings.Contains(text, c.part) {
			return c.reason
		}
	}
	return ""
}

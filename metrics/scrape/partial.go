package scrape

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"

	"perch/metrics/store"
)

// gate is the way into the store for what is scraped.
//
// Where the store has no room for new series, the known ones of the same answer
// are stored all the same and the others are counted by target: Prometheus would
// lose the whole answer.
//
// The first answer of a target is held until it is known to be good: one of a
// million series that is cut off leaves none behind, which Prometheus would keep
// for hours and which would count for its namespace.
//
// It ends the reading of an answer at the sample limit. Prometheus reads on to
// the end to tell how many there are, for seconds where there are a million.
type gate struct {
	into storage.AppendableV2
	most int // samples of one answer where the target says nothing

	wide     func(namespace string) bool // see Parts.Wide
	foreign  prometheus.Counter
	reserved prometheus.Counter

	mu    sync.Mutex
	known map[*scrape.Target]answered
}

// answered is what is known of a target's answers.
type answered struct {
	good    bool   // the newest was stored
	refused int    // series of the newest, by the store
	foreign int    // samples of the newest that said they are of another namespace
	said    string // one of those namespaces
}

// mostLabel is what the scraper tells itself about the sample limit of a target.
const mostLabel = "__perch_most"

var errSamples = errors.New("sample limit exceeded")

// AppenderV2 implements storage.AppendableV2.
func (g *gate) AppenderV2(ctx context.Context) storage.AppenderV2 {
	a := &gated{AppenderV2: g.into.AppenderV2(ctx), gate: g, most: g.most}
	t, ok := scrape.TargetFromContext(ctx)
	if !ok {
		return a
	}
	if n, err := strconv.Atoi(t.GetValue(mostLabel)); err == nil {
		a.most = n
	}
	a.target, a.holding = t, !g.of(t).good
	a.home = homeOf(t, g.wide)
	return a
}

// gated is the way in for one answer, and after it what Prometheus reports about
// the scrape.
type gated struct {
	storage.AppenderV2
	gate    *gate
	target  *scrape.Target // nil when unknown
	most, n int
	refused int
	holding bool
	home    string // see homeOf
	foreign int
	said    string // a namespace that is not the target's
	held    []heldSample
}

type heldSample struct {
	labels labels.Labels
	st, t  int64
	v      float64
	h      *histogram.Histogram
	fh     *histogram.FloatHistogram
	opts   storage.AOptions
}

// Append implements storage.AppenderV2.
func (a *gated) Append(ref storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, opts storage.AOptions) (storage.SeriesRef, error) {
	if ref == 0 || !value.IsStaleNaN(v) { // the end of a series is always told
		if a.n++; a.n > a.most && (a.n > a.most+reports || !report(ls)) {
			return 0, errSamples
		}
	}
	if a.home != "" && reserved(ls) {
		a.gate.reserved.Inc()
		return 0, nil
	}
	ls = a.place(ls)
	if !a.holding || ref != 0 {
		return a.pass(ref, ls, st, t, v, h, fh, opts)
	}
	opts.Exemplars, opts.MetricFamilyName = slices.Clone(opts.Exemplars), strings.Clone(opts.MetricFamilyName)
	a.held = append(a.held, heldSample{ls, st, t, v, h, fh, opts})
	return 0, nil
}

func (a *gated) pass(ref storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, opts storage.AOptions) (storage.SeriesRef, error) {
	ref, err := a.AppenderV2.Append(ref, ls, st, t, v, h, fh, opts)
	if errors.Is(err, store.ErrSeriesLimit) {
		a.refused++
		return 0, nil
	}
	if errors.Is(err, storage.ErrTooOldSample) {
		// Of a store that takes samples out of order. The library knows the other
		// name only; at this one it gives up the whole answer.
		return 0, storage.ErrOutOfBounds
	}
	return ref, err
}

// reports is how many samples about a scrape there are at most.
const reports = 8

// report answers whether a sample is one about the scrape.
func report(ls labels.Labels) bool {
	name := ls.Get(model.MetricNameLabel)
	return name == upName || strings.HasPrefix(name, "scrape_")
}

const upName = "up"

// Commit implements storage.AppenderV2.
func (a *gated) Commit() error {
	good := !a.holding
	for _, s := range a.held {
		_, err := a.pass(0, s.labels, s.st, s.t, s.v, s.h, s.fh, s.opts)
		var partial *storage.AppendPartialError
		switch {
		case err == nil, errors.As(err, &partial):
		case errors.Is(err, storage.ErrOutOfOrderSample), errors.Is(err, storage.ErrDuplicateSampleForTimestamp), errors.Is(err, storage.ErrOutOfBounds):
			// One sample that cannot be stored costs no other; the store counts it.
		default:
			_ = a.AppenderV2.Rollback() // the error tells why
			return fmt.Errorf("store the first answer of a target: %w", err)
		}
		if s.v == 1 && s.labels.Get(model.MetricNameLabel) == upName {
			good = true
		}
	}
	a.gate.tell(a.target, answered{good, a.refused, a.foreign, a.said})
	a.gate.foreign.Add(float64(a.foreign))
	return a.AppenderV2.Commit()
}

// Rollback implements storage.AppenderV2.
func (a *gated) Rollback() error {
	a.gate.tell(a.target, answered{})
	return a.AppenderV2.Rollback()
}

func (g *gate) tell(t *scrape.Target, s answered) {
	if t == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.known[t] = s
}

// move says of a target what was said of the one it follows.
func (g *gate) move(was, now *scrape.Target) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s, ok := g.known[was]; ok {
		g.known[now] = s
	}
}

// of is what is known of a target.
func (g *gate) of(t *scrape.Target) answered {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.known[t]
}

// forget drops what is known of targets that are no more.
func (g *gate) forget(live map[*scrape.Target]bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.known, func(t *scrape.Target, _ answered) bool { return !live[t] })
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

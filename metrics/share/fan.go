package share

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"perch/metrics/store"
)

// Limits bound what asking another store may cost.
type Limits struct {
	Timeout time.Duration // of one answer, and of the wait for a turn
	Bytes   int64         // of one answer
	AtOnce  int           // questions to one store; others wait
	Look    time.Duration // between looks how the stores are
}

// DefaultLimits suit stores in one network.
func DefaultLimits() Limits {
	return Limits{Timeout: 3 * time.Second, Bytes: 128 << 20, AtOnce: 8, Look: 5 * time.Second}
}

// FanParts are a Fan's collaborators.
type FanParts struct {
	Own    *store.Store   // the server's
	Gap    func() Gap     // of Own, see Sender.Gap
	Stores func() []Store // the further ones, see Sender.Stores
	// At says where a store answers, see Serve.
	At func(Store) (url string, client *http.Client)
}

// Fan is the server's store, completed from the others where it lost something:
// what is in two of them is there once. It is a promapi.Database; writing and
// status are the server's store's.
type Fan struct {
	*store.Store
	limits  Limits
	parts   FanParts
	log     *slog.Logger
	metrics *fanMetrics
	looked  chan struct{} // closed once the others were asked what they have

	mu    sync.RWMutex // guards peers
	peers []*peer
}

type fanMetrics struct {
	reads *prometheus.CounterVec
	took  prometheus.Histogram
	bytes prometheus.Counter
}

// NewFan asks nobody before Run; questions that need others wait for it.
func NewFan(limits Limits, parts FanParts, log *slog.Logger, reg prometheus.Registerer) (*Fan, error) {
	f := &Fan{Store: parts.Own, limits: limits, parts: parts, log: log, looked: make(chan struct{}), metrics: &fanMetrics{
		reads: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_share_reads_total", Help: "Questions to other stores about what the server lost: answered, failed, or not asked because the store was away."}, []string{"result"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "perch_share_read_seconds", Help: "How long answers of other stores took.",
			Buckets: []float64{.002, .01, .05, .2, 1, 3}}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_share_read_bytes_total", Help: "Bytes read from other stores."}),
	}}
	for _, c := range []prometheus.Collector{f.metrics.reads, f.metrics.took, f.metrics.bytes,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "perch_share_stores_away", Help: "Other stores that do not answer."}, func() float64 {
			n := 0
			for _, s := range parts.Stores() { // not those that lost their place
				if slices.Contains(f.away(), s.Name) {
					n++
				}
			}
			return float64(n)
		})} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of stores: %w", err)
		}
	}
	return f, f.follow()
}

// Run looks how the other stores are until ctx ends. It runs once.
func (f *Fan) Run(ctx context.Context) error {
	for first := true; ; first = false {
		if err := f.follow(); err != nil {
			f.log.Error("store is not asked", "err", err)
		}
		f.look(ctx)
		if first {
			close(f.looked)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(f.limits.Look):
		}
	}
}

// follow has a peer for each other store, and goes on to have one for a store that
// lost its place and may have what the server lost: without it answers are partial.
func (f *Fan) follow() error {
	have := f.now()
	var want []*peer
	for _, s := range f.parts.Stores() {
		if i := slices.IndexFunc(have, func(p *peer) bool { return p.store == s }); i >= 0 {
			want = append(want, have[i])
			continue
		}
		url, client := f.parts.At(s)
		p, err := newPeer(s, url, client, f.limits, func(n int) { f.metrics.bytes.Add(float64(n)) })
		if err != nil {
			return err
		}
		want = append(want, p)
	}
	if gap := f.parts.Gap(); gap != NoGap() {
		for _, p := range have {
			if p.view().has(gap.To) && !slices.ContainsFunc(want, func(w *peer) bool { return w.store.Name == p.store.Name }) {
				want = append(want, p)
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.peers = want
	return nil
}

func (f *Fan) look(ctx context.Context) {
	var all sync.WaitGroup
	for _, p := range f.now() {
		all.Go(func() {
			was := p.view().Away
			err := p.look(ctx)
			switch {
			case err != nil && !was:
				f.log.Warn("store of series does not answer", "store", p.store.Name, "err", err)
			case err == nil && was && ctx.Err() == nil:
				f.log.Info("store of series answers", "store", p.store.Name)
			}
		})
	}
	all.Wait()
}

func (f *Fan) now() []*peer {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.peers
}

func (f *Fan) away() (out []string) {
	for _, p := range f.now() {
		if p.view().Away {
			out = append(out, p.store.Name)
		}
	}
	return out
}

// question asks at once all peers that may have something of up to a time. What it
// returns has an entry for each that answered; the warning names those that did
// not.
func question[T any](ctx context.Context, f *Fan, gap Gap, to int64, ask func(*peer) (T, error)) (out []T, warning annotations.Annotations) {
	select {
	case <-f.looked:
	case <-ctx.Done():
		return nil, nil // nobody reads the answer
	}
	var mu sync.Mutex
	var silent []string
	var all sync.WaitGroup
	for _, p := range f.now() {
		now := p.view()
		if !now.has(to) {
			continue
		}
		if now.Away {
			f.metrics.reads.WithLabelValues("away").Inc()
			mu.Lock()
			silent = append(silent, p.store.Name)
			mu.Unlock()
			continue
		}
		all.Go(func() {
			began := time.Now()
			got, err := ask(p)
			f.metrics.took.Observe(time.Since(began).Seconds())
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				f.metrics.reads.WithLabelValues("failed").Inc()
				silent = append(silent, p.store.Name)
				if ctx.Err() == nil {
					f.log.Warn("store of series did not answer", "err", err)
				}
				return
			}
			f.metrics.reads.WithLabelValues("answered").Inc()
			out = append(out, got)
		})
	}
	all.Wait()
	if len(silent) > 0 {
		slices.Sort(silent)
		warning = annotations.New().Add(fmt.Errorf("partial answer: the server lost series of before %s, and stores that may have them do not answer: %s",
			time.UnixMilli(gap.To).UTC().Format(time.RFC3339), strings.Join(silent, ", ")))
	}
	return out, warning
}

// Querier is storage.Queryable over all stores; times are ms and inclusive.
func (f *Fan) Querier(mint, maxt int64) (storage.Querier, error) {
	own, err := f.Store.Querier(mint, maxt)
	gap := f.parts.Gap()
	if err != nil || !f.lacks(gap, mint, maxt) {
		return own, err
	}
	return querier{labelQuerier{f, gap, mint, maxt, own}, own}, nil
}

// ChunkQuerier is storage.ChunkQueryable over all stores.
func (f *Fan) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	own, err := f.Store.ChunkQuerier(mint, maxt)
	gap := f.parts.Gap()
	if err != nil || !f.lacks(gap, mint, maxt) {
		return own, err
	}
	return chunkQuerier{labelQuerier{f, gap, mint, maxt, own}, own}, nil
}

// lacks answers whether others may have what the server's store has not.
func (f *Fan) lacks(gap Gap, mint, maxt int64) bool {
	_, to, some := gap.within(mint, maxt)
	return some && slices.ContainsFunc(f.now(), func(p *peer) bool { return p.view().has(to) })
}

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
	Own *store.Store // the server's
	// Stores are those over which series are spread, see Sender.Stores.
	Stores func() []Store
	// At says where a store that is not the server answers, see Serve.
	At func(Store) (url string, client *http.Client)
	// Newest is of when the newest sample is that the server has of each node.
	Newest func() map[string]time.Time
}

// Fan shows all stores as one database: what is in two of them is there once. It
// is a promapi.Database; writing, exemplars and status are the server's own
// store's. As long as the server has all series it is that store and nothing else.
type Fan struct {
	*store.Store
	limits  Limits
	parts   FanParts
	log     *slog.Logger
	metrics *fanMetrics

	mu     sync.RWMutex // guards what follows
	beside *store.Store // what others send to the server; nil: nothing yet
	peers  []*peer
}

type fanMetrics struct {
	reads *prometheus.CounterVec
	took  prometheus.Histogram
	bytes prometheus.Counter
}

// NewFan asks nobody before Run.
func NewFan(limits Limits, parts FanParts, log *slog.Logger, reg prometheus.Registerer) (*Fan, error) {
	f := &Fan{Store: parts.Own, limits: limits, parts: parts, log: log, metrics: &fanMetrics{
		reads: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_share_reads_total", Help: "Questions to other stores: answered, failed, or not asked because the store was away."}, []string{"result"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "perch_share_read_seconds", Help: "How long answers of other stores took.",
			Buckets: []float64{.002, .01, .05, .2, 1, 3}}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_share_read_bytes_total", Help: "Bytes read from other stores."}),
	}}
	for _, c := range []prometheus.Collector{f.metrics.reads, f.metrics.took, f.metrics.bytes,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "perch_share_stores_away", Help: "Other stores that do not answer."}, func() float64 {
			return float64(len(f.away()))
		})} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of stores: %w", err)
		}
	}
	return f, nil
}

// Beside adds the server's database of what others send.
func (f *Fan) Beside(s *store.Store) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.beside = s
}

// Run looks how the other stores are until ctx ends.
func (f *Fan) Run(ctx context.Context) error {
	for {
		if err := f.follow(); err != nil {
			f.log.Error("store is not asked", "err", err)
		}
		f.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(f.limits.Look):
		}
	}
}

// follow has a peer for each other store.
func (f *Fan) follow() error {
	stores := f.parts.Stores()
	if shared(stores) == nil {
		stores = nil
	}
	have, _ := f.now()
	var want []*peer
	for _, s := range stores {
		if s.Server {
			continue
		}
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
	f.mu.Lock()
	defer f.mu.Unlock()
	f.peers = want
	return nil
}

func (f *Fan) look(ctx context.Context) {
	peers, _ := f.now()
	var all sync.WaitGroup
	for _, p := range peers {
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

func (f *Fan) now() ([]*peer, *store.Store) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.peers, f.beside
}

func (f *Fan) away() (out []string) {
	peers, _ := f.now()
	for _, p := range peers {
		if v := p.view(); v.Away {
			out = append(out, v.Name)
		}
	}
	return out
}

// Missing names the nodes of want whose newest samples may be in no store that
// answers; several is false when the server alone has all, which then knows itself.
func (f *Fan) Missing(want []string, now time.Time, patience time.Duration) (nodes []string, several bool) {
	peers, _ := f.now()
	if len(peers) == 0 {
		return nil, false
	}
	stores := []View{{"", false, f.parts.Newest()}}
	for _, p := range peers {
		stores = append(stores, p.view())
	}
	return Incomplete(stores, want, now, patience), true
}

// question asks all peers at once. What it returns has an entry for each that
// answered; the warning is there when so many did not that series may be missing.
func question[T any](ctx context.Context, f *Fan, peers []*peer, ask func(*peer) (T, error)) (out []T, warning annotations.Annotations) {
	var mu sync.Mutex
	var silent []string
	var all sync.WaitGroup
	for _, p := range peers {
		if p.view().Away {
			f.metrics.reads.WithLabelValues("away").Inc()
			silent = append(silent, p.store.Name)
		}
	}
	for _, p := range peers {
		if slices.Contains(silent, p.store.Name) {
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
	if len(silent) >= Replication {
		slices.Sort(silent)
		warning = annotations.New().Add(fmt.Errorf("partial answer: stores of series do not answer: %s", strings.Join(silent, ", ")))
	}
	return out, warning
}

// Querier is storage.Queryable over all stores; times are ms and inclusive.
func (f *Fan) Querier(mint, maxt int64) (storage.Querier, error) {
	q, here, err := open(f, mint, maxt, func(s *store.Store) (storage.Querier, error) { return s.Querier(mint, maxt) })
	if err != nil || q == nil {
		return only(here), err
	}
	return querier{*q, here}, nil
}

// ChunkQuerier is storage.ChunkQueryable over all stores.
func (f *Fan) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	q, here, err := open(f, mint, maxt, func(s *store.Store) (storage.ChunkQuerier, error) { return s.ChunkQuerier(mint, maxt) })
	if err != nil || q == nil {
		return only(here), err
	}
	return chunkQuerier{*q, here}, nil
}

// open opens the stores of this process. The querier is nil when the server's own
// is the only one there is.
func open[Q storage.LabelQuerier](f *Fan, mint, maxt int64, one func(*store.Store) (Q, error)) (*labelQuerier, []Q, error) {
	own, err := one(f.Store)
	if err != nil {
		return nil, nil, err
	}
	here := []Q{own}
	peers, beside := f.now()
	if len(peers) == 0 && beside == nil {
		return nil, here, nil
	}
	q := &labelQuerier{f, peers, mint, maxt, []storage.LabelQuerier{own}}
	if beside != nil {
		b, err := one(beside)
		if err != nil {
			_ = own.Close() // the first error is the one to tell
			return nil, nil, err
		}
		here, q.here = append(here, b), append(q.here, b)
	}
	return q, here, nil
}

func only[Q any](here []Q) (q Q) {
	if len(here) > 0 {
		q = here[0]
	}
	return q
}

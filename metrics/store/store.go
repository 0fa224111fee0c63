package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
	"golang.org/x/sys/unix"
)

var (
	// ErrInUse means that another process holds the directory.
	ErrInUse = errors.New("another process uses this metrics directory; stop it or choose another data directory")

	// ErrSeriesLimit means that a new series was refused.
	ErrSeriesLimit = errors.New("series limit reached")
)

// Store is the open database.
type Store struct {
	db       *tsdb.DB
	cfg      Config
	lock     *os.File
	metrics  *metrics
	budget   *budget
	room     *room
	repaired bool
	replay   *tsdb.WALReplayStatus
	held     atomic.Bool // see HoldWAL
	log      *slog.Logger
	once     sync.Once
	stop     chan struct{}
	stopped  chan struct{} // what letGo ran in is over
}

// New opens the directory and replays what is not in blocks yet. A damaged WAL
// is cut at the damage, logged and counted; see Repaired.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (_ *Store, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("create metrics store %s: %w", cfg.Dir, err)
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = lock.Close() // the first error is the one to tell
		}
	}()

	m := newMetrics(reg)
	limit := newBudget(cfg, log, m)
	// The database counts into its own registry: whether it had to repair the
	// WAL is known only from there.
	own := prometheus.NewRegistry()
	began := time.Now()
	replay := tsdb.NewDBStats()
	db, err := tsdb.Open(cfg.Dir, log, own, options(cfg, limit), replay)
	if err != nil {
		return nil, fmt.Errorf("open metrics store %s: %w", cfg.Dir, err)
	}
	s := &Store{db: db, cfg: cfg, lock: lock, metrics: m, budget: limit, room: &room{dir: cfg.Dir, reserve: cfg.ReserveBytes, metrics: m, broken: make(chan struct{})},
		log: log, stop: make(chan struct{}), stopped: make(chan struct{}), repaired: corruptions(own) > 0, replay: replay.Head.WALReplayStatus}
	limit.open.Store(true)
	if left, err := s.room.left(); err == nil && left <= 0 {
		log.Warn("disk of the metrics store is full, samples are refused", "dir", cfg.Dir, "reserve", cfg.ReserveBytes)
	}
	if s.repaired {
		m.repairs.Inc()
		log.Warn("metrics WAL repaired, samples behind the damage are lost", "took", time.Since(began))
	}
	log.Info("metrics store opened", "took", time.Since(began), "count", db.Head().NumSeries())
	if reg != nil {
		if err := reg.Register(own); err != nil {
			return nil, errors.Join(fmt.Errorf("register metrics of store: %w", err), db.Close())
		}
		reg.MustRegister(
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "perch_store_series", Help: "Series in memory."},
				func() float64 { return float64(db.Head().NumSeries()) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "perch_store_series_limit", Help: "Series that may be in memory."},
				func() float64 { return float64(cfg.SeriesLimit) }),
		)
	}
	go s.letGo() // until Close
	return s, nil
}

func options(cfg Config, limit tsdb.SeriesLifecycleCallback) *tsdb.Options {
	o := tsdb.DefaultOptions()
	o.WALSegmentSize = cfg.WALSegmentBytes
	o.WALCompression = compression.Snappy
	o.RetentionDuration = cfg.Retention.Milliseconds()
	o.MaxBytes = cfg.MaxBytes
	o.MinBlockDuration = cfg.BlockDuration.Milliseconds()
	o.MaxBlockDuration = max(o.MinBlockDuration, min(o.RetentionDuration/10, (31*24*time.Hour).Milliseconds()))
	o.StripeSize = cfg.StripeSize
	o.HeadChunksWriteBufferSize = 64 << 10
	o.OutOfOrderTimeWindow = cfg.OutOfOrder.Milliseconds()
	o.EnableOverlappingCompaction = true
	o.EnableExemplarStorage = true
	o.MaxExemplars = int64(cfg.Exemplars)
	o.NoLockfile = true // our lock ends with the process, a lock file does not
	o.SeriesLifecycleCallback = limit
	return o
}

// lockDir takes the lock that the kernel gives back when the process ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "in-use"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock metrics store: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock metrics store %s: %w", dir, ErrInUse)
		}
		return nil, fmt.Errorf("lock metrics store %s: %w", dir, err)
	}
	return f, nil
}

func corruptions(g prometheus.Gatherer) float64 {
	families, err := g.Gather()
	if err != nil {
		return 0
	}
	var n float64
	for _, f := range families {
		switch f.GetName() {
		case "prometheus_tsdb_wal_corruptions_total", "prometheus_tsdb_mmap_chunk_corruptions_total":
			for _, m := range f.GetMetric() {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// Close writes out what is buffered and gives the directory back.
func (s *Store) Close(context.Context) error {
	s.once.Do(func() { close(s.stop) })
	<-s.stopped
	return errors.Join(s.db.Close(), s.lock.Close())
}

// Repaired says whether New had to cut a damaged WAL.
func (s *Store) Repaired() bool { return s.repaired }

// Dir is the directory of the database.
func (s *Store) Dir() string { return s.cfg.Dir }

// Retention is how long samples are kept.
func (s *Store) Retention() time.Duration { return s.cfg.Retention }

// Limits are those it was opened with.
func (s *Store) Limits() Config { return s.cfg }

// Series is the number of series in memory.
func (s *Store) Series() uint64 { return s.db.Head().NumSeries() }

// Offenders are the namespaces whose new series were refused, sorted by name.
func (s *Store) Offenders() []Offender { return s.budget.offenders() }

// MaxTime is the newest sample's time in ms, math.MinInt64 when there is none.
func (s *Store) MaxTime() int64 { return s.db.Head().MaxTime() }

// Stopped says until when nothing of now is taken, because the newest sample is
// further ahead of now than a late one may be behind it, of a series that is there or
// of a new one: the clock of this machine has been set back. The zero time while
// samples are taken.
func (s *Store) Stopped(now time.Time) time.Time {
	newest := s.MaxTime()
	if newest == math.MinInt64 {
		return time.Time{}
	}
	if until := time.UnixMilli(newest).Add(-max(s.cfg.OutOfOrder, s.cfg.BlockDuration/2)); until.After(now) {
		return until
	}
	return time.Time{}
}

// HoldWAL keeps the database from writing blocks, which deletes the WAL behind
// them, as long as hold is true: somebody still reads there. Memory and WAL grow
// meanwhile.
func (s *Store) HoldWAL(hold bool) {
	if s.held.Swap(hold) == hold {
		return
	}
	if hold {
		s.db.DisableCompactions()
	} else {
		s.db.EnableCompactions()
	}
}

// Compact writes blocks as far as it is time, which the database does each minute
// anyway; nothing while the WAL is held.
func (s *Store) Compact(ctx context.Context) error {
	if s.held.Load() {
		return nil
	}
	if err := s.db.Compact(ctx); err != nil {
		return fmt.Errorf("compact metrics store: %w", err)
	}
	return nil
}

// OnCommit has n told after each commit; call it before the first.
func (s *Store) OnCommit(n wlog.WriteNotified) { s.db.SetWriteNotified(n) }

// Querier is storage.Queryable; times are ms and inclusive.
func (s *Store) Querier(mint, maxt int64) (storage.Querier, error) { return s.db.Querier(mint, maxt) }

// ChunkQuerier is storage.ChunkQueryable.
func (s *Store) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	return s.db.ChunkQuerier(mint, maxt)
}

// ExemplarQuerier reads the newest Config.Exemplars exemplars.
func (s *Store) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	return s.db.ExemplarQuerier(ctx)
}

// StartTime is the oldest time in ms that may hold samples.
func (s *Store) StartTime() (int64, error) { return s.db.StartTime() }

// CleanTombstones, Delete, Snapshot, Stats, WALReplayStatus and BlockMetas are
// what Prometheus' status and admin endpoints ask of a database.
func (s *Store) CleanTombstones() error { return s.db.CleanTombstones() }

// Delete removes samples of matching series, times in ms.
func (s *Store) Delete(ctx context.Context, mint, maxt int64, ms ...*labels.Matcher) error {
	return s.db.Delete(ctx, mint, maxt, ms...)
}

// Snapshot copies the database to dir.
func (s *Store) Snapshot(dir string, withHead bool) error { return s.db.Snapshot(dir, withHead) }

// Stats counts series by name and label.
func (s *Store) Stats(byLabel string, limit int) (*tsdb.Stats, error) {
	return s.db.Head().Stats(byLabel, limit), nil
}

// WALReplayStatus names the segments that New read; it is complete then.
func (s *Store) WALReplayStatus() (tsdb.WALReplayStatus, error) {
	return s.replay.GetWALReplayStatus(), nil
}

// BlockMetas lists the blocks on disk.
func (s *Store) BlockMetas() ([]tsdb.BlockMeta, error) { return s.db.BlockMetas(), nil }

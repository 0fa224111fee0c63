package store

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/block"
	"perch/logs/index"
	"perch/logs/record"
	"perch/logs/wal"
)

// Store keeps lines. Make it with Open.
type Store struct {
	cfg   Config
	log   *slog.Logger
	m     *metrics
	lock  *os.File
	codec *block.Codec
	wal   *wal.Log
	wake  chan struct{}

	buffers spare // to encode batches
	entries spare // of the write-ahead log
	views   atomic.Int64
	fresh   atomic.Int64 // bytes of blocks since what is due was looked for
	most    int64        // bytes that may be kept of what is told of blocks

	appending sync.WaitGroup // of Append; none begins once closed is set

	cutting sync.Mutex // held by the one that cuts; guards what follows
	encoded []byte
	learner *index.Learner // of the partition being written; nil when it has a vocabulary
	roll    bool           // the next block opens a partition

	clock clock

	maintaining sync.Mutex // held by checkpoint; guards what follows
	kept        uint64     // first entry of the write-ahead log that the last checkpoint needs
	retained    time.Time  // when it was looked for what is due; belongs to Run
	tidying     sync.Mutex // held while partitions are removed or replaced
	completing  sync.Mutex // held while indexes are completed
	rewriting   sync.Mutex // held by the one that writes a partition anew

	mu          sync.RWMutex // guards what follows
	parts       []*partition // oldest first; the last is being written
	sources     map[uint64]*source
	byPointer   map[*record.Stream]*source
	sealed      []*head // to be cut, in order
	headBytes   int     // heads and sealed
	sealedBytes int
	sealedLarge int           // of sealed, that are not written with others
	spare       []block.Lines // of heads that were cut
	positions   map[fileKey]record.Position
	lastSeq     uint64
	cutErr      error
	followers   map[*Follower]struct{}
	dirty       bool // something changed since the last checkpoint
	closed      bool
}

// Open opens the store in cfg.Dir and puts uncut lines back into heads. It
// fails when another process uses the directory.
func Open(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(partitionsDir(cfg.Dir), 0o700); err != nil {
		return nil, fmt.Errorf("open log store: %w", err)
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	s := newStore(cfg.within(), log, reg)
	s.lock = lock
	s.clock.used(lastUsed(cfg.Dir))
	if err := s.load(reg); err != nil {
		return nil, errors.Join(fmt.Errorf("open log store %s: %w", cfg.Dir, err), s.closeFiles())
	}
	return s, nil
}

func newStore(cfg Config, log *slog.Logger, reg prometheus.Registerer) *Store {
	return &Store{
		cfg: cfg, log: log, m: newMetrics(reg), wake: make(chan struct{}, 1),
		sources: map[uint64]*source{}, byPointer: map[*record.Stream]*source{},
		positions: map[fileKey]record.Position{}, followers: map[*Follower]struct{}{}, most: mostKnown(cfg.RetentionBytes),
		clock: clock{began: time.Now()},
	}
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log store: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		return nil, fmt.Errorf("open log store: directory %s is in use by another process", dir)
	}
	return f, nil
}

func (s *Store) load(reg prometheus.Registerer) error {
	var err error
	if s.codec, err = block.NewCodec(); err != nil {
		return err
	}
	cp, err := s.loadCheckpoint()
	if err != nil {
		return err
	}
	if err := s.loadPartitions(s.cfg.Dir, cp, openPartition); err != nil {
		return err
	}
	for _, p := range cp.Positions {
		s.positions[fileKey{p.File, p.Inode}] = p
	}
	last := uint64(0) // that blocks have, also when the write-ahead log is gone
	for _, src := range s.sources {
		last = max(last, src.done.Seq)
	}
	s.wal, err = wal.Open(wal.Config{Dir: walDir(s.cfg.Dir), SegmentBytes: min(16<<20, s.cfg.WALBytes/4), First: last + 1, Create: s.cfg.CreateWAL}, s.replay, s.log, reg)
	clear(s.byPointer)
	if err != nil {
		return err
	}
	first, _ := s.wal.Oldest()
	used, done := map[uint64]*source{}, s.done(first)
	for h, src := range s.sources {
		if !done(src) {
			used[h] = src
		}
	}
	s.sources = used // not all streams of all partitions
	return nil
}

func walDir(dir string) string { return filepath.Join(dir, "wal") }

// replay puts what blocks do not hold of an entry back into heads.
func (s *Store) replay(seq uint64, payload []byte) error {
	plain, err := unpack(payload)
	if err != nil {
		return err
	}
	b, err := record.DecodeBatch(plain)
	if err != nil {
		return err
	}
	s.apply(seq, b.Records, b.Positions, true)
	return s.help()
}

// loadPartitions opens all partitions of dir. Blocks written after the checkpoint are
// checked; after a damaged one everything later is cut too, for the write-ahead
// log still has it.
func (s *Store) loadPartitions(dir string, cp checkpoint, open func(dir, name string, codec *block.Codec, verified int64) (*partition, int64, error)) error {
	entries, err := os.ReadDir(partitionsDir(dir))
	if err != nil && !errors.Is(err, os.ErrNotExist) { // a copy begins without
		return err
	}
	var names []string
	for _, e := range entries {
		if _, err := time.Parse(partitionName, e.Name()); err == nil {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	next := map[uint64]mark{}
	for _, m := range cp.Marks {
		next[m.Hash] = m
	}
	torn := false
	for _, name := range names {
		if torn && name > cp.Partition && !cp.lost {
			if err := os.RemoveAll(filepath.Join(partitionsDir(dir), name)); err != nil {
				return err
			}
			continue
		}
		verified := int64(1 << 62)
		switch {
		case cp.lost && name == names[len(names)-1]:
			verified = block.Unknown
		case cp.lost:
		case name == cp.Partition:
			verified = cp.Bytes
		case name > cp.Partition:
			verified = 0
		}
		p, cut, err := open(dir, name, s.codec, verified)
		if err != nil {
			return err
		}
		if p == nil { // of a copy: no blocks of it are there yet
			continue
		}
		s.parts = append(s.parts, p)
		if cut > 0 {
			s.m.damaged.Add(float64(cut))
			s.log.Warn("damaged blocks cut off", "part", name, "bytes", cut)
			torn = name >= cp.Partition
		}
		for _, m := range p.metas {
			at := place{m.Seq, m.Ord}
			if have, ok := next[m.Hash]; !ok || have.before(at) {
				next[m.Hash] = mark{Hash: m.Hash, Next: m.First + uint64(m.Lines), place: at}
			}
			if src, ok := s.sources[m.Hash]; ok { // one copy of the labels
				m.Stream = src.stream
			} else {
				s.sources[m.Hash] = &source{stream: m.Stream, hash: m.Hash, idle: time.Now()}
			}
		}
		s.letGo(time.Now())
	}
	for h, m := range next {
		src, ok := s.sources[h]
		if !ok {
			src = &source{hash: h, idle: time.Now()}
			s.sources[h] = src
		}
		src.next, src.done = m.Next, m.place
	}
	return nil
}

// Close cuts nothing: uncut lines stay in the write-ahead log. It waits for
// appends and maintenance under way and closes all files.
func (s *Store) Close() error {
	err := s.checkpoint()
	s.mu.Lock()
	s.closed = true
	for f := range s.followers {
		delete(s.followers, f)
		close(f.lines)
	}
	s.mu.Unlock()
	s.appending.Wait()
	return errors.Join(err, s.closeFiles())
}

func (s *Store) closeFiles() error {
	var errs error
	if s.wal != nil {
		errs = errors.Join(errs, s.wal.Close())
	}
	s.cutting.Lock()
	defer s.cutting.Unlock()
	for _, p := range s.parts {
		if x := p.index(); x != nil && p == s.parts[len(s.parts)-1] {
			errs = errors.Join(errs, x.Flush())
			x.Settle(2 * time.Second)
		}
		errs = errors.Join(errs, p.close())
	}
	if s.codec != nil {
		s.codec.Close()
	}
	if s.lock != nil {
		errs = errors.Join(errs, s.lock.Close())
	}
	return errs
}

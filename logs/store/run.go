package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"perch/logs/block"
	"perch/logs/index"
	"perch/logs/record"
)

// Run cuts blocks, writes checkpoints, keeps indexes complete, seals closed
// partitions and removes what is too old, until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	var sealer sync.WaitGroup
	sealer.Go(func() { s.sealClosed(ctx) })
	defer sealer.Wait()
	tick := time.NewTicker(s.cfg.CheckpointEvery)
	defer tick.Stop()
	s.maintain(ctx, time.Now())
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
			for ctx.Err() == nil && s.cutOne() {
			}
		case <-tick.C:
			s.maintain(ctx, time.Now())
		}
	}
}

// What is due is looked for this often, and sooner when much was written: more than
// one part in retainPart of what may be kept.
const (
	retainEvery = 10 * time.Second
	retainPart  = 64
)

// maintain does everything that is due. A failure is told and tried again at
// the next tick.
func (s *Store) maintain(ctx context.Context, now time.Time) {
	s.sealDue(now)
	for ctx.Err() == nil && s.cutOne() {
	}
	if err := s.checkpoint(); err != nil {
		s.log.Error("checkpoint was not written", "err", err)
	}
	much := s.cfg.RetentionBytes > 0 && s.fresh.Load() > s.cfg.RetentionBytes/retainPart
	if much || now.Sub(s.retained) >= retainEvery {
		s.retained = now
		s.fresh.Store(0)
		s.retain(now)
	}
	s.completeIndexes(ctx)
	s.measure()
}

// Flush cuts all heads into blocks and makes them known to the index.
func (s *Store) Flush(ctx context.Context) error {
	s.mu.Lock()
	for _, src := range s.sources {
		s.seal(src)
	}
	s.mu.Unlock()
	for ctx.Err() == nil && s.cutOne() {
	}
	s.mu.RLock()
	err := s.cutErr
	s.mu.RUnlock()
	if err != nil {
		return err
	}
	s.completeIndexes(ctx)
	return s.checkpoint()
}

// sealDue seals heads that are old or keep the write-ahead log from shrinking,
// and forgets sources without lines.
func (s *Store) sealDue(now time.Time) {
	_, second := s.wal.Oldest()
	large := s.wal.Bytes() > s.cfg.WALBytes
	s.mu.Lock()
	defer s.mu.Unlock()
	for h, src := range s.sources {
		switch {
		case src.head == nil:
			// A source must outlive its entries in the write-ahead log.
			if first, _ := s.wal.Oldest(); now.Sub(src.idle) > s.cfg.HeadAge && src.done.Seq < first && !s.hasSealed(h) {
				delete(s.sources, h)
				clear(s.byPointer)
			}
		case now.Sub(src.head.born) >= s.cfg.HeadAge:
			src.fast = false
			s.seal(src)
		case large && src.head.oldest < second:
			s.seal(src)
		}
	}
}

func (s *Store) hasSealed(hash uint64) bool {
	for _, h := range s.sealed {
		if h.hash == hash {
			return true
		}
	}
	return false
}

// checkpoint makes blocks durable, writes down what they and the write-ahead
// log need no longer say, and lets go of old segments.
func (s *Store) checkpoint() error {
	s.maintaining.Lock()
	defer s.maintaining.Unlock()
	s.mu.Lock()
	if s.closed || !s.dirty || s.wal == nil {
		s.mu.Unlock()
		return nil
	}
	s.dirty = false
	keep := s.lastSeq + 1
	for _, src := range s.sources {
		if src.head != nil {
			keep = min(keep, src.head.oldest)
		}
	}
	for _, h := range s.sealed {
		keep = min(keep, h.oldest)
	}
	first, _ := s.wal.Oldest()
	var cp checkpoint
	for h, src := range s.sources {
		// The number of a stream's next line must be known even where its blocks
		// are gone, or not yet copied.
		if src.done.Seq >= first && src.done.Seq > 0 || src.head != nil && src.head.first > 0 {
			done := src.next
			if src.head != nil {
				done = src.head.first
			}
			cp.Marks = append(cp.Marks, mark{Hash: h, Next: done, place: src.done})
		}
	}
	for _, h := range s.sealed { // the mark must not count lines that are not cut
		for i := range cp.Marks {
			if cp.Marks[i].Hash == h.hash {
				cp.Marks[i].Next = min(cp.Marks[i].Next, h.first)
			}
		}
	}
	cp.Positions = make([]record.Position, 0, len(s.positions))
	for _, p := range s.positions {
		cp.Positions = append(cp.Positions, p)
	}
	var current *partition
	if n := len(s.parts); n > 0 {
		current = s.parts[n-1]
	}
	s.mu.Unlock()
	err := s.commit(current, &cp, keep)
	if err != nil {
		s.mu.Lock()
		s.dirty = true // try again
		s.mu.Unlock()
	}
	return err
}

func (s *Store) commit(current *partition, cp *checkpoint, keep uint64) error {
	if current != nil {
		size, err := current.file.Sync()
		if err != nil {
			return err
		}
		cp.Partition, cp.Bytes = current.name, size
	}
	if err := writeCheckpoint(s.cfg.Dir, *cp); err != nil {
		return err
	}
	return s.wal.Truncate(keep)
}

func writeCheckpoint(dir string, cp checkpoint) error {
	b, err := json.Marshal(cp)
	if err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	path := filepath.Join(dir, checkpointName)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = syncDirs(dir)
	}
	if err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	return nil
}

// uses is what retention and sealing look at: the closed partitions, and the
// bytes of the one being written and of the write-ahead log.
func (s *Store) uses(by policy) (closed []partitionUse, current int64) {
	s.mu.RLock()
	parts := s.parts
	s.mu.RUnlock()
	current = s.wal.Bytes()
	for i, p := range parts {
		if i == len(parts)-1 {
			return closed, current + p.bytes()
		}
		u := partitionUse{name: p.name, end: parts[i+1].start, bytes: p.bytes(), sealed: p.isSealed(), retry: p.waits()}
		if len(by.namespaces) > 0 {
			u.namespaces = map[string]int64{}
			for _, m := range s.blocks(p) {
				u.namespaces[m.Stream.Namespace] += m.Size()
			}
		}
		closed = append(closed, u)
	}
	return closed, current
}

// retain removes partitions that are too old or too many.
func (s *Store) retain(now time.Time) {
	s.tidying.Lock()
	defer s.tidying.Unlock()
	by := s.cfg.policy()
	closed, current := s.uses(by)
	for _, r := range decideRemovals(now.UTC(), closed, current, by) {
		p := s.replace(r.name, nil)
		if p == nil {
			continue
		}
		if err := errors.Join(p.close(), os.RemoveAll(p.dir)); err != nil {
			s.log.Error("partition was not removed", "part", p.name, "err", err)
			continue
		}
		s.m.removed.WithLabelValues(r.reason).Inc()
		if r.reason == removedEarly {
			s.log.Warn("partition removed before its age", "part", r.name, "bytes", by.bytes)
		} else {
			s.log.Info("partition removed", "part", r.name, "reason", r.reason)
		}
	}
}

// replace puts next in the place of the partition of that name, or nothing, and
// returns what was there.
func (s *Store) replace(name string, next *partition) *partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.IndexFunc(s.parts, func(p *partition) bool { return p.name == name })
	if at < 0 {
		return nil
	}
	was := s.parts[at]
	s.parts = slices.Clone(s.parts)
	if next == nil {
		s.parts = slices.Delete(s.parts, at, at+1)
	} else {
		s.parts[at] = next
	}
	return was
}

// completeIndexes opens, makes or continues the index of every partition whose
// blocks are not all indexed. Queries scan what is missing meanwhile.
func (s *Store) completeIndexes(ctx context.Context) {
	s.tidying.Lock()
	defer s.tidying.Unlock()
	s.mu.RLock()
	parts := append([]*partition(nil), s.parts...)
	s.mu.RUnlock()
	for i, p := range slices.Backward(parts) { // what is new is asked for most
		if ctx.Err() != nil {
			return
		}
		if err := s.completeIndex(ctx, p, i == len(parts)-1); err != nil {
			s.log.Error("index was not completed", "part", p.name, "err", err)
			if err := p.dropIndex(); err != nil {
				s.log.Warn("index was not closed", "part", p.name, "err", err)
			}
		}
	}
}

func (s *Store) blocks(p *partition) []*block.Meta {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return p.metas
}

func (s *Store) completeIndex(ctx context.Context, p *partition, writing bool) error {
	if writing && s.learns() || p.isStale() {
		return nil
	}
	x := p.index()
	if x == nil {
		metas := s.blocks(p)
		var err error
		if index.Exists(p.indexDir()) {
			if x, err = index.Open(p.indexDir(), len(metas)); err != nil {
				s.log.Warn("index was broken", "part", p.name, "err", err)
			}
		}
		if x == nil {
			if writing && len(metas) < s.cfg.LearnBlocks {
				return nil // too little to learn from
			}
			vocab := s.relearn(p)
			if vocab == nil {
				vocab = s.learnAll(p)
			}
			if x, err = index.Create(p.indexDir(), vocab); err != nil {
				return err
			}
			s.m.rebuilds.Inc()
		}
		p.setIndex(x)
	}
	// Blocks are added in order, by us or by cut: whoever comes first.
	for ctx.Err() == nil {
		s.cutting.Lock()
		n := x.Added()
		metas := s.blocks(p)
		if n >= len(metas) {
			s.cutting.Unlock()
			break
		}
		texts, err := p.file.ReadWords(metas[n])
		if err == nil {
			err = x.Add(n, texts...)
		} else if errors.Is(err, block.ErrDamaged) {
			s.m.damaged.Add(float64(metas[n].Size()))
			err = x.Add(n) // there is nothing to be found
		}
		s.cutting.Unlock()
		if err != nil {
			return err
		}
	}
	return x.Flush()
}

// learns tells whether cut is about to make the index of the partition being
// written.
func (s *Store) learns() bool {
	s.cutting.Lock()
	defer s.cutting.Unlock()
	return s.learner != nil
}

// learnAll makes a vocabulary of a small partition.
func (s *Store) learnAll(p *partition) *index.Vocabulary {
	l := index.NewLearner()
	for _, m := range s.blocks(p) {
		if texts, err := p.file.ReadWords(m); err == nil {
			l.Add(texts...)
		}
	}
	return l.Vocabulary()
}

func (s *Store) measure() {
	s.mu.RLock()
	parts := s.parts
	s.mu.RUnlock()
	bytes := int64(0)
	for _, p := range parts { // looks at the disk: lines must not wait for that
		bytes += p.bytes()
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	missing := 0
	for _, p := range s.parts {
		missing += len(p.metas)
		if x := p.index(); x != nil {
			missing -= min(x.Upto(), len(p.metas))
		}
	}
	s.m.diskBytes.Set(float64(bytes))
	s.m.unindexed.Set(float64(missing))
	s.m.partitions.Set(float64(len(s.parts)))
	s.m.headBytes.Set(float64(s.headBytes))
	s.m.positions.Set(float64(len(s.positions)))
	s.m.followers.Set(float64(len(s.followers)))
}

package store

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"perch/logs/block"
	"perch/logs/index"
)

// Run cuts blocks, writes checkpoints, keeps indexes complete, seals closed
// partitions and removes what is too old, until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	var beside sync.WaitGroup // what may take long: checkpoints and retention do not wait for it
	beside.Go(func() { s.sealClosed(ctx) })
	beside.Go(func() { s.keepIndexes(ctx) })
	defer beside.Wait()
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
		at := s.judge(now)
		if err := s.closeOld(at); err != nil {
			s.log.Error("partition was not closed", "err", err)
		}
		s.retain(at)
	}
	s.letGo(now)
	s.measure()
}

// keepIndexes completes indexes until ctx ends.
func (s *Store) keepIndexes(ctx context.Context) {
	tick := time.NewTicker(s.cfg.CheckpointEvery)
	defer tick.Stop()
	for {
		s.completeIndexes(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Flush cuts all heads into blocks and makes them known to the index.
func (s *Store) Flush(ctx context.Context) error {
	s.mu.Lock()
	s.sealAll(slices.Collect(maps.Values(s.sources)))
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

// sealAll seals heads, small ones of like streams beside each other.
func (s *Store) sealAll(sources []*source) {
	var large, small []*source
	for _, src := range sources {
		switch {
		case src.head == nil:
		case src.head.content() < s.cfg.small():
			small = append(small, src)
		default:
			large = append(large, src)
		}
	}
	slices.SortFunc(small, func(a, b *source) int { return a.stream.Compare(b.stream) })
	for _, src := range append(large, small...) {
		s.seal(src)
	}
}

// done tells of sources whether they may be forgotten: they must outlive their lines
// that are not cut, and their entries in the write-ahead log, which begins at first.
func (s *Store) done(first uint64) func(*source) bool {
	waiting := map[uint64]bool{}
	for _, h := range s.sealed {
		waiting[h.hash] = true
	}
	return func(src *source) bool { return src.head == nil && src.done.Seq < first && !waiting[src.hash] }
}

// sealDue seals heads that are old or keep the write-ahead log from shrinking,
// and forgets sources without lines. With old ones go those of half the age: small
// ones are written together.
func (s *Store) sealDue(now time.Time) {
	first, second := s.wal.Oldest()
	large := s.wal.Bytes() > s.cfg.WALBytes
	s.mu.Lock()
	defer s.mu.Unlock()
	var due, soon []*source
	done := s.done(first)
	forgot := false
	for h, src := range s.sources {
		if src.head == nil {
			if now.Sub(src.idle) > s.cfg.HeadAge && done(src) {
				delete(s.sources, h)
				forgot = true
			}
			continue
		}
		switch age := now.Sub(src.head.born); {
		case age >= s.cfg.HeadAge:
			src.fast = false
			due = append(due, src)
		case large && src.head.oldest < second:
			due = append(due, src)
		case age >= s.cfg.HeadAge/2 && src.head.content() < s.cfg.small():
			soon = append(soon, src)
		}
	}
	if forgot {
		clear(s.byPointer)
	}
	if len(due) > 0 {
		s.sealAll(append(due, soon...))
	}
}

// uses is what retention and sealing look at: the closed partitions, the one being
// written, and the bytes of that and of the write-ahead log.
func (s *Store) uses(by policy, now time.Time) (closed []partitionUse, open partitionUse, current int64) {
	s.mu.RLock()
	parts := s.parts
	s.mu.RUnlock()
	current = s.wal.Bytes()
	for i, p := range parts {
		u := partitionUse{name: p.name, start: begunAt(p.start, p.opened, now), bytes: p.bytes(), sealed: p.isSealed(), retry: p.waits()}
		if len(by.namespaces) > 0 {
			u.namespaces = map[string]int64{}
			for name, have := range s.namespaces(p) {
				u.namespaces[name] = have.bytes
			}
		}
		if i == len(parts)-1 {
			return closed, u, current + u.bytes
		}
		u.end = closedAt(parts[i+1].start, p.written(), now)
		closed = append(closed, u)
	}
	return closed, open, current
}

// closeOld closes the partition being written when it is old: on a machine where nothing
// more is written nobody else would, and its lines would stay for ever.
func (s *Store) closeOld(now time.Time) error {
	s.mu.RLock()
	old := false
	if n := len(s.parts); n > 0 {
		p := s.parts[n-1]
		old = !p.lent && decideRoll(now, begunAt(p.start, p.opened, now), 0, p.count, s.cfg)
	}
	s.mu.RUnlock()
	if !old {
		return nil
	}
	return s.rollNow()
}

// retain removes partitions that are too old or too many.
func (s *Store) retain(now time.Time) {
	s.tidying.Lock()
	defer s.tidying.Unlock()
	by := s.cfg.policy()
	closed, _, current := s.uses(by, now)
	for _, r := range decideRemovals(now.UTC(), closed, current, by) {
		p := s.replace(r.name, nil)
		if p == nil {
			continue
		}
		free := p.claim()
		err := errors.Join(p.close(), os.RemoveAll(p.dir))
		free()
		if err != nil {
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
	s.completing.Lock()
	defer s.completing.Unlock()
	s.mu.RLock()
	parts := append([]*partition(nil), s.parts...)
	s.mu.RUnlock()
	for i, p := range slices.Backward(parts) { // what is new is asked for most
		if ctx.Err() != nil {
			return
		}
		if err := s.completeIndex(ctx, p, i == len(parts)-1); err != nil {
			s.failed("index was not completed", err, "part", p.name)
		}
	}
}

func (s *Store) completeIndex(ctx context.Context, p *partition, writing bool) error {
	p.tidy.Lock()
	defer p.tidy.Unlock()
	s.mu.RLock()
	there := slices.Contains(s.parts, p)
	s.mu.RUnlock()
	if !there {
		return nil // removed or replaced meanwhile
	}
	err := s.complete(ctx, p, writing)
	if err != nil {
		err = errors.Join(err, p.dropIndex())
	}
	return err
}

func (s *Store) complete(ctx context.Context, p *partition, writing bool) error {
	if writing && s.learns() || p.isStale() {
		return nil
	}
	x := p.index()
	if x != nil && index.Lost(p.indexDir()) {
		s.log.Warn("index was deleted while it was in use, and is built anew", "part", p.name)
		s.cutting.Lock()
		err := p.dropIndex()
		s.cutting.Unlock()
		if err != nil {
			s.log.Warn("index was not closed", "part", p.name, "err", err)
		}
		x = nil
	}
	if x == nil {
		blocks := s.count(p)
		var err error
		if index.Exists(p.indexDir()) {
			if x, err = index.Open(p.indexDir(), blocks); err != nil {
				s.log.Warn("index was broken", "part", p.name, "err", err)
			}
		}
		if x == nil {
			if writing && blocks < s.cfg.LearnBlocks {
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
	for ctx.Err() == nil && p.claimed.Load() == 0 {
		s.cutting.Lock()
		n := x.Added()
		if n >= s.count(p) {
			s.cutting.Unlock()
			break
		}
		metas, err := s.blocks(p)
		if err != nil {
			s.cutting.Unlock()
			return err
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
	metas, err := s.blocks(p)
	if err != nil {
		s.failed("blocks were not read", err)
	}
	for _, m := range metas {
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
	missing, known := 0, int64(0)
	for _, p := range s.parts {
		known += p.knows()
		missing += p.count
		if x := p.index(); x != nil {
			missing -= min(x.Upto(), p.count)
		}
	}
	s.m.diskBytes.Set(float64(bytes))
	s.m.unindexed.Set(float64(missing))
	s.m.partitions.Set(float64(len(s.parts)))
	s.m.knownBytes.Set(float64(known))
	s.m.headBytes.Set(float64(s.headBytes))
	s.m.positions.Set(float64(len(s.positions)))
	s.m.followers.Set(float64(len(s.followers)))
	s.m.followBytes.Set(float64(s.following()))
}

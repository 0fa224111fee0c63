package store

import (
	"fmt"
	"os"
	"time"

	"perch/logs/block"
	"perch/logs/index"
)

// maxSealed heads may wait before appenders cut blocks themselves.
const maxSealed = 8

// help cuts blocks in the appender's goroutine while the queue is long. A disk
// that refuses blocks is not the appender's failure: its lines are durable.
func (s *Store) help() error {
	for {
		s.mu.RLock()
		long := len(s.sealed) > maxSealed && s.cutErr == nil
		s.mu.RUnlock()
		if !long {
			return nil
		}
		if more := s.cutOne(); !more {
			return nil
		}
	}
}

// cutOne writes the oldest sealed head as a block. It returns false when there
// was none or it could not be written; it stays in the queue then.
func (s *Store) cutOne() bool {
	s.cutting.Lock()
	defer s.cutting.Unlock()
	s.mu.RLock()
	var h *head
	if len(s.sealed) > 0 {
		h = s.sealed[0]
	}
	s.mu.RUnlock()
	if h == nil {
		return false
	}
	err := s.cut(h)
	s.mu.Lock()
	s.cutErr = err
	s.mu.Unlock()
	if err != nil {
		s.m.cutFailures.Inc()
		s.log.Error("block was not written", "err", err)
		return false
	}
	return true
}

func (s *Store) cut(h *head) error {
	p, err := s.writable()
	if err != nil {
		return err
	}
	m := &block.Meta{Stream: h.stream, Hash: h.hash, First: h.first, Seq: h.last.Seq, Ord: h.last.Ord}
	s.encoded = s.codec.Encode(s.encoded[:0], m, &h.lines)
	if err := p.file.Append(m, s.encoded); err != nil {
		return err
	}
	s.mu.Lock()
	n := len(p.metas)
	p.know(m)
	s.sealed[0] = nil // or the array keeps its memory
	s.sealed = s.sealed[1:]
	s.sealedBytes -= h.memory
	s.headBytes -= h.memory
	if src := s.sources[h.hash]; src != nil {
		src.done = h.last
	}
	s.dirty = true
	unseen := s.views.Load() == 0 // no view has the head, and none can get it any more
	s.mu.Unlock()
	s.m.blocks.Inc()
	s.m.blockBytes.Add(float64(len(s.encoded)))
	s.fresh.Add(int64(len(s.encoded)))
	s.indexNext(p, n, s.codec.Words())
	if unseen {
		s.keepMemory(h)
	}
	return nil
}

// keepMemory keeps the memory of a head that was cut for another one.
func (s *Store) keepMemory(h *head) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := h.lines.Bytes(); len(s.spare) < maxSealed && n >= s.cfg.BlockBytes && n <= 2*s.cfg.BlockBytes {
		h.lines.Reset()
		s.spare = append(s.spare, h.lines)
	}
}

// indexNext makes block n, which was just written, known to the partition's
// index. Failure costs only that: completeIndex makes up for it.
func (s *Store) indexNext(p *partition, n int, words [][]byte) {
	var err error
	if x := p.index(); x != nil {
		if x.Added() != n {
			return
		}
		err = x.Add(n, words...)
	} else if s.learner != nil && s.learner.Blocks() == n {
		if s.learner.Add(words...) && n+1 < s.cfg.LearnBlocks {
			return
		}
		if x, err = index.Create(p.indexDir(), s.learner.Vocabulary()); err == nil {
			err = x.Take(s.learner)
			p.setIndex(x)
		}
		s.learner = nil
	}
	if err == nil {
		return
	}
	s.log.Error("block was not indexed", "err", err)
	if err := p.dropIndex(); err != nil {
		s.log.Warn("index was not closed", "err", err)
	}
}

// writable returns the partition for the next block, closing the current one
// when it is old or large. Called with cutting held.
func (s *Store) writable() (*partition, error) {
	now := time.Now().UTC()
	s.mu.RLock()
	var p *partition
	if n := len(s.parts); n > 0 {
		p = s.parts[n-1]
	}
	s.mu.RUnlock()
	if p != nil && !p.lent && (!s.roll || len(p.metas) == 0) && !decideRoll(now, p.start, p.file.Size(), len(p.metas), s.cfg) {
		return p, nil
	}
	var vocab *index.Vocabulary
	if p != nil && !p.lent {
		if _, err := p.file.Sync(); err != nil {
			return nil, err
		}
		vocab = s.relearn(p)
	}
	if p != nil {
		now = latest(now, p.start.Add(time.Millisecond))
	}
	next, _, err := openPartition(s.cfg.Dir, now.Format(partitionName), s.codec, 0)
	if err != nil {
		return nil, err
	}
	if err := syncDirs(next.dir, partitionsDir(s.cfg.Dir)); err != nil {
		return nil, fmt.Errorf("open partition %s: %w", next.name, err)
	}
	s.learner = nil
	if vocab == nil {
		s.learner = index.NewFirstLearner(learnBytes)
	} else if x, err := index.Create(next.indexDir(), vocab); err != nil {
		s.log.Error("index was not made", "err", err)
	} else {
		next.setIndex(x)
	}
	s.mu.Lock()
	s.parts = append(s.parts, next)
	s.mu.Unlock()
	s.log.Info("partition opened", "part", next.name)
	return next, nil
}

// learnBytes of words of the very first blocks may be kept until their
// vocabulary is frozen.
const learnBytes = 4 << 20

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func syncDirs(dirs ...string) error {
	for _, d := range dirs {
		f, err := os.Open(d)
		if err != nil {
			return err
		}
		err = f.Sync()
		_ = f.Close() // read only
		if err != nil {
			return err
		}
	}
	return nil
}

// relearn makes a vocabulary from sample blocks all over a partition.
func (s *Store) relearn(p *partition) *index.Vocabulary {
	s.mu.RLock()
	metas := p.metas
	s.mu.RUnlock()
	if len(metas) < s.cfg.LearnBlocks {
		if x := p.index(); x != nil {
			return x.Vocabulary()
		}
		return nil
	}
	l := index.NewLearner()
	for i := range s.cfg.LearnBlocks {
		texts, err := p.file.ReadWords(metas[i*len(metas)/s.cfg.LearnBlocks])
		if err != nil {
			s.log.Error("block was not read", "err", err)
			return nil
		}
		l.Add(texts...)
	}
	return l.Vocabulary()
}

package store

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"time"

	"perch/logs/block"
	"perch/logs/index"
)

// help cuts blocks in the appender's goroutine while the queue is long. A disk
// that refuses blocks is not the appender's failure: its lines are durable.
func (s *Store) help() error {
	for {
		s.mu.RLock()
		long := len(s.sealed) > 0 && decideHelp(s.sealedLarge, s.headBytes, s.cfg) && s.cutErr == nil
		s.mu.RUnlock()
		if !long {
			return nil
		}
		if more := s.cutOne(); !more {
			return nil
		}
	}
}

// cutOne writes the oldest sealed head as a block, small ones together. It returns
// false when there was none or it could not be written; it stays in the queue then.
func (s *Store) cutOne() bool {
	s.cutting.Lock()
	defer s.cutting.Unlock()
	s.mu.RLock()
	heads := slices.Clone(s.sealed[:together(s.sealed, s.cfg.small())])
	s.mu.RUnlock()
	if len(heads) == 0 {
		return false
	}
	err := s.cut(heads)
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

// cut writes heads, the first of the queue, as one record.
func (s *Store) cut(heads []*head) error {
	p, err := s.writable()
	if err != nil {
		return err
	}
	metas, words, err := s.write(p, heads)
	if err != nil {
		return err
	}
	s.mu.Lock()
	n := len(p.metas)
	p.know(metas...)
	for i, h := range heads {
		s.sealed[i] = nil // or the array keeps its memory
		s.sealedBytes -= h.memory
		s.headBytes -= h.memory
		if h.content() >= s.cfg.small() {
			s.sealedLarge--
		}
		if src := s.sources[h.hash]; src != nil {
			src.done = h.last
		}
	}
	s.sealed = s.sealed[len(heads):]
	s.dirty = true
	unseen := s.views.Load() == 0 // no view has the heads, and none can get them any more
	s.mu.Unlock()
	s.m.blocks.Add(float64(len(heads)))
	s.m.blockBytes.Add(float64(len(s.encoded)))
	s.fresh.Add(int64(len(s.encoded)))
	for i, h := range heads {
		s.indexNext(p, n+i, words[i])
		if unseen {
			s.keepMemory(h)
		}
	}
	return nil
}

// write puts heads into the file and returns the words of each, valid until the
// next one is written.
func (s *Store) write(p *partition, heads []*head) (metas []*block.Meta, words [][][]byte, err error) {
	for _, h := range heads {
		metas = append(metas, &block.Meta{Stream: h.stream, Hash: h.hash, First: h.first, Seq: h.last.Seq, Ord: h.last.Ord})
	}
	if len(heads) == 1 {
		s.encoded = s.codec.Encode(s.encoded[:0], metas[0], &heads[0].lines)
		return metas, [][][]byte{s.codec.Words()}, p.file.Append(metas[0], s.encoded)
	}
	var b block.Bundle
	for i, h := range heads {
		s.codec.Add(&b, metas[i], &h.lines)
		words = append(words, cloned(s.codec.Words()))
	}
	s.encoded = s.codec.EncodeBundle(s.encoded[:0], &b)
	return metas, words, p.file.AppendBundle(&b, s.encoded)
}

func cloned(texts [][]byte) (out [][]byte) {
	for _, t := range texts {
		out = append(out, bytes.Clone(t))
	}
	return out
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
	now := s.judge(time.Now()).UTC()
	s.mu.RLock()
	var p *partition
	if n := len(s.parts); n > 0 {
		p = s.parts[n-1]
	}
	s.mu.RUnlock()
	if p != nil && !p.lent && (!s.roll || len(p.metas) == 0) && !decideRoll(now, begunAt(p.start, p.opened, now), p.file.Size(), len(p.metas), s.cfg) {
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
	metas, err := s.blocks(p)
	if err != nil {
		s.failed("blocks were not read", err)
	}
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

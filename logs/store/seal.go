package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"perch/logs/block"
	"perch/logs/index"
)

// Sealing takes one part in sealRest+1 of a core's time.
const (
	sealRest  = 3
	sealEvery = 10 * time.Second // to look for a partition
	sealRetry = 10 * time.Minute // after a failure
)

// sealClosed writes closed partitions anew, a block at a time with rests
// between, until ctx ends.
func (s *Store) sealClosed(ctx context.Context) {
	tick := time.NewTicker(sealEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if err := s.rewriteDue(ctx, now, sealRest); err != nil && ctx.Err() == nil {
				s.failed("partition was not sealed", err)
			}
		}
	}
}

// Seal closes the partition being written and seals all closed ones at once.
func (s *Store) Seal(ctx context.Context) error {
	if err := s.Flush(ctx); err != nil {
		return err
	}
	if err := s.rollNow(); err != nil {
		return err
	}
	return s.rewriteDue(ctx, time.Now(), 0)
}

// rollNow closes the partition being written.
func (s *Store) rollNow() error {
	s.cutting.Lock()
	defer s.cutting.Unlock()
	s.roll = true
	_, err := s.writable()
	s.roll = false
	return err
}

// rewriteDue writes anew what decideRewrite names. After each block it rests
// for so many times the time that took.
func (s *Store) rewriteDue(ctx context.Context, now time.Time, rest int) error {
	s.rewriting.Lock()
	defer s.rewriting.Unlock()
	now = s.judge(now)
	for ctx.Err() == nil {
		by := s.cfg.policy()
		closed, open, _ := s.uses(by, now)
		if name, ok := decideRollFor(now.UTC(), open.start, closed, open.namespaces, by, s.cfg); ok {
			if err := s.rollNow(); err != nil {
				return err
			}
			s.log.Info("partition closed early", "part", open.name, "namespace", name, "bytes", open.namespaces[name])
			continue
		}
		r, ok := decideRewrite(now.UTC(), closed, by)
		if !ok {
			return nil
		}
		if err := s.rewrite(ctx, r, rest, now); err != nil {
			return fmt.Errorf("seal partition %s: %w", r.name, err)
		}
	}
	return ctx.Err()
}

// rewrite makes a partition's blocks large and its index one segment. Queries
// use what is there until the new files are complete; then they scan until the
// new index is open.
func (s *Store) rewrite(ctx context.Context, r rewrite, rest int, now time.Time) (err error) {
	s.mu.RLock()
	at := slices.IndexFunc(s.parts, func(p *partition) bool { return p.name == r.name })
	var p *partition
	if at >= 0 {
		p = s.parts[at]
		p.take() // its file stays open
	}
	s.mu.RUnlock()
	if p == nil {
		return nil
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			s.m.sealFailed.Inc()
			p.wait(now.Add(sealRetry))
		}
		if err := p.drop(); err != nil {
			s.log.Warn("partition was not closed", "part", p.name, "err", err)
		}
	}()
	left, err := s.writeAnew(ctx, p, r, rest)
	if err != nil {
		return errors.Join(err, os.RemoveAll(p.newBlocks()), os.RemoveAll(p.newIndex()))
	}
	s.tidying.Lock()
	defer s.tidying.Unlock()
	free := p.claim()
	defer free()
	if left == 0 {
		if s.replace(p.name, nil) == nil {
			return nil
		}
		s.m.removed.WithLabelValues("namespaces").Inc()
		return errors.Join(p.close(), os.RemoveAll(p.dir))
	}
	return s.swap(p, r)
}

// writeAnew writes the new blocks and their index beside the old ones and
// returns the number of blocks.
func (s *Store) writeAnew(ctx context.Context, p *partition, r rewrite, rest int) (int, error) {
	codec, err := block.NewSealCodec()
	if err != nil {
		return 0, err
	}
	defer codec.Close()
	metas, err := s.blocks(p)
	if err != nil {
		return 0, err
	}
	kept, dropped := r.split(metas)
	for reason, n := range dropped {
		s.m.dropped.WithLabelValues(reason).Add(float64(n))
	}
	if len(kept) == 0 {
		return 0, nil
	}
	vocab := s.relearn(p)
	if vocab == nil {
		vocab = s.learnAll(p)
	}
	if err := os.RemoveAll(p.newBlocks()); err != nil {
		return 0, err
	}
	file, _, _, err := block.Open(p.newBlocks(), codec, 0)
	if err != nil {
		return 0, err
	}
	b, err := index.Build(p.newIndex(), vocab)
	if err != nil {
		return 0, errors.Join(err, file.Close())
	}
	w := rewriter{from: p.file, to: file, codec: codec, index: b, size: s.cfg.SealBytes, few: s.cfg.small(), rest: rest}
	if err = w.all(ctx, kept); err == nil {
		_, err = file.Sync()
	}
	if err != nil {
		return 0, errors.Join(err, file.Close(), b.Abandon())
	}
	if w.gone > 0 {
		s.m.dropped.WithLabelValues("damaged").Add(float64(w.gone))
		s.log.Error("damaged blocks were left out: what they were written with is not kept as it was", "part", p.name, "count", w.gone)
	}
	if w.blocks == 0 {
		return 0, errors.Join(file.Close(), b.Abandon(), os.RemoveAll(p.newBlocks()))
	}
	if w.damaged > 0 {
		s.log.Warn("damaged blocks were kept as they are", "part", p.name, "count", w.damaged)
	}
	return w.blocks, errors.Join(b.Close(), file.Close())
}

// swap puts the new files in the place of the old ones. At no moment is there
// an index beside blocks that it was not made for.
func (s *Store) swap(p *partition, r rewrite) error {
	s.mu.RLock()
	there := slices.Contains(s.parts, p)
	s.mu.RUnlock()
	if !there {
		return nil // removed meanwhile, with its directory
	}
	err := p.dropIndex()
	err = errors.Join(err, os.RemoveAll(p.indexDir()))
	if err == nil {
		err = syncDirs(p.dir)
	}
	if err == nil {
		err = os.Rename(p.newBlocks(), p.blocksFile())
	}
	if err != nil {
		return err
	}
	err = os.Rename(p.newIndex(), p.indexDir()) // without it one is built
	if err == nil {
		err = os.WriteFile(p.sealMark(), []byte(r.reason+"\n"), 0o600)
	}
	err = errors.Join(err, syncDirs(p.dir))
	next, _, openErr := openPartition(s.cfg.Dir, p.name, s.codec, 1<<62)
	if openErr != nil {
		p.setStale() // its file goes on to be read, until this is tried again
		return errors.Join(err, openErr)
	}
	next.sealed = true
	if known, err := s.blocks(p); err == nil {
		next.share(known)
	}
	if x, openErr := index.Open(next.indexDir(), next.count); openErr == nil {
		next.setIndex(x)
	} else {
		err = errors.Join(err, openErr)
	}
	s.replace(p.name, next)
	s.m.sealed.Inc()
	s.log.Info("partition sealed", "part", p.name, "reason", r.reason, "before", p.file.Size(), "bytes", next.file.Size())
	return errors.Join(err, p.close())
}

// rewriter copies blocks, joining those of a stream.
type rewriter struct {
	from, to *block.File
	codec    *block.Codec
	index    *index.Builder
	size     int
	few      int // content of blocks that are written together
	rest     int

	lines, piece block.Lines
	meta         *block.Meta // of lines; nil while there are none
	buf          []byte
	small        block.Bundle
	words        [][][]byte // of the blocks in small
	blocks       int
	damaged      int                      // of them
	gone         int                      // damaged ones that were left out
	sick         map[*block.Meta]struct{} // damaged ones that were seen to already
}

func (w *rewriter) all(ctx context.Context, metas []*block.Meta) error {
	w.sick = map[*block.Meta]struct{}{}
	slices.SortStableFunc(metas, func(a, b *block.Meta) int { // streams one after the other, each in order
		if a.Hash == b.Hash {
			return 0
		}
		return cmp.Or(a.Stream.Compare(b.Stream), cmp.Compare(a.Hash, b.Hash))
	})
	for i, m := range metas {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, seen := w.sick[m]; seen {
			continue
		}
		start := time.Now()
		if w.meta != nil && !w.goesOn(m) {
			if err := w.cut(); err != nil {
				return err
			}
		}
		l, err := w.from.Read(m, &w.piece)
		if errors.Is(err, block.ErrDamaged) {
			err = w.keep(metas, i)
			if err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		if w.meta == nil {
			w.meta = &block.Meta{Stream: m.Stream, Hash: m.Hash, First: m.First}
			w.lines.Reset()
		}
		w.lines.Append(l)
		w.meta.Seq, w.meta.Ord = m.Seq, m.Ord
		if err := pause(ctx, time.Duration(w.rest)*time.Since(start)); err != nil {
			return err
		}
	}
	return w.finish()
}

// finish writes what is at hand.
func (w *rewriter) finish() error {
	if w.meta != nil {
		if err := w.cut(); err != nil {
			return err
		}
	}
	return w.writeSmall()
}

// keep copies damaged block i as it is, with all of its record: what is good in it
// can still be read, and that it is damaged is told. Nothing is kept of a record
// that has blocks which are not to be kept, or which could be read a moment ago.
func (w *rewriter) keep(metas []*block.Meta, i int) error {
	if err := w.finish(); err != nil {
		return err
	}
	if slices.ContainsFunc(metas[:i], metas[i].Beside) {
		w.gone++
		return nil
	}
	record := metas[i].Record(metas)
	copied, err := w.to.Copy(w.from, record)
	if err != nil {
		return err
	}
	for _, m := range record {
		w.sick[m] = struct{}{}
	}
	if len(copied) == 0 {
		w.gone += len(record)
	}
	for range copied {
		w.blocks++
		w.damaged++
		if err := w.index.Add(); err != nil { // its words cannot be told
			return err
		}
	}
	return nil
}

// goesOn tells whether m continues the lines at hand, and there is room.
func (w *rewriter) goesOn(m *block.Meta) bool {
	return m.Hash == w.meta.Hash && m.First == w.meta.First+uint64(w.lines.Len()) &&
		int64(len(w.lines.Text)+len(w.lines.Fields))+m.Raw <= int64(w.size+w.size/8)
}

func (w *rewriter) cut() error {
	meta := w.meta
	w.meta = nil
	if len(w.lines.Text)+len(w.lines.Fields) < w.few {
		w.codec.Add(&w.small, meta, &w.lines)
		w.words = append(w.words, cloned(w.codec.Words()))
		if w.small.Bytes() < bundleBytes {
			return nil
		}
		return w.writeSmall()
	}
	if err := w.writeSmall(); err != nil { // blocks have the order of their index
		return err
	}
	w.buf = w.codec.Encode(w.buf[:0], meta, &w.lines)
	if err := w.to.Append(meta, w.buf); err != nil {
		return err
	}
	w.blocks++
	return w.index.Add(w.codec.Words()...)
}

// writeSmall writes the small blocks at hand as one record.
func (w *rewriter) writeSmall() error {
	if len(w.words) == 0 {
		return nil
	}
	w.buf = w.codec.EncodeBundle(w.buf[:0], &w.small)
	if err := w.to.AppendBundle(&w.small, w.buf); err != nil {
		return err
	}
	for _, words := range w.words {
		if err := w.index.Add(words...); err != nil {
			return err
		}
	}
	w.blocks += len(w.words)
	w.words = nil
	w.small.Reset()
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

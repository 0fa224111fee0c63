package store

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"perch/logs/block"
)

// What is told of blocks is kept in memory, but no more than this of the bytes that
// blocks may have: full ones need about half of it, those of thousands of streams that
// wrote a few lines each would need more than their lines. What is told of the blocks
// of closed partitions that were not asked for lately is let go of, and read again: of
// those asked for longest ago when it is too much, and of all after knownIdle, which
// costs 1 µs a block when they are asked for again.
const (
	knownPart  = 200
	knownLeast = 32 << 20
	knownIdle  = 2 * time.Minute
)

// What one block, and one stream of a partition, take about.
const (
	knownBlock  = 240
	knownStream = 300
)

// mostBlocks are in a partition, because what is told of the one being written is not
// let go of: they take 7 MB. Only those of very many short streams are so small that it
// closes before its size does.
const mostBlocks = 10_000

// mostKnown is how much may be kept for so many bytes of blocks; 0 is any number.
func mostKnown(bytes int64) int64 { return max(knownLeast, bytes/knownPart) }

// end is the number after the last line of a stream.
type end struct{ hash, number uint64 }

// knows is about how much memory it takes what is told of the blocks. Called with
// Store.mu held.
func (p *partition) knows() int64 {
	n := 16 * int64(len(p.sums))
	if p.metas != nil {
		n += knownBlock*int64(len(p.metas)) + knownStream*int64(max(len(p.ends), len(p.sums)))
	}
	return n
}

// forget lets go of what is told of the blocks; what is asked for without a question is
// kept. Called with Store.mu held.
func (p *partition) forget() {
	if p.sums == nil {
		p.parts = usesOf(p.metas)
		p.sums = make([]end, 0, len(p.ends))
		for hash, number := range p.ends {
			p.sums = append(p.sums, end{hash, number})
		}
		slices.SortFunc(p.sums, func(a, b end) int { return cmp.Compare(a.hash, b.hash) })
	}
	p.metas, p.ends = nil, nil
}

// ended is the number after the last line of a stream, if it has any here. Called with
// Store.mu held.
func (p *partition) ended(hash uint64) (uint64, bool) {
	if p.sums == nil {
		n, ok := p.ends[hash]
		return n, ok
	}
	at, ok := slices.BinarySearchFunc(p.sums, hash, func(e end, hash uint64) int { return cmp.Compare(e.hash, hash) })
	if !ok {
		return 0, false
	}
	return p.sums[at].number, true
}

// partUse is what the blocks of a namespace have.
type partUse struct {
	bytes          int64
	oldest, newest int64 // times of lines, ns
}

// overlaps tells whether a partition whose blocks were let go of has lines between two
// times.
func (p *partition) overlaps(from, to int64) bool {
	for _, u := range p.parts {
		if u.newest >= from && u.oldest <= to {
			return true
		}
	}
	return false
}

func usesOf(metas []*block.Meta) map[string]partUse {
	out := map[string]partUse{}
	for _, m := range metas {
		u, ok := out[m.Stream.Namespace]
		if !ok {
			u.oldest, u.newest = m.Min, m.Max
		}
		u.oldest, u.newest = min(u.oldest, m.Min), max(u.newest, m.Max)
		u.bytes += m.Size()
		out[m.Stream.Namespace] = u
	}
	return out
}

// namespaces tells what each namespace has in the partition.
func (s *Store) namespaces(p *partition) map[string]partUse {
	s.mu.RLock()
	metas, parts := p.metas, p.parts
	s.mu.RUnlock()
	if parts != nil {
		return parts
	}
	return usesOf(metas)
}

// count is the number of blocks of the partition.
func (s *Store) count(p *partition) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return p.count
}

// errTold is damage that was told when it was found. It stays as long as the partition.
var errTold = fmt.Errorf("%w since they were read before", block.ErrDamaged)

// failed logs an error, unless it is damage that was told.
func (s *Store) failed(msg string, err error, more ...any) {
	if !errors.Is(err, errTold) {
		s.log.Error(msg, append(more, "err", err)...)
	}
}

// blocks are those of the partition, read again if they were let go of. With an error
// they are those that could be read, and have other numbers than before.
func (s *Store) blocks(p *partition) ([]*block.Meta, error) {
	p.asked.Store(time.Now().UnixNano())
	s.mu.RLock()
	metas, count := p.metas, p.count
	s.mu.RUnlock()
	if metas != nil || count == 0 {
		return metas, nil
	}
	p.reading.Lock()
	defer p.reading.Unlock()
	s.mu.RLock()
	metas = p.metas
	s.mu.RUnlock()
	if metas != nil { // by another one meanwhile
		return metas, nil
	}
	metas, skipped, err := p.file.Metas()
	if err == nil && len(metas) != count {
		err = errTold
		if !p.damaged.Swap(true) {
			s.m.damaged.Add(float64(max(1, skipped)))
			s.log.Error("blocks of a closed partition are damaged", "part", p.name, "blocks", count-len(metas), "bytes", skipped)
		}
	}
	if err != nil {
		return metas, fmt.Errorf("read %d blocks of partition %s again: %w", count, p.name, err)
	}
	if p.damaged.Swap(false) {
		s.log.Info("damaged blocks can be read again", "part", p.name)
	}
	s.mu.Lock()
	p.metas = metas
	s.mu.Unlock()
	s.letGo(time.Now())
	return metas, nil
}

// letGo forgets blocks of closed partitions: those that were asked for long ago, and
// more of them, the longest ago first, as long as all take too much memory.
func (s *Store) letGo(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	total := int64(0)
	var closed []*partition
	for i, p := range s.parts {
		total += p.knows()
		if i < len(s.parts)-1 && p.metas != nil {
			closed = append(closed, p)
		}
	}
	slices.SortFunc(closed, func(a, b *partition) int { return cmp.Compare(a.asked.Load(), b.asked.Load()) })
	for _, p := range closed {
		if total <= s.most && now.Sub(time.Unix(0, p.asked.Load())) < knownIdle {
			return // the others were asked for later
		}
		total -= p.knows()
		p.forget()
		total += p.knows()
	}
}

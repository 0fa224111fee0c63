package query

import (
	"cmp"
	"container/heap"
	"context"
	"slices"

	"perch/logs/block"
	"perch/logs/index"
	"perch/logs/record"
	"perch/logs/store"
)

// Query emits the first lines that match in the order asked for.
func (e *Engine) Query(ctx context.Context, r Request, emit func(*Line) error) (Summary, error) {
	r, err := r.Normal()
	if err != nil {
		return Summary{}, err
	}
	if c := r.Cursor; c != nil && r.Around == nil {
		if r.Order == NewestFirst {
			r.To = min(r.To, c.Time)
		} else {
			r.From = max(r.From, c.Time)
		}
	}
	s, end, err := e.begin(ctx, &r)
	if err != nil {
		return Summary{}, err
	}
	defer end()
	if r.Around != nil {
		return s.around(emit)
	}
	kept := &best{order: r.Order, limit: r.Limit}
	pieces := s.pieces()
	slices.SortFunc(pieces, func(a, b store.Piece) int {
		if r.Order == NewestFirst {
			return cmp.Compare(b.Max, a.Max)
		}
		return cmp.Compare(a.Min, b.Min)
	})
	s.each(pieces, func(p *store.Piece) bool { // can the rest have anything better than the worst kept?
		if !kept.full() {
			return false
		}
		worst := kept.lines[0].Time
		return r.Order == NewestFirst && p.Max < worst || r.Order == OldestFirst && p.Min > worst
	}, func(w *worker, p *store.Piece) {
		w.hits = w.hits[:0]
		var lines *block.Lines
		w.matches(p, true, func(l *block.Lines, i int) { lines, w.hits = l, append(w.hits, int32(i)) })
		if len(w.hits) > 0 {
			w.keep(kept, p, lines)
		}
	})
	out := kept.lines
	slices.SortFunc(out, func(a, b *Line) int {
		if r.Order == NewestFirst {
			return b.compare(a.Cursor)
		}
		return a.compare(b.Cursor)
	})
	for _, l := range out {
		if err := emit(l); err != nil {
			return Summary{}, err
		}
	}
	sum := s.summary()
	if len(out) == r.Limit {
		sum.Cursor = out[len(out)-1].String()
	}
	return sum, nil
}

// keep puts those of the worker's hits into kept that belong there.
func (w *worker) keep(kept *best, p *store.Piece, l *block.Lines) {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range w.hits {
		i := int(w.hits[k])
		if s.r.Order == NewestFirst { // the likely best first, so that few are copied
			i = int(w.hits[len(w.hits)-1-k])
		}
		c := Cursor{l.Times[i], p.Hash, p.First + uint64(i)}
		if s.r.Cursor != nil && !s.r.Order.Before(*s.r.Cursor, c) || kept.full() && !s.r.Order.Before(c, kept.lines[0].Cursor) {
			continue
		}
		heap.Push(kept, lineOf(p, l, i))
		if len(kept.lines) > kept.limit {
			heap.Pop(kept)
		}
	}
}

// best is a heap of the lines kept; the worst is on top.
type best struct {
	order Order
	limit int
	lines []*Line
}

func (b *best) full() bool         { return len(b.lines) >= b.limit }
func (b *best) Len() int           { return len(b.lines) }
func (b *best) Less(i, j int) bool { return b.order.Before(b.lines[j].Cursor, b.lines[i].Cursor) }
func (b *best) Swap(i, j int)      { b.lines[i], b.lines[j] = b.lines[j], b.lines[i] }
func (b *best) Push(x any)         { b.lines = append(b.lines, x.(*Line)) }
func (b *best) Pop() any {
	x := b.lines[len(b.lines)-1]
	b.lines = b.lines[:len(b.lines)-1]
	return x
}

// around emits the lines beside one, oldest first by number.
func (s *search) around(emit func(*Line) error) (Summary, error) {
	a := s.r.Around
	first := uint64(0)
	if n := uint64(max(a.Before, 0)); a.Number > n {
		first = a.Number - n
	}
	last := a.Number + uint64(max(a.After, 0))
	pieces := s.view.Select(s.ctx, minTime, maxTime, func(st *record.Stream) bool {
		return st.Hash() == a.Hash && s.r.allows(st.Namespace)
	}, index.Need{})
	slices.SortFunc(pieces, func(a, b store.Piece) int { return cmp.Compare(a.First, b.First) })
	pieces = slices.DeleteFunc(pieces, func(p store.Piece) bool { return p.First > last || p.First+uint64(p.Lines) <= first })
	var out []*Line
	s.each(pieces, nil, func(w *worker, p *store.Piece) {
		l := w.read(p)
		if l == nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range l.Len() {
			if n := p.First + uint64(i); n >= first && n <= last {
				out = append(out, lineOf(p, l, i))
			}
		}
	})
	slices.SortFunc(out, func(a, b *Line) int { return cmp.Compare(a.Number, b.Number) })
	for _, l := range out {
		if err := emit(l); err != nil {
			return Summary{}, err
		}
	}
	return s.summary(), nil
}

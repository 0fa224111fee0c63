package query

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"slices"

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
	store.Sort(pieces, r.Order == NewestFirst)
	s.each(pieces, func(p *store.Piece) bool { // can the rest have anything better than the worst kept?
		if !kept.full() {
			return false
		}
		worst := kept.lines[0].Time
		return r.Order == NewestFirst && p.Later() < worst || r.Order == OldestFirst && p.Sooner() > worst
	}, func(w *worker, p *store.Piece) {
		from, to := s.bounds(kept)
		if p.Max < from || p.Min > to {
			return
		}
		if w.find(p, from, to); len(w.rows) > 0 {
			if err := w.keep(kept); err != nil {
				w.failed(err)
			}
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
	if kept.full() {
		sum.Cursor = out[len(out)-1].String()
	}
	return sum, nil
}

// bounds are the times of lines that may still be kept.
func (s *search) bounds(kept *best) (from, to int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from, to = s.r.From, s.r.To
	if kept.full() {
		if worst := kept.lines[0].Time; s.r.Order == NewestFirst {
			from = max(from, worst)
		} else {
			to = min(to, worst)
		}
	}
	return from, to
}

// keep puts those of the lines found into kept that belong there.
func (w *worker) keep(kept *best) error {
	s := w.s
	times, levels, err := w.times()
	if err != nil {
		return err
	}
	if c := s.r.Cursor; c != nil {
		w.rows = slices.DeleteFunc(w.rows, func(row uint32) bool { return !s.r.Order.Before(*c, w.cursor(row, times[row])) })
	}
	w.first(times, kept.limit)
	if len(w.rows) == 0 {
		return nil
	}
	if err := w.texts(w.rows); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range w.rows {
		if s.r.Order == NewestFirst { // the likely best first, so that few are copied
			k = len(w.rows) - 1 - k
		}
		row := w.rows[k]
		c := w.cursor(row, times[row])
		if kept.full() && !s.r.Order.Before(c, kept.lines[0].Cursor) {
			continue
		}
		kept.add(w.line(k, row, c, levels[row]))
	}
	return nil
}

// first leaves the first n of rows in the order asked for.
func (w *worker) first(times []int64, n int) {
	if len(w.rows) <= n {
		return
	}
	order := w.s.r.Order
	later := func(a, b uint32) int { return cmp.Or(cmp.Compare(times[a], times[b]), cmp.Compare(a, b)) }
	sorted := slices.IsSortedFunc(w.rows, later) // as most are
	if !sorted {
		slices.SortFunc(w.rows, later)
	}
	if order == NewestFirst {
		w.rows = w.rows[len(w.rows)-n:]
	} else {
		w.rows = w.rows[:n]
	}
	if !sorted {
		slices.Sort(w.rows)
	}
}

// MaxAnswer is how many bytes of lines one answer may have. One that has more ends
// sooner, with a cursor to go on from.
const MaxAnswer = 32 << 20

// tooLarge is why an answer that has no next page is partial.
func tooLarge() string { return fmt.Sprintf("more than %d bytes of lines", MaxAnswer) }

// Bytes is about the memory that the line takes.
func (l *Line) Bytes() int { return len(l.Body) + len(l.Fields) + 200 }

// best is a heap of the lines kept; the worst is on top.
type best struct {
	order Order
	limit int
	lines []*Line
	bytes int
	cut   bool // for its bytes: only what is better than the worst is kept
}

func (b *best) full() bool { return b.cut || len(b.lines) >= b.limit }

// add keeps a line, and no longer the worst ones when that is too much.
func (b *best) add(l *Line) {
	heap.Push(b, l)
	b.bytes += l.Bytes()
	for len(b.lines) > 1 && (len(b.lines) > b.limit || b.bytes > MaxAnswer) {
		b.cut = b.cut || b.bytes > MaxAnswer
		if worst, ok := heap.Pop(b).(*Line); ok { // it is one
			b.bytes -= worst.Bytes()
		}
	}
}

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
	pieces := s.choose(minTime, maxTime, func(st *record.Stream) bool {
		return s.may(st) && st.Hash() == a.Hash
	}, index.Need{})
	slices.SortFunc(pieces, func(a, b store.Piece) int { return cmp.Compare(a.First, b.First) })
	pieces = slices.DeleteFunc(pieces, func(p store.Piece) bool { return p.First > last || p.First+uint64(p.Lines) <= first })
	var out []*Line
	bytes := 0
	s.each(pieces, nil, func(w *worker, p *store.Piece) {
		w.turn(p)
		for i := range p.Lines {
			if n := p.First + uint64(i); n >= first && n <= last {
				w.rows = append(w.rows, uint32(i))
			}
		}
		err := w.texts(w.rows)
		var times []int64
		var levels []byte
		if err == nil {
			times, levels, err = w.times()
		}
		if err != nil {
			w.failed(err)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for k, row := range w.rows {
			l := w.line(k, row, w.cursor(row, times[row]), levels[row])
			if bytes += l.Bytes(); bytes > MaxAnswer && l.Number != a.Number {
				s.partial(tooLarge())
				continue
			}
			out = append(out, l)
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

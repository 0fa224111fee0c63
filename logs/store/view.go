package store

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"perch/logs/block"
	"perch/logs/index"
	"perch/logs/record"
)

// Piece is a run of lines of one stream: a block, or a head. Pieces are values
// of a View and must not be used after its Release.
type Piece struct {
	Stream   *record.Stream
	Hash     uint64 // of Stream
	First    uint64 // number of its first line within the stream
	Lines    int
	Bytes    int64 // of text and fields
	Min, Max int64 // times, ns

	record   int   // what it is read together with, by number
	min, max int64 // of all of the view's pieces of that record

	part *partition // nil for a head
	n    int        // number of the block
	meta *block.Meta
	head *block.Lines // of a head; those of a block are read
}

// Times reads times and levels, using l's memory when it can.
func (p *Piece) Times(l *block.Lines) (*block.Lines, error) {
	if p.part == nil {
		return p.head, nil
	}
	return p.part.file.ReadTimes(p.meta, l)
}

// Read reads the lines, using l's memory when it can. The result may be l or
// shared with the store: it must not be changed.
func (p *Piece) Read(l *block.Lines) (*block.Lines, error) {
	if p.part == nil {
		return p.head, nil
	}
	return p.part.file.Read(p.meta, l)
}

// Templated tells whether the piece is a block with templates.
func (p *Piece) Templated() bool { return p.part != nil && p.meta.Templated() }

// Sent tells whether lines of the piece may have fields from their sender.
func (p *Piece) Sent() bool { return p.part == nil || p.meta.Sent() }

// Parts turns b to a piece that has templates.
func (p *Piece) Parts(b *block.Parts) { b.Open(p.part.file, p.meta) }

// Levels counts the lines by level, when that is known without reading.
func (p *Piece) Levels() ([record.LevelCount]uint32, bool) {
	if p.part == nil {
		return [record.LevelCount]uint32{}, false
	}
	return p.meta.Levels, true
}

// View is a consistent picture of the store.
type View struct {
	s      *Store
	parts  []*partition
	blocks [][]*block.Meta
	again  []bool // those of a closed partition are to be read again
	heads  []Piece
	ended  bool
	lost   error // of blocks that could not be read
}

// View pictures the store: every durable line is in exactly one piece.
func (s *Store) View() (*View, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, errClosed
	}
	s.views.Add(1)
	v := &View{s: s, parts: append([]*partition(nil), s.parts...)}
	for _, p := range v.parts {
		p.take()
		v.blocks, v.again = append(v.blocks, p.metas), append(v.again, p.metas == nil && p.count > 0)
	}
	add := func(h *head) {
		lines := h.lines // as they are now
		v.heads = append(v.heads, Piece{Stream: h.stream, Hash: h.hash, First: h.first, Lines: h.lines.Len(),
			Bytes: int64(len(h.lines.Text) + len(h.lines.Fields)), Min: h.min, Max: h.max, head: &lines})
	}
	for _, h := range s.sealed {
		add(h)
	}
	for _, src := range s.sources {
		if src.head != nil {
			add(src.head)
		}
	}
	return v, nil
}

// Release ends the use of the view.
func (v *View) Release() error {
	var errs error
	for _, p := range v.parts {
		errs = errors.Join(errs, p.drop())
	}
	if !v.ended {
		v.ended = true
		v.s.views.Add(-1)
	}
	v.parts = nil
	return errs
}

// Sort puts pieces in the order in which to read them for the newest lines, or the
// oldest: what is in one record beside each other, for it is unpacked as a whole.
func Sort(pieces []Piece, newest bool) {
	slices.SortFunc(pieces, func(a, b Piece) int {
		if newest {
			return cmp.Or(cmp.Compare(b.max, a.max), cmp.Compare(a.record, b.record), cmp.Compare(b.Max, a.Max))
		}
		return cmp.Or(cmp.Compare(a.min, b.min), cmp.Compare(a.record, b.record), cmp.Compare(a.Min, b.Min))
	})
}

// Later is the newest time that this piece or one after it in the order of Sort for
// the newest lines may have.
func (p *Piece) Later() int64 { return p.max }

// Sooner is the oldest time that this piece or one after it in the order of Sort for
// the oldest lines may have.
func (p *Piece) Sooner() int64 { return p.min }

// Select returns the pieces that overlap from..to (ns, both included), whose
// stream is wanted, and which may satisfy need, in no order. An index that
// cannot answer makes more pieces be read, not less.
func (v *View) Select(ctx context.Context, from, to int64, want func(*record.Stream) bool, need index.Need) []Piece {
	streams := map[*record.Stream]bool{}
	wanted := func(st *record.Stream) bool {
		ok, known := streams[st]
		if !known {
			ok = want(st)
			streams[st] = ok
		}
		return ok
	}
	var out []Piece
	for i := range v.heads {
		h := &v.heads[i]
		if h.Max >= from && h.Min <= to && wanted(h.Stream) {
			out = append(out, *h)
			out[len(out)-1].alone(len(out))
		}
	}
	for i, p := range v.parts {
		metas, numbers := v.blocks[i], true
		if v.again[i] && p.overlaps(from, to) {
			var err error
			if metas, err = v.s.blocks(p); err != nil {
				v.lost, numbers = err, false
				v.s.failed("blocks were not read", err, "part", p.name)
			}
		}
		var may index.Set
		known, asked, looked := 0, false, false
		first := len(out) // of the record
		for n, m := range metas {
			if m.Max < from || m.Min > to {
				continue
			}
			if !looked {
				looked = true
				p.asked.Store(time.Now().UnixNano()) // also if they are known: they stay so
			}
			if !wanted(m.Stream) {
				continue
			}
			if !asked && need.Op != index.Any {
				asked = true
				if x := p.index(); x != nil && numbers {
					var err error
					if may, known, err = x.Candidates(ctx, need); err != nil {
						known = 0
						v.s.log.Error("index was not read", "part", p.name, "err", err)
					}
				}
			}
			if n < known && !may.Has(n) {
				continue
			}
			out = append(out, Piece{Stream: m.Stream, Hash: m.Hash, First: m.First, Lines: m.Lines, Bytes: m.Raw, Min: m.Min, Max: m.Max, part: p, n: n, meta: m})
			if x := &out[len(out)-1]; first == len(out)-1 || !out[first].meta.Beside(m) {
				first = len(out) - 1
				x.alone(len(out))
			} else {
				x.record = out[first].record
				out[first].min, out[first].max = min(out[first].min, m.Min), max(out[first].max, m.Max)
			}
		}
	}
	for i := range out { // the first of a record knows the times of all
		if i > 0 && out[i].record == out[i-1].record {
			out[i].min, out[i].max = out[i-1].min, out[i-1].max
		}
	}
	return out
}

// Lost is why Select could not find all pieces, if so.
func (v *View) Lost() error { return v.lost }

// alone makes the piece the first of a record.
func (p *Piece) alone(record int) { p.record, p.min, p.max = record, p.Min, p.Max }

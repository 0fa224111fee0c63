package query

import (
	"bytes"
	"slices"

	"perch/logs/block"
	"perch/logs/record"
	"perch/logs/store"
)

// worker reads pieces for one search at a time and keeps its memory.
type worker struct {
	s        *search
	lines    *block.Lines
	folded   []byte
	cand     candidate
	hits     []int32
	verdicts verdicts
	counts   [][record.LevelCount]int64
}

func newWorker() *worker { return &worker{lines: &block.Lines{}} }

// failed makes the answer partial because a piece could not be read.
func (w *worker) failed(err error) {
	w.s.e.log.Error("block was not read", "err", err)
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.partial("a block could not be read")
}

// count adds what was read to the answer's costs.
func (w *worker) count(p *store.Piece, bytes int64) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.sum.Stats.Blocks++
	w.s.sum.Stats.Bytes += bytes
	w.s.sum.Stats.Lines += int64(p.Lines)
}

// read reads a piece; one that is damaged makes the answer partial.
func (w *worker) read(p *store.Piece) *block.Lines {
	l, err := p.Read(w.lines)
	if err != nil {
		w.failed(err)
		return nil
	}
	w.count(p, p.Bytes)
	return l
}

// rows reads the piece without its texts when it has templates. all is what
// holds for every line of it. The lines are nil when it is damaged, and when no
// line matches.
func (w *worker) rows(p *store.Piece) (l *block.Lines, all answer) {
	t, err := p.Templates()
	if err == nil {
		w.verdicts.start(w.s.root, p.Stream, t, p.Sent())
		if all = w.verdicts.all(); all == no {
			w.count(p, 0)
			return nil, no
		}
		l, err = p.Rows(t, w.lines)
	}
	if err != nil {
		w.failed(err)
		return nil, no
	}
	return l, all
}

// matches calls hit for every line of a piece that matches, in the order of the
// piece, and reads no more than that takes. With text, l has the texts.
func (w *worker) matches(p *store.Piece, text bool, hit func(l *block.Lines, i int)) {
	ask := w.s.root.ask(p.Stream)
	switch {
	case !text && w.s.root.light():
		l, err := p.Times(w.lines)
		if err != nil {
			w.failed(err)
			return
		}
		w.count(p, 0)
		w.light(p, l, ask, hit)
	case !p.Templated() || text && ask == yes:
		if l := w.read(p); l != nil {
			w.scan(p, l, ask, false, hit)
		}
	default:
		l, all := w.rows(p)
		if l == nil {
			return
		}
		some, unsure := w.hopes(l, ask)
		switch {
		case !some:
			w.count(p, 0)
		case !text && !unsure:
			w.count(p, 0)
			for i, t := range l.Times {
				if t >= w.s.r.From && t <= w.s.r.To && (all == yes || ask == yes || w.verdicts.of(l.IDs[i], l.Levels[i]) == yes) {
					hit(l, i)
				}
			}
		default:
			if l = w.read(p); l != nil {
				w.scan(p, l, ask, true, hit)
			}
		}
	}
}

// hopes tells whether some line of the rows matches or may do so, and whether
// the texts are needed to know.
func (w *worker) hopes(l *block.Lines, ask answer) (some, unsure bool) {
	for i, t := range l.Times {
		if t < w.s.r.From || t > w.s.r.To {
			continue
		}
		if ask == yes {
			return true, false
		}
		switch w.verdicts.of(l.IDs[i], l.Levels[i]) {
		case yes:
			some = true
		case maybe:
			return true, true
		}
	}
	return some, false
}

// light decides on labels and levels.
func (w *worker) light(p *store.Piece, l *block.Lines, ask answer, hit func(l *block.Lines, i int)) {
	for i, t := range l.Times {
		if t < w.s.r.From || t > w.s.r.To {
			continue
		}
		if ask == maybe {
			w.cand.reset(p.Stream, record.Level(l.Levels[i]), nil, nil, nil)
			if !w.s.root.match(&w.cand) {
				continue
			}
		}
		hit(l, i)
	}
}

// scan decides on texts. With judged, verdicts are asked first.
func (w *worker) scan(p *store.Piece, l *block.Lines, ask answer, judged bool, hit func(l *block.Lines, i int)) {
	s := w.s
	d := s.driver
	var hay []byte
	if ask == maybe && d.text != "" && (len(l.FEnds) == 0 || !d.field) {
		if hay = l.Text; d.folds {
			if cap(w.folded) < len(l.Text) {
				w.folded = make([]byte, len(l.Text)+len(l.Text)/8)
			}
			hay = w.folded[:len(l.Text)]
			foldInto(hay, l.Text)
		}
	}
	needle := stringBytes(d.text)
	for i := 0; i < l.Len(); i++ {
		if hay != nil { // jump to the next line that has the text
			start := lineStart(l, i)
			k := bytes.Index(hay[start:], needle)
			if k < 0 {
				return
			}
			if at := uint32(start + k); at > l.Ends[i] {
				n, _ := slices.BinarySearch(l.Ends[i:], at)
				i += n
			}
			if i >= l.Len() {
				return
			}
		}
		if t := l.Times[i]; t < s.r.From || t > s.r.To || ask == maybe && !w.matchesLine(p, l, i, hay, judged) {
			continue
		}
		hit(l, i)
	}
}

func (w *worker) matchesLine(p *store.Piece, l *block.Lines, i int, hay []byte, judged bool) bool {
	if judged {
		switch w.verdicts.of(l.IDs[i], l.Levels[i]) {
		case yes:
			return true
		case no:
			return false
		}
	}
	var folded []byte
	if hay != nil && w.s.driver.folds {
		folded = hay[lineStart(l, i):l.Ends[i]]
	}
	w.cand.reset(p.Stream, record.Level(l.Levels[i]), l.Body(i), folded, l.FieldsOf(i))
	return w.s.root.match(&w.cand)
}

// whole tells whether all lines of a piece match, so that what its meta says is
// the answer.
func (w *worker) whole(p *store.Piece) bool {
	return p.Min >= w.s.r.From && p.Max <= w.s.r.To && w.s.root.ask(p.Stream) == yes
}

func lineStart(l *block.Lines, i int) int {
	if i == 0 {
		return 0
	}
	return int(l.Ends[i-1]) + 1
}

func lineOf(p *store.Piece, l *block.Lines, i int) *Line {
	return &Line{Cursor: Cursor{l.Times[i], p.Hash, p.First + uint64(i)}, Stream: p.Stream, Level: record.Level(l.Levels[i]),
		Body: bytes.Clone(l.Body(i)), Fields: bytes.Clone(l.FieldsOf(i))}
}

func levelIndex(b byte) int { return min(int(b), record.LevelCount-1) }

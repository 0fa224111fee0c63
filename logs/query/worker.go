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
	s       *search
	p       *store.Piece
	rows    []uint32     // lines of p that match, by their places in it, ascending
	open    []uint32     // memory for lines of which templates do not tell
	lines   *block.Lines // of p when it has no templates; else asked has it
	full    bool         // lines have texts
	used    bool         // p was read
	bad     error        // why it could not be
	room    *block.Lines // memory for lines
	asked   asked
	cand    candidate
	folded  []byte
	counts  [][record.LevelCount]int64
	readers []*fieldReader
}

func newWorker() *worker { return &worker{room: &block.Lines{}} }

// turn begins with another piece.
func (w *worker) turn(p *store.Piece) {
	w.asked.over, w.bad = w.s.ctx.Err, nil
	w.p, w.rows, w.lines, w.full, w.used = p, w.rows[:0], nil, false, false
	if p.Templated() {
		p.Parts(&w.asked.parts)
	}
}

// failed makes the answer partial because a piece could not be read, or not in
// time.
func (w *worker) failed(err error) {
	w.rows, w.bad = w.rows[:0], err
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.s.ctx.Err() != nil {
		w.s.due()
		return
	}
	w.s.e.log.Error("block was not read", "err", err)
	w.s.partial("a block could not be read")
}

// count adds what was read of the piece to the answer's costs.
func (w *worker) count() {
	if !w.used {
		return
	}
	bytes := int64(0)
	if w.p.Templated() {
		bytes = w.asked.parts.Bytes()
	} else if w.full {
		bytes = w.p.Bytes
	}
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.sum.Stats.Blocks++
	w.s.sum.Stats.Bytes += bytes
	w.s.sum.Stats.Lines += int64(w.p.Lines)
}

// times are those of all lines of the piece, and their levels.
func (w *worker) times() (times []int64, levels []byte, err error) {
	w.used = true
	if w.p.Templated() {
		return w.asked.parts.Times()
	}
	if w.lines == nil {
		if w.lines, err = w.p.Times(w.room); err != nil {
			return nil, nil, err
		}
	}
	return w.lines.Times, w.lines.Levels, nil
}

// texts makes ready to give the texts of some lines, in ascending order.
func (w *worker) texts(rows []uint32) (err error) {
	w.used = true
	if w.p.Templated() {
		if err = w.asked.parts.Texts(rows, &w.asked.texts); err == nil {
			_, err = w.asked.parts.Fields()
		}
		return err
	}
	if !w.full {
		w.lines, err = w.p.Read(w.room)
		w.full = err == nil
	}
	return err
}

// text returns body and sender's fields of line row, which is number k of those
// that texts made ready.
func (w *worker) text(k int, row uint32) (body, fields []byte) {
	if !w.p.Templated() {
		return w.lines.Body(int(row)), w.lines.FieldsOf(int(row))
	}
	sent, err := w.asked.parts.Fields()
	if err != nil { // texts has read them
		return nil, nil
	}
	return w.asked.texts.Body(k), sent.FieldsOf(int(row))
}

// find finds the lines of a piece that match and whose time is in from..to, and
// reads no more than that takes.
func (w *worker) find(p *store.Piece, from, to int64) {
	w.turn(p)
	var err error
	switch ask := w.s.root.ask(p.Stream); {
	case ask == no:
	case ask == yes || w.s.root.light():
		err = w.light(ask, from, to)
	case p.Templated():
		err = w.judge(from, to)
	default:
		if err = w.texts(nil); err == nil {
			err = w.scan(from, to)
		}
	}
	if err != nil {
		w.failed(err)
	}
}

// all puts the lines whose time is in from..to into rows.
func (w *worker) all(from, to int64) error {
	w.rows = sized(w.rows, w.p.Lines)
	if w.p.Min >= from && w.p.Max <= to {
		for i := range w.rows {
			w.rows[i] = uint32(i)
		}
		return nil
	}
	times, _, err := w.times()
	n := 0
	for i, t := range times {
		if t >= from && t <= to {
			w.rows[n] = uint32(i)
			n++
		}
	}
	w.rows = w.rows[:n]
	return err
}

// light decides on labels and levels.
func (w *worker) light(ask answer, from, to int64) error {
	if err := w.all(from, to); err != nil || ask == yes {
		return err
	}
	_, levels, err := w.times()
	if err != nil {
		return err
	}
	var known [record.LevelCount]answer
	for i := range known {
		w.cand.reset(w.p.Stream, record.Level(i), nil, nil, nil)
		if w.s.root.match(&w.cand) {
			known[i] = yes
		}
	}
	w.rows = slices.DeleteFunc(w.rows, func(row uint32) bool { return known[levelIndex(levels[row])] != yes })
	return nil
}

// judge decides on templates, then on the lines of those that do not tell.
func (w *worker) judge(from, to int64) error {
	a := &w.asked
	w.used = true
	if err := a.start(w.s.r.Query, w.p.Stream, w.p.Sent()); err != nil {
		return err
	}
	all := a.all()
	if all == no {
		return nil
	}
	if err := w.all(from, to); err != nil || all == yes {
		return err
	}
	return w.pick(yes)
}

// pick keeps of rows the lines that match. Those that match by their template
// alone are kept when sure is yes.
func (w *worker) pick(sure answer) error {
	a := &w.asked
	ids, err := a.parts.IDs()
	if err != nil {
		return err
	}
	rows, open := w.rows, sized(w.open, len(w.rows))
	w.open = open
	k, n := 0, 0 // of those kept, and of those open
	put := func(row uint32, is answer) {
		rows[k], open[n] = row, row // the faster way when answers alternate
		if is == sure {
			k++
		}
		if is == maybe {
			n++
		}
	}
	if a.levels {
		_, levels, err := a.parts.Times()
		if err != nil {
			return err
		}
		for _, row := range rows {
			put(row, a.says(ids[row], levels[row]))
		}
	} else {
		for i := range a.t.Len() {
			a.says(uint32(i), 0)
		}
		for _, row := range rows {
			put(row, a.known[ids[row]])
		}
	}
	w.rows = rows[:k]
	if open, err = a.filter(a.root, open[:n]); len(open) > 0 {
		w.rows = append(w.rows, open...)
		if k > 0 {
			slices.Sort(w.rows)
		}
	}
	return err
}

// tally counts the lines that match by level. Lines of which templates tell
// enough are not looked at.
func (w *worker) tally(p *store.Piece) (counts [record.LevelCount]int64) {
	r := w.s.r
	w.turn(p)
	known, err := w.countTemplates(&counts)
	if err != nil {
		w.failed(err)
		return counts
	}
	if !known {
		w.find(p, r.From, r.To)
	}
	if len(w.rows) == 0 {
		return counts
	}
	_, levels, err := w.times()
	if err != nil {
		w.failed(err)
		return counts
	}
	for _, row := range w.rows {
		counts[levelIndex(levels[row])]++
	}
	return counts
}

// countTemplates counts what templates tell, and leaves in rows the lines that
// match and are not counted. It returns false when it cannot.
func (w *worker) countTemplates(counts *[record.LevelCount]int64) (bool, error) {
	p, r, a := w.p, w.s.r, &w.asked
	if !p.Templated() || p.Min < r.From || p.Max > r.To || w.s.root.ask(p.Stream) != maybe || w.s.root.light() {
		return false, nil
	}
	w.used = true
	if err := a.start(r.Query, p.Stream, p.Sent()); err != nil {
		return false, err
	}
	if a.t.Lines(0) == nil {
		return false, nil
	}
	open := false
	for i := range a.t.Len() {
		for level, n := range a.t.Lines(i) {
			if n == 0 {
				continue
			}
			switch a.says(uint32(i), byte(level)) {
			case yes:
				counts[level] += int64(n)
			case maybe:
				open = true
			}
		}
	}
	if !open {
		return true, nil
	}
	if err := w.all(r.From, r.To); err != nil {
		return false, err
	}
	if err := w.pick(undecided); err != nil { // those of which templates tell are counted
		return false, err
	}
	ids, err := a.parts.IDs()
	if err != nil {
		return false, err
	}
	w.rows = slices.DeleteFunc(w.rows, func(row uint32) bool {
		level, ok := only(a.t.Lines(int(ids[row])))
		if ok {
			counts[level]++
		}
		return ok
	})
	return true, nil
}

// only is the level that all lines of a template have.
func only(lines []uint32) (level int, ok bool) {
	for i, n := range lines {
		if n > 0 {
			if ok {
				return 0, false
			}
			level, ok = i, true
		}
	}
	return level, ok
}

// scan decides on the texts of a piece without templates.
func (w *worker) scan(from, to int64) error {
	l := w.lines
	d := w.s.driver
	var hay []byte
	if d.text != "" && (len(l.FEnds) == 0 || !d.field) {
		if hay = l.Text; d.folds {
			w.folded = sized(w.folded, len(l.Text))
			hay = w.folded
			foldInto(hay, l.Text)
		}
	}
	needle := stringBytes(d.text)
	w.asked.about(w.s.r.Query)
	w.cand.leaves, w.cand.over = w.asked.leaves, w.asked.over
	for i := 0; i < l.Len(); i++ {
		if hay != nil { // jump to the next line that has the text
			start := lineStart(l, i)
			k := bytes.Index(hay[start:], needle)
			if k < 0 {
				return nil
			}
			if at := uint32(start + k); at > l.Ends[i] {
				n, _ := slices.BinarySearch(l.Ends[i:], at)
				i += n
			}
			if i >= l.Len() {
				return nil
			}
		}
		if t := l.Times[i]; t < from || t > to {
			continue
		}
		if err := w.asked.timely(len(l.Body(i))); err != nil {
			return err
		}
		var folded []byte
		if hay != nil && d.folds {
			folded = hay[lineStart(l, i):l.Ends[i]]
		}
		w.cand.reset(w.p.Stream, record.Level(l.Levels[i]), l.Body(i), folded, l.FieldsOf(i))
		is := w.s.root.match(&w.cand)
		if w.cand.late != nil {
			return w.cand.late
		}
		if is {
			w.rows = append(w.rows, uint32(i))
		}
	}
	return nil
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

// line is line row, which is number k of those that texts made ready.
func (w *worker) line(k int, row uint32, c Cursor, level byte) *Line {
	body, fields := w.text(k, row)
	return &Line{Cursor: c, Stream: w.p.Stream, Level: record.Level(level), Body: bytes.Clone(body), Fields: bytes.Clone(fields)}
}

// cursor is the place of line row.
func (w *worker) cursor(row uint32, time int64) Cursor {
	return Cursor{time, w.p.Hash, w.p.First + uint64(row)}
}

func levelIndex(b byte) int { return min(int(b), record.LevelCount-1) }

package query

import (
	"bytes"
	"slices"
	"unsafe"

	"perch/logs/block"
)

// compare decides for lines by the columns of their field. Lines of which it is
// not known where they have it are returned as open.
func (a *asked) compare(l *leaf, rows []uint32) (sure, open []uint32, err error) {
	ids, err := a.parts.IDs()
	if err != nil {
		return nil, nil, err
	}
	of := l.placed.of
	if !slices.ContainsFunc(rows, func(row uint32) bool { return of[ids[row]].how != unplaced }) {
		return nil, rows, nil
	}
	c, err := a.parts.Columns()
	if err != nil {
		return nil, nil, err
	}
	w := &a.walk
	w.shapes, w.marks = sized(w.shapes, a.t.Len()), sized(w.marks, len(ids))
	clear(w.shapes)
	clear(w.marks)
	for _, row := range rows {
		w.marks[row] = undecided
		w.shapes[a.t.Shapes[ids[row]]]++
	}
	for shape, n := range w.shapes {
		if n == 0 {
			continue
		}
		if err := a.compareShape(l, &c, c.Rows(uint32(shape)), ids); err != nil {
			return nil, nil, err
		}
	}
	sure = rows[:0]
	for _, row := range rows {
		switch w.marks[row] {
		case yes:
			sure = append(sure, row)
		case maybe:
			open = append(open, row)
		}
	}
	return sure, open, nil
}

// compareShape marks those of a shape's lines that are undecided; maybe are those
// that have to be looked at.
func (a *asked) compareShape(l *leaf, c *block.Columns, rows, ids []uint32) error {
	if err := a.over(); err != nil {
		return err
	}
	w := &a.walk
	columns := a.t.Columns(int(ids[rows[0]]))
	w.cells = uncut(w.cells, len(columns))
	cells := w.cells
	var last struct { // line with a value of its own, and its answer
		template, from uint32
		is             answer
	}
	for k, row := range rows {
		if w.marks[row] != undecided {
			continue
		}
		id := ids[row]
		p := &l.placed.of[id]
		if p.access != nil {
			p.settle(c, columns)
		}
		if p.how != varying {
			w.marks[row] = p.says(l.n, nil)
			continue
		}
		w.value = w.value[:0]
		from := uint32(0)
		for v := p.value; ; {
			before, hole, after := nextMark(v)
			w.value = append(w.value, before...)
			if hole < 0 {
				break
			}
			if len(cells[hole]) == 0 && !cut(&cells[hole], c.Text(columns[hole]), len(rows)) {
				return block.ErrDamaged
			}
			x := cells[hole][k]
			if len(p.value) == markSize { // one variable, which repeats often
				if from = x.from + 1; from == last.from && id == last.template {
					break
				}
			}
			w.value = append(w.value, c.Text(columns[hole])[x.from:x.to]...)
			v = after
		}
		if from == 0 || from != last.from || id != last.template {
			if err := a.timely(len(w.value)); err != nil {
				return err
			}
			if l.n.op == opMatch {
				a.line.over, a.line.late = a.over, nil
				if last.is = known(a.line.finds(l.n, w.value)); a.line.late != nil {
					return a.line.late
				}
			} else {
				last.is = known(l.n.matchValue(unsafe.String(unsafe.SliceData(w.value), len(w.value)), true))
			}
			last.template, last.from = id, from
		}
		w.marks[row] = last.is
	}
	return nil
}

// cell is the place of a value in a column.
type cell struct{ from, to uint32 }

// uncut is memory for the cells of n columns, none of them known.
func uncut(cells [][]cell, n int) [][]cell {
	if more := n - cap(cells); more > 0 {
		cells = append(cells[:cap(cells)], make([][]cell, more)...)
	}
	cells = cells[:n]
	for i := range cells {
		cells[i] = cells[i][:0]
	}
	return cells
}

// cut finds the n values of a column.
func cut(cells *[]cell, text []byte, n int) bool {
	out := sized(*cells, n)
	var x cell
	at := 0
	for i := range out {
		k := bytes.IndexByte(text[at:], '\n')
		if k < 0 {
			return false
		}
		if k > 0 {
			x = cell{uint32(at), uint32(at + k)}
		}
		out[i] = x
		at += k + 1
	}
	*cells = out
	return true
}

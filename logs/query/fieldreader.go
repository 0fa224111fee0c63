package query

import (
	"slices"
	"unsafe"

	"perch/logs/block"
	"perch/logs/record"
)

// fieldReader gives the values of a field in lines of a piece, from columns where
// templates tell the place, else from texts. One goroutine uses it, for one piece
// after the other.
type fieldReader struct {
	name   string
	placed placed
	ids    []uint32
	c      block.Columns
	t      *block.Templates // nil: all is in texts
	cells  [][][]cell       // of the columns of each shape that places are in
	value  []byte
}

// mostReaders are kept by a worker; a question has two fields at most.
const mostReaders = 4

// fields makes ready to give fields of w.rows. Labels and level need nothing.
func (w *worker) fields(names ...string) error {
	text := false
	for _, name := range names {
		if _, label := w.p.Stream.Label(name); name == "" || label {
			continue
		}
		if name == "level" {
			if _, _, err := w.times(); err != nil {
				return err
			}
			continue
		}
		f := w.latest(name)
		f.t = nil
		if !w.p.Templated() || w.p.Sent() && senders(&w.asked.parts, name) {
			text = true
			continue
		}
		w.used = true
		whole, err := f.start(&w.asked.parts, w.rows)
		if err != nil {
			return err
		}
		text = text || !whole
	}
	if !text {
		return nil
	}
	return w.texts(w.rows)
}

// latest returns the reader of a name, with its memory of earlier pieces. It is
// the last of those that are let go.
func (w *worker) latest(name string) *fieldReader {
	f := w.reader(name)
	if f == nil {
		f = &fieldReader{name: name}
	}
	w.readers = slices.DeleteFunc(w.readers, func(x *fieldReader) bool { return x == f })
	if w.readers = append(w.readers, f); len(w.readers) > mostReaders {
		w.readers = slices.Delete(w.readers, 0, 1)
	}
	return f
}

// reader returns that of a name, nil when there is none.
func (w *worker) reader(name string) *fieldReader {
	for _, f := range w.readers {
		if f.name == name {
			return f
		}
	}
	return nil
}

// start turns to the block that parts is turned to, of which no sender gave
// the field. It tells whether the values of all rows can be had without texts.
func (f *fieldReader) start(parts *block.Parts, rows []uint32) (whole bool, err error) {
	t, err := parts.Templates()
	if err != nil {
		return false, err
	}
	if f.ids, err = parts.IDs(); err != nil {
		return false, err
	}
	f.placed.start(f.name, t, nil)
	if slices.ContainsFunc(rows, func(row uint32) bool { p := &f.placed.of[f.ids[row]]; return p.how == varying || p.access != nil }) {
		if f.c, err = parts.Columns(); err != nil {
			return false, err
		}
	}
	f.t = t
	if more := t.Len() - cap(f.cells); more > 0 {
		f.cells = append(f.cells[:cap(f.cells)], make([][][]cell, more)...)
	}
	f.cells = f.cells[:t.Len()]
	for i := range f.cells {
		f.cells[i] = f.cells[i][:0]
	}
	whole = true
	for _, row := range rows {
		p := &f.placed.of[f.ids[row]]
		if p.access != nil {
			p.settle(&f.c, t.Columns(int(f.ids[row])))
		}
		if p.how == varying && !p.cut {
			if !f.cut(p, f.ids[row]) {
				return false, block.ErrDamaged
			}
			p.cut = true
		}
		whole = whole && p.how != unplaced
	}
	return whole, nil
}

// cut finds the cells of the columns that p is in.
func (f *fieldReader) cut(p *place, template uint32) bool {
	columns, shape := f.t.Columns(int(template)), f.t.Shapes[template]
	cells := &f.cells[shape]
	if len(*cells) == 0 {
		*cells = uncut(*cells, len(columns))
	}
	for v := p.value; ; {
		_, hole, after := nextMark(v)
		if hole < 0 {
			return true
		}
		if len((*cells)[hole]) == 0 && !cut(&(*cells)[hole], f.c.Text(columns[hole]), len(f.c.Rows(shape))) {
			return false
		}
		v = after
	}
}

// read returns the value of a line, valid until the next. It is not placed when
// the text of the line has to be looked at.
func (f *fieldReader) read(row uint32) (v string, ok, placed bool) {
	if f.t == nil {
		return "", false, false
	}
	id := f.ids[row]
	p := &f.placed.of[id]
	switch p.how {
	case unplaced:
		return "", false, false
	case absent:
		return "", false, true
	case fixed:
		return p.value, true, true
	}
	columns, cells := f.t.Columns(int(id)), f.cells[f.t.Shapes[id]]
	f.value = f.value[:0]
	for v := p.value; ; {
		before, hole, after := nextMark(v)
		f.value = append(f.value, before...)
		if hole < 0 {
			break
		}
		x := cells[hole][f.c.Place(row)]
		f.value = append(f.value, f.c.Text(columns[hole])[x.from:x.to]...)
		v = after
	}
	return unsafe.String(unsafe.SliceData(f.value), len(f.value)), true, true
}

// field returns a field of line row, which is number k of w.rows, for which fields
// made ready. The value is valid until the next of that name.
func (w *worker) field(k int, row uint32, name string) (string, bool) {
	if v, ok := w.p.Stream.Label(name); ok {
		return v, v != ""
	}
	if name == "level" {
		if _, levels, err := w.times(); err == nil { // else fields has failed
			return record.Level(levelIndex(levels[row])).String(), true
		}
	}
	if v, ok, placed := w.reader(name).read(row); placed {
		return v, ok
	}
	body, fields := w.text(k, row)
	w.cand.reset(w.p.Stream, record.Unknown, body, nil, fields)
	return w.cand.value(name)
}

package block

import (
	"bytes"
	"encoding/binary"
)

// Hole stands in a template for a variable. Lines that contain it are written
// plain.
const Hole = 0x11

// A variable is a word (as package index splits words) with a digit in it.
// Everything else of a line is its template, so that lines of one statement in
// a program share one. Templates that differ in words only, as by their level,
// have the same shape; the variables of a shape are kept together in the order
// of lines, because lines near each other share ids and times.

const (
	wordClass  = 1
	digitClass = 2 // a word byte too
)

// classes says of each byte whether it belongs to a word, and is a digit.
func classes() (t [256]byte) {
	for c := range t {
		switch {
		case c >= '0' && c <= '9':
			t[c] = wordClass | digitClass
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', c >= 0x80:
			t[c] = wordClass
		}
	}
	return t
}

// splitter parts lines into templates and variables. It is used again and
// again by one goroutine.
type splitter struct {
	class [256]byte
	known map[string]uint32
	forms map[string]uint32 // shapes by form
	dict  Templates
	ids   []uint32 // of each line
	vars  []span   // of all lines, one after the other
	first []uint32 // of each line in vars
	lines []uint32 // of each shape
	at    []uint32 // scratch: start of each shape's lines in order
	order []uint32 // lines by shape
	line  []byte
	shape []byte
}

type span struct{ start, end uint32 }

// Templates are the templates of a block by number.
type Templates struct {
	Text   []byte   // one after the other
	Ends   []uint32 // of each in Text
	Holes  []uint32 // in each
	Shapes []uint32 // of each, a number less than Len; those of a shape have as many holes
}

// Len is the number of templates.
func (t *Templates) Len() int { return len(t.Ends) }

// Of returns template i.
func (t *Templates) Of(i int) []byte {
	start := uint32(0)
	if i > 0 {
		start = t.Ends[i-1]
	}
	return t.Text[start:t.Ends[i]:t.Ends[i]]
}

func (t *Templates) add(text []byte, holes, shape uint32) {
	t.Text = append(t.Text, text...)
	t.Ends = append(t.Ends, uint32(len(t.Text)))
	t.Holes = append(t.Holes, holes)
	t.Shapes = append(t.Shapes, shape)
}

// apart appends the templates, each followed by '\n', so that no word goes on in
// the next one.
func (t *Templates) apart(dst []byte) []byte {
	for i := range t.Len() {
		dst = append(append(dst, t.Of(i)...), '\n')
	}
	return dst
}

// fewLines are not worth templates.
const fewLines = 16

// split fills the splitter with the lines. It returns false when they have too
// many templates for that to pay: more than one for four lines.
func (s *splitter) split(l *Lines) bool {
	n := l.Len()
	if n < fewLines || bytes.IndexByte(l.Text, Hole) >= 0 {
		return false
	}
	if s.known == nil {
		s.class = classes()
		s.known, s.forms = map[string]uint32{}, map[string]uint32{}
	}
	clear(s.known)
	clear(s.forms)
	s.dict = Templates{Text: s.dict.Text[:0], Ends: s.dict.Ends[:0], Holes: s.dict.Holes[:0], Shapes: s.dict.Shapes[:0]}
	s.ids, s.vars, s.first, s.lines = s.ids[:0], s.vars[:0], s.first[:0], s.lines[:0]
	for i := range n {
		before := len(s.vars)
		s.first = append(s.first, uint32(before))
		start := uint32(0)
		if i > 0 {
			start = l.Ends[i-1] + 1
		}
		t := s.template(l.Text[start:l.Ends[i]], start)
		id, ok := s.known[string(t)]
		if !ok {
			id = uint32(s.dict.Len())
			if int(id) >= n/4 || i == n/8 && int(id) > i*4/5 { // the rest is no better
				return false
			}
			s.known[string(t)] = id
			s.dict.add(t, uint32(len(s.vars)-before), s.shapeOf(t))
		}
		s.ids = append(s.ids, id)
		s.lines[s.dict.Shapes[id]]++
	}
	return true
}

// shapeOf is the number of the template's shape: of all templates of the block
// that have the same bytes between words, and holes at the same places.
func (s *splitter) shapeOf(t []byte) uint32 {
	out, in := s.shape[:0], false
	for _, c := range t {
		if s.class[c] == 0 {
			out, in = append(out, c), false
		} else if !in {
			out, in = append(out, 'w'), true
		}
	}
	s.shape = out
	shape, ok := s.forms[string(out)]
	if !ok {
		shape = uint32(len(s.lines))
		s.forms[string(out)] = shape
		s.lines = append(s.lines, 0)
	}
	return shape
}

// template returns the line with holes and appends its variables, whose places
// count from base.
func (s *splitter) template(b []byte, base uint32) []byte {
	out := s.line[:0]
	kept := 0
	for i := 0; i < len(b); {
		if s.class[b[i]] == 0 {
			i++
			continue
		}
		start, seen := i, byte(0)
		for i < len(b) && s.class[b[i]] != 0 {
			seen |= s.class[b[i]]
			i++
		}
		if seen&digitClass == 0 {
			continue
		}
		out = append(out, b[kept:start]...)
		out = append(out, Hole)
		kept = i
		s.vars = append(s.vars, span{base + uint32(start), base + uint32(i)})
	}
	s.line = append(out, b[kept:]...)
	return s.line
}

// appendColumns writes the variables: for each shape, for each of its holes, the
// values of its lines in order, each followed by '\n', which no variable
// contains. A value equal to the one before it in its column is left empty.
func (s *splitter) appendColumns(dst []byte, l *Lines) []byte {
	s.at = append(s.at[:0], 0)
	for _, n := range s.lines {
		s.at = append(s.at, s.at[len(s.at)-1]+n)
	}
	s.order = grow(s.order, len(s.ids))
	for i, id := range s.ids {
		shape := s.dict.Shapes[id]
		s.order[s.at[shape]] = uint32(i)
		s.at[shape]++
	}
	end := uint32(0)
	for _, n := range s.lines {
		rows := s.order[end : end+n]
		end += n
		for hole := range s.dict.Holes[s.ids[rows[0]]] {
			before := span{}
			for _, i := range rows {
				v := s.vars[s.first[i]+hole]
				if value := l.Text[v.start:v.end]; string(value) != string(l.Text[before.start:before.end]) {
					dst = append(dst, value...)
					before = v
				}
				dst = append(dst, '\n')
			}
		}
	}
	return dst
}

func appendTemplates(dst []byte, t *Templates) []byte {
	dst = binary.AppendUvarint(dst, uint64(t.Len()))
	start := uint32(0)
	for i, end := range t.Ends {
		dst = binary.AppendUvarint(dst, uint64(end-start))
		dst = binary.AppendUvarint(dst, uint64(t.Shapes[i]))
		start = end
	}
	return append(dst, t.Text...)
}

// parseTemplates reads the templates of a block of n lines. Without shaped each
// has a shape of its own.
func parseTemplates(b []byte, n int, shaped bool) (*Templates, error) {
	count, k := binary.Uvarint(b)
	if k <= 0 || count == 0 || count > uint64(n) {
		return nil, ErrDamaged
	}
	b = b[k:]
	t := &Templates{Ends: make([]uint32, count), Holes: make([]uint32, count), Shapes: make([]uint32, count)}
	end := uint64(0)
	for i := range t.Ends {
		v, k := binary.Uvarint(b)
		if k <= 0 || v > MaxBytes {
			return nil, ErrDamaged
		}
		b = b[k:]
		if end += v; end > MaxBytes {
			return nil, ErrDamaged
		}
		t.Ends[i] = uint32(end)
		t.Shapes[i] = uint32(i)
		if !shaped {
			continue
		}
		shape, k := binary.Uvarint(b)
		if k <= 0 || shape >= count {
			return nil, ErrDamaged
		}
		b = b[k:]
		t.Shapes[i] = uint32(shape)
	}
	if uint64(len(b)) != end {
		return nil, ErrDamaged
	}
	t.Text = b
	holes := make([]uint32, count) // of each shape, and one more
	for i, shape := range t.Shapes {
		t.Holes[i] = uint32(bytes.Count(t.Of(i), []byte{Hole}))
		if holes[shape] != 0 && holes[shape] != t.Holes[i]+1 {
			return nil, ErrDamaged
		}
		holes[shape] = t.Holes[i] + 1
	}
	return t, nil
}

func appendIDs(dst []byte, ids []uint32) []byte {
	for _, id := range ids {
		dst = binary.AppendUvarint(dst, uint64(id))
	}
	return dst
}

func parseIDs(b []byte, ids []uint32, templates int) error {
	for i := range ids {
		v, k := binary.Uvarint(b)
		if k <= 0 || v >= uint64(templates) {
			return ErrDamaged
		}
		b = b[k:]
		ids[i] = uint32(v)
	}
	if len(b) > 0 {
		return ErrDamaged
	}
	return nil
}

// expand puts templates and variables together into l.Text, using dst's memory.
// l.IDs are set.
func expand(dst []byte, t *Templates, columns []byte, l *Lines) error {
	rows, holes := make([]uint32, t.Len()), make([]uint32, t.Len()) // of each shape
	for _, id := range l.IDs {
		rows[t.Shapes[id]]++
		holes[t.Shapes[id]] = t.Holes[id]
	}
	next := make([]uint32, t.Len()) // value of the next line of each shape in its first column
	total := uint64(0)
	for shape, n := range rows {
		next[shape] = uint32(total)
		if total += uint64(n) * uint64(holes[shape]); total > uint64(len(columns)) {
			return ErrDamaged
		}
	}
	values, err := splitValues(columns, int(total))
	if err != nil {
		return err
	}
	l.Ends = grow(l.Ends, len(l.IDs))
	for i, id := range l.IDs {
		text, shape := t.Of(int(id)), t.Shapes[id]
		at := next[shape]
		next[shape]++
		for range t.Holes[id] {
			k := bytes.IndexByte(text, Hole)
			dst = append(dst, text[:k]...)
			text = text[k+1:]
			v := values[at]
			dst = append(dst, columns[v.start:v.end]...)
			at += rows[shape]
		}
		dst = append(dst, text...)
		if len(dst) >= MaxBytes {
			return ErrDamaged
		}
		l.Ends[i] = uint32(len(dst))
		dst = append(dst, '\n')
	}
	l.Text = dst
	return nil
}

// splitValues finds the values of columns; an empty one is the one before it.
func splitValues(columns []byte, n int) ([]span, error) {
	values := make([]span, n)
	before, at := span{}, 0
	for i := range values {
		k := bytes.IndexByte(columns[at:], '\n')
		if k < 0 {
			return nil, ErrDamaged
		}
		if k > 0 {
			before = span{uint32(at), uint32(at + k)}
		}
		values[i] = before
		at += k + 1
	}
	if at != len(columns) {
		return nil, ErrDamaged
	}
	return values, nil
}

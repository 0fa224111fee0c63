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
// a program share one.

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
	dict  Templates
	ids   []uint32 // of each line
	vars  []span   // of all lines, one after the other
	first []uint32 // of each line in vars
	lines []uint32 // of each template
	at    []uint32 // scratch: start of each template's lines in order
	order []uint32 // lines by template
	line  []byte
}

type span struct{ start, end uint32 }

// Templates are the templates of a block by number.
type Templates struct {
	Text  []byte   // one after the other
	Ends  []uint32 // of each in Text
	Holes []uint32 // in each
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

func (t *Templates) add(text []byte, holes uint32) {
	t.Text = append(t.Text, text...)
	t.Ends = append(t.Ends, uint32(len(t.Text)))
	t.Holes = append(t.Holes, holes)
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
	}
	s.known = make(map[string]uint32, 64)
	s.dict = Templates{Text: s.dict.Text[:0], Ends: s.dict.Ends[:0], Holes: s.dict.Holes[:0]}
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
			if int(id) >= n/4 {
				return false
			}
			s.known[string(t)] = id
			s.dict.add(t, uint32(len(s.vars)-before))
			s.lines = append(s.lines, 0)
		}
		s.ids = append(s.ids, id)
		s.lines[id]++
	}
	return true
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

// appendColumns writes the variables: for each template, for each of its
// holes, the values of its lines in order, each followed by '\n', which no
// variable contains.
func (s *splitter) appendColumns(dst []byte, l *Lines) []byte {
	s.at = append(s.at[:0], 0)
	for _, n := range s.lines {
		s.at = append(s.at, s.at[len(s.at)-1]+n)
	}
	s.order = grow(s.order, len(s.ids))
	for i, id := range s.ids {
		s.order[s.at[id]] = uint32(i)
		s.at[id]++
	}
	end := uint32(0)
	for id, n := range s.lines {
		rows := s.order[end : end+n]
		end += n
		for hole := range s.dict.Holes[id] {
			for _, i := range rows {
				v := s.vars[s.first[i]+hole]
				dst = append(dst, l.Text[v.start:v.end]...)
				dst = append(dst, '\n')
			}
		}
	}
	return dst
}

func appendTemplates(dst []byte, t *Templates) []byte {
	dst = binary.AppendUvarint(dst, uint64(t.Len()))
	start := uint32(0)
	for _, end := range t.Ends {
		dst = binary.AppendUvarint(dst, uint64(end-start))
		start = end
	}
	return append(dst, t.Text...)
}

// parseTemplates reads the templates of a block of n lines.
func parseTemplates(b []byte, n int) (*Templates, error) {
	count, k := binary.Uvarint(b)
	if k <= 0 || count == 0 || count > uint64(n) {
		return nil, ErrDamaged
	}
	b = b[k:]
	t := &Templates{Ends: make([]uint32, count), Holes: make([]uint32, count)}
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
	}
	if uint64(len(b)) != end {
		return nil, ErrDamaged
	}
	t.Text = b
	for i := range t.Ends {
		t.Holes[i] = uint32(bytes.Count(t.Of(i), []byte{Hole}))
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
	rows := make([]uint32, t.Len()) // of each template
	for _, id := range l.IDs {
		rows[id]++
	}
	values := make([]uint32, t.Len()) // where those of each template begin
	total := uint64(0)
	for id, n := range rows {
		values[id] = uint32(total)
		if total += uint64(n) * uint64(t.Holes[id]); total > uint64(len(columns)) {
			return ErrDamaged
		}
	}
	ends := make([]uint32, total)
	if err := splitLines(columns, ends); err != nil {
		return err
	}
	row := make([]uint32, t.Len())
	l.Ends = grow(l.Ends, len(l.IDs))
	for i, id := range l.IDs {
		text := t.Of(int(id))
		next := values[id] + row[id]
		row[id]++
		for range t.Holes[id] {
			k := bytes.IndexByte(text, Hole)
			dst = append(dst, text[:k]...)
			text = text[k+1:]
			start := uint32(0)
			if next > 0 {
				start = ends[next-1] + 1
			}
			dst = append(dst, columns[start:ends[next]]...)
			next += rows[id]
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

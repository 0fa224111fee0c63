package block

import (
	"bytes"
	"encoding/binary"

	"perch/logs/record"
)

// Hole stands in a template for a variable. Lines that contain it are written
// plain.
const Hole = 0x11

// A variable is a word (as package index splits words) with a digit in it.
// Everything else of a line is its template, so that lines of one statement in
// a program share one. Templates that differ in words only, as by their level,
// have the same shape; the variables of a shape are kept together in the order
// of lines, because lines near each other share ids and times.

// Class says of which kinds the bytes of words are. It is 0 for a separator.
type Class uint8

// Classes of bytes.
const (
	Digits  Class = 1 << iota // 0-9
	LowHex                    // a-f
	Lower                     // g-z
	UpHex                     // A-F
	Upper                     // G-Z
	Under                     // _
	High                      // from 0x80
	AnyWord = Digits | LowHex | Lower | UpHex | Upper | Under | High
)

// ClassOf returns the class of a byte.
func ClassOf(c byte) Class {
	switch {
	case c >= '0' && c <= '9':
		return Digits
	case c >= 'a' && c <= 'f':
		return LowHex
	case c >= 'g' && c <= 'z':
		return Lower
	case c >= 'A' && c <= 'F':
		return UpHex
	case c >= 'G' && c <= 'Z':
		return Upper
	case c == '_':
		return Under
	case c >= 0x80:
		return High
	}
	return 0
}

func classes() (t [256]Class) {
	for c := range t {
		t[c] = ClassOf(byte(c))
	}
	return t
}

// Templates are the templates of a block by number.
type Templates struct {
	Text   []byte   // one after the other
	Ends   []uint32 // of each in Text
	Holes  []uint32 // in each
	Shapes []uint32 // of each, a number less than Len; those of a shape have as many holes
	Levels []uint32 // lines of each by level, LevelCount for each template; nil when not known

	columns []Column // of each shape and hole
	first   []uint32 // of each shape, in columns; nil when columns are not known
	holes   []uint32 // of each shape, and one more
	starts  []uint32 // memory for first
	levels  []uint32 // memory for Levels
}

// Column is a part of a block's columns: the variables of one hole of the lines
// of one shape.
type Column struct {
	Start, End  uint32
	Class       Class  // of its bytes
	Least, Most uint32 // bytes of a value; Most is 0 when that is not known
	Values      []byte // all there are, each after its length in a byte; empty when they are many, or not known
}

// Each calls fn for each of Values until it returns false.
func (c *Column) Each(fn func(value []byte) bool) {
	for b := c.Values; len(b) > 0 && fn(b[1:1+b[0]]); {
		b = b[1+b[0]:]
	}
}

// Columns returns the columns of a template's holes, nil when they are not
// known.
func (t *Templates) Columns(template int) []Column {
	if t.first == nil {
		return nil
	}
	at := t.first[t.Shapes[template]]
	return t.columns[at : at+t.Holes[template]]
}

// Lines is the number of lines of a template by level, nil when it is not known.
func (t *Templates) Lines(template int) []uint32 {
	if t.Levels == nil {
		return nil
	}
	return t.Levels[template*record.LevelCount : (template+1)*record.LevelCount]
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
	t.Levels = append(t.Levels, make([]uint32, record.LevelCount)...)
}

// apart appends the templates, each followed by '\n', so that no word goes on in
// the next one.
func (t *Templates) apart(dst []byte) []byte {
	for i := range t.Len() {
		dst = append(append(dst, t.Of(i)...), '\n')
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
	dst = append(dst, t.Text...)
	for i := range t.Len() {
		mask, lines := uint64(0), t.Lines(i)
		for k, n := range lines {
			if n > 0 {
				mask |= 1 << k
			}
		}
		dst = binary.AppendUvarint(dst, mask)
		for _, n := range lines {
			if n > 0 {
				dst = binary.AppendUvarint(dst, uint64(n))
			}
		}
	}
	for _, c := range t.columns {
		dst = binary.AppendUvarint(dst, uint64(c.End-c.Start))
		dst = append(dst, byte(c.Class))
		dst = binary.AppendUvarint(dst, uint64(c.Least))
		dst = binary.AppendUvarint(dst, uint64(c.Most-c.Least))
		dst = binary.AppendUvarint(dst, uint64(len(c.Values)))
		dst = append(dst, c.Values...)
	}
	return dst
}

// parseTemplates reads the templates of a block of n lines. Without shapes each
// has one of its own.
func parseTemplates(b []byte, n int, f form) (*Templates, error) {
	t := &Templates{}
	return t, t.parse(b, n, f)
}

// parse is parseTemplates with the memory of an earlier use.
func (t *Templates) parse(b []byte, n int, f form) error {
	count, k := binary.Uvarint(b)
	if k <= 0 || count == 0 || count > uint64(n) {
		return ErrDamaged
	}
	b = b[k:]
	t.Ends, t.Holes, t.Shapes = grow(t.Ends, int(count)), grow(t.Holes, int(count)), grow(t.Shapes, int(count))
	t.Levels, t.columns, t.first = nil, t.columns[:0], nil
	end := uint64(0)
	for i := range t.Ends {
		v, k := binary.Uvarint(b)
		if k <= 0 || v > MaxBytes {
			return ErrDamaged
		}
		b = b[k:]
		if end += v; end > MaxBytes {
			return ErrDamaged
		}
		t.Ends[i] = uint32(end)
		t.Shapes[i] = uint32(i)
		if !f.shaped {
			continue
		}
		shape, k := binary.Uvarint(b)
		if k <= 0 || shape >= count {
			return ErrDamaged
		}
		b = b[k:]
		t.Shapes[i] = uint32(shape)
	}
	if uint64(len(b)) < end || !f.shaped && uint64(len(b)) > end {
		return ErrDamaged
	}
	t.Text = b[:end:end]
	b = b[end:]
	t.holes = grow(t.holes, int(count))
	clear(t.holes)
	holes := t.holes
	for i, shape := range t.Shapes {
		t.Holes[i] = uint32(bytes.Count(t.Of(i), []byte{Hole}))
		if holes[shape] != 0 && holes[shape] != t.Holes[i]+1 {
			return ErrDamaged
		}
		holes[shape] = t.Holes[i] + 1
	}
	if f.shaped && !t.parseLines(b, n, f.told) {
		return ErrDamaged
	}
	return nil
}

// parseLines reads what follows the texts: lines by level of each template, then
// length and class of each column, and what it tells of its values.
func (t *Templates) parseLines(b []byte, n int, told bool) bool {
	u := func() uint64 {
		v, k := binary.Uvarint(b)
		if k <= 0 || v > MaxBytes {
			b = nil
			return MaxBytes
		}
		b = b[k:]
		return v
	}
	t.levels = grow(t.levels, t.Len()*record.LevelCount)
	t.Levels = t.levels
	clear(t.Levels)
	total := uint64(0)
	for i := range t.Len() {
		mask, lines := u(), t.Lines(i)
		for k := range lines {
			if mask>>k&1 > 0 {
				v := u()
				lines[k] = uint32(v)
				if total += v; total > uint64(n) {
					return false
				}
			}
		}
	}
	t.starts = grow(t.starts, t.Len())
	t.first = t.starts
	end := uint64(0)
	for shape, h := range t.holes {
		t.first[shape] = uint32(len(t.columns))
		for range int(h) - 1 {
			c := Column{Start: uint32(end)}
			if end += u(); end > MaxBytes || len(b) == 0 {
				return false
			}
			c.End, c.Class = uint32(end), Class(b[0])
			b = b[1:]
			if told {
				c.Least = uint32(u())
				c.Most = c.Least + uint32(u())
				size := u()
				if size > uint64(len(b)) || !parseValues(b[:size]) {
					return false
				}
				c.Values, b = b[:size:size], b[size:]
			}
			t.columns = append(t.columns, c)
		}
	}
	return total == uint64(n) && len(b) == 0
}

// parseValues tells whether these can be Values of a Column.
func parseValues(b []byte) bool {
	for len(b) > 0 {
		n := int(b[0])
		if n == 0 || n > copyBytes || n >= len(b) {
			return false
		}
		b = b[1+n:]
	}
	return true
}

func appendIDs(dst []byte, ids []uint32) []byte {
	for _, id := range ids {
		dst = binary.AppendUvarint(dst, uint64(id))
	}
	return dst
}

func parseIDs(b []byte, ids []uint32, templates int) error {
	for i := range ids {
		if len(b) > 0 && b[0] < 0x80 && int(b[0]) < templates {
			ids[i] = uint32(b[0])
			b = b[1:]
			continue
		}
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

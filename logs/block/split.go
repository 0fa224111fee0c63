package block

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math"
	"math/bits"
	"slices"

	"perch/logs/record"
)

// splitter parts lines into templates and variables. It is used again and
// again by one goroutine.
type splitter struct {
	class [256]Class
	masks masks
	seed  maphash.Seed
	known []uint32          // templates by hash, open addressing: number, and 1
	marks []uint32          // other bits of the hash of each template
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

	few    few
	values []byte // of all columns with few
}

type span struct{ start, end uint32 }

// fewLines are not worth templates.
const fewLines = 16

// split fills the splitter with the lines. It returns false when they have too
// many templates for that to pay: more than one for four lines.
func (s *splitter) split(l *Lines) bool {
	n := l.Len()
	if n < fewLines || bytes.IndexByte(l.Text, Hole) >= 0 {
		return false
	}
	if s.forms == nil {
		s.class, s.masks, s.seed, s.forms = classes(), newMasks(), maphash.MakeSeed(), map[string]uint32{}
	}
	clear(s.forms)
	s.known = grow(s.known, 1<<bits.Len(uint(n/2))) // twice as many as there may be templates
	clear(s.known)
	s.marks = s.marks[:0]
	s.dict = Templates{Text: s.dict.Text[:0], Ends: s.dict.Ends[:0], Holes: s.dict.Holes[:0], Shapes: s.dict.Shapes[:0], Levels: s.dict.Levels[:0], columns: s.dict.columns[:0]}
	s.ids, s.vars, s.first, s.lines = s.ids[:0], s.vars[:0], s.first[:0], s.lines[:0]
	// Text without statements is known by its first lines: the rest is no better.
	seen := 0
	for _, sample := range []struct{ lines, most int }{{n / 64, 95}, {n / 8, 80}} { // most: templates in a hundred lines
		if sample.lines < fewLines {
			continue
		}
		if !s.part(l, seen, sample.lines) || s.dict.Len()*100 > sample.lines*sample.most {
			return false
		}
		seen = sample.lines
	}
	return s.part(l, seen, n)
}

// part gives lines from..to their templates. It returns false when there are
// too many.
func (s *splitter) part(l *Lines, from, to int) bool {
	start := uint32(0)
	if from > 0 {
		start = l.Ends[from-1] + 1
	}
	at := len(s.vars)
	s.vars = variables(s.vars, l.Text[start:l.Ends[to-1]+1], start)
	for i := from; i < to; i++ {
		end, first := l.Ends[i], at
		for at < len(s.vars) && s.vars[at].start < end {
			at++
		}
		s.first = append(s.first, uint32(first))
		t := s.template(l.Text, span{start, end}, s.vars[first:at])
		start = end + 1
		id, fresh := s.number(t)
		if fresh {
			if int(id) >= l.Len()/4 {
				return false
			}
			s.dict.add(t, uint32(at-first), s.shapeOf(t))
		}
		s.ids = append(s.ids, id)
		s.lines[s.dict.Shapes[id]]++
		s.dict.Levels[int(id)*record.LevelCount+min(int(l.Levels[i]), record.LevelCount-1)]++
	}
	return true
}

// number is the number of template t, the next one when it is fresh.
func (s *splitter) number(t []byte) (id uint32, fresh bool) {
	h := maphash.Bytes(s.seed, t)
	mark, mask := uint32(h>>32), len(s.known)-1
	for i := int(h) & mask; ; i = (i + 1) & mask {
		k := s.known[i]
		if k == 0 {
			id = uint32(len(s.marks))
			s.known[i] = id + 1
			s.marks = append(s.marks, mark)
			return id, true
		}
		if s.marks[k-1] == mark && string(s.dict.Of(int(k-1))) == string(t) {
			return k - 1, false
		}
	}
}

// template returns the line with holes in the places of its variables.
func (s *splitter) template(text []byte, line span, vars []span) []byte {
	if need := int(line.end-line.start) + copyBytes; len(s.line) < need {
		s.line = make([]byte, 2*need)
	}
	out, n, kept := s.line, 0, line.start
	for _, v := range vars {
		n += copyShort(out[n:], text, kept, v.start)
		out[n] = Hole
		n++
		kept = v.end
	}
	return out[:n+copyShort(out[n:], text, kept, line.end)]
}

// copyBytes is how much copyShort may write: most parts of lines are shorter,
// and so many bytes are copied faster than few.
const copyBytes = 16

// copyShort copies text[start:end] to dst, and perhaps more than that, up to
// copyBytes. It returns how many bytes were asked for.
func copyShort(dst, text []byte, start, end uint32) int {
	n := int(end - start)
	if from := text[start:]; n <= copyBytes && len(from) >= copyBytes {
		*(*[copyBytes]byte)(dst) = *(*[copyBytes]byte)(from)
	} else {
		copy(dst, from[:n])
	}
	return n
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

// appendColumns writes the variables: for each shape, for each of its holes, the
// values of its lines in order, each followed by '\n', which no variable
// contains. A value equal to the one before it in its column is left empty. The
// templates learn where the columns are.
func (s *splitter) appendColumns(dst []byte, l *Lines) []byte {
	s.values = s.values[:0]
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
	base := len(dst)
	dst = slices.Grow(dst, len(l.Text)+copyBytes) // in the text each variable has a byte after it too
	out, n := dst[base:cap(dst)], 0
	end := uint32(0)
	for _, lines := range s.lines {
		rows := s.order[end : end+lines]
		end += lines
		for hole := range s.dict.Holes[s.ids[rows[0]]] {
			c := Column{Start: uint32(n)}
			n += s.masks.column(out[n:], l.Text, s.vars, s.first, rows, hole, &s.few)
			c.End, c.Least, c.Most = uint32(n), s.few.least, s.few.most
			at := len(s.values)
			s.values = s.few.appendTo(s.values)
			c.Values = s.values[at:]
			for _, b := range out[c.Start:c.End] {
				c.Class |= s.class[b]
			}
			s.dict.columns = append(s.dict.columns, c)
		}
	}
	return dst[:base+n]
}

// masks keep, for each length up to copyBytes, so many bytes of two numbers.
type masks [copyBytes + 1][2]uint64

func newMasks() (m masks) {
	for n := range m {
		for i := range n {
			m[n][i/8] |= 0xff << (8 * (i % 8))
		}
	}
	return m
}

// few are the values of a column as long as there are few, each as two numbers.
type few struct {
	least, most uint32 // bytes of a value
	n           int    // of the values; 0 when they are many
	low, high   [fewValues]uint64
}

// fewValues of at most copyBytes each are written down for a column.
const fewValues = 16

// add returns false when there are too many.
func (f *few) add(low, high uint64) bool {
	for i, x := range f.low[:f.n] {
		if x == low && f.high[i] == high {
			return true
		}
	}
	if f.n == fewValues {
		return false
	}
	f.low[f.n], f.high[f.n] = low, high
	f.n++
	return true
}

// appendTo writes the values, each after its length; nothing when there are many.
func (f *few) appendTo(dst []byte) []byte {
	for i := range f.n {
		var b [copyBytes]byte
		binary.LittleEndian.PutUint64(b[:], f.low[i])
		binary.LittleEndian.PutUint64(b[8:], f.high[i])
		n := (bits.Len64(f.low[i]) + 7) / 8
		if f.high[i] != 0 {
			n = 8 + (bits.Len64(f.high[i])+7)/8
		}
		dst = append(append(dst, byte(n)), b[:n]...)
	}
	return dst
}

// column writes the values of one hole to out and returns how many bytes that
// are. Most are so short that they are compared and copied quicker as two
// numbers than as bytes. It gathers them in f.
func (m *masks) column(out, text []byte, vars []span, first, rows []uint32, hole uint32, f *few) int {
	least, most, many := uint32(math.MaxUint32), uint32(0), false
	f.n = 0
	n := 0
	var before span
	var low, high uint64 // of the value before, if it is short
	for _, row := range rows {
		v := vars[first[row]+hole]
		size := v.end - v.start
		b := text[v.start:]
		if len(b) < copyBytes { // at the end of the text
			var room [copyBytes]byte
			copy(room[:], b)
			b = room[:]
		}
		if size > copyBytes {
			if b = b[:size]; string(b) != string(text[before.start:before.end]) {
				n += copy(out[n:], b)
				before, low, high = v, 0, 0
				least, most, many = min(least, size), max(most, size), true
			}
		} else {
			keep := &m[size]
			l, h := binary.LittleEndian.Uint64(b)&keep[0], binary.LittleEndian.Uint64(b[8:])&keep[1]
			if l != low || h != high { // no byte of a value is 0, so that lengths differ too
				binary.LittleEndian.PutUint64(out[n:], l)
				binary.LittleEndian.PutUint64(out[n+8:], h)
				n += int(size)
				before, low, high = v, l, h
				least, most = min(least, size), max(most, size)
				if !many {
					many = !f.add(l, h)
				}
			}
		}
		out[n] = '\n'
		n++
	}
	if f.least, f.most = least, most; many {
		f.n = 0
	}
	return n
}

package query

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"io"
	"strconv"
	"unicode/utf8"

	"perch/logs/index"
	"perch/logs/record"
)

// foldInto makes the ASCII letters of src small, eight bytes at a time.
func foldInto(dst, src []byte) {
	dst = dst[:len(src)]
	for len(src) >= 32 && len(dst) >= 32 {
		d, s := (*[32]byte)(dst), (*[32]byte)(src)
		binary.LittleEndian.PutUint64(d[0:], index.FoldEight(binary.LittleEndian.Uint64(s[0:])))
		binary.LittleEndian.PutUint64(d[8:], index.FoldEight(binary.LittleEndian.Uint64(s[8:])))
		binary.LittleEndian.PutUint64(d[16:], index.FoldEight(binary.LittleEndian.Uint64(s[16:])))
		binary.LittleEndian.PutUint64(d[24:], index.FoldEight(binary.LittleEndian.Uint64(s[24:])))
		dst, src = dst[32:], src[32:]
	}
	for i, c := range src {
		if c-'A' < 26 {
			c |= 0x20
		}
		dst[i] = c
	}
}

func wordByte(c byte) bool { return index.Fold(c) != 0 }

// contains tells whether needle stands in hay so that it does not begin or end
// within a word. With prefix it may end within one.
func contains(hay, needle []byte, prefix bool) bool {
	for at := 0; ; {
		k := bytes.Index(hay[at:], needle)
		if k < 0 {
			return false
		}
		k += at
		if whole(hay, k, len(needle), prefix) {
			return true
		}
		at = k + 1
	}
}

func whole(hay []byte, at, n int, prefix bool) bool {
	if at > 0 && wordByte(hay[at]) && wordByte(hay[at-1]) {
		return false
	}
	end := at + n
	return prefix || end == len(hay) || !wordByte(hay[end-1]) || !wordByte(hay[end])
}

// candidate is a line that is being looked at.
type candidate struct {
	stream *record.Stream
	level  record.Level
	body   []byte
	folded []byte // nil: made when needed
	sent   []byte // sender's fields as a JSON object
	room   []byte // memory for folded
	leaves []leaf // of the query, with machines; may be nil
	parsed bool
	fields []pair
	long   int          // bytes times instructions from which on over is asked
	over   func() error // says when the time is up; may be nil
	late   error        // it was while this line was looked at: what match said of it is nothing

	searches longSearches // when over asks them
}

func (c *candidate) reset(stream *record.Stream, level record.Level, body, folded, sent []byte) {
	c.stream, c.level, c.body, c.folded, c.sent = stream, level, body, folded, sent
	c.parsed, c.late = false, nil
}

func (c *candidate) fold() []byte {
	if c.folded == nil {
		if cap(c.room) < len(c.body) {
			c.room = make([]byte, len(c.body)*2)
		}
		c.folded = c.room[:len(c.body)]
		foldInto(c.folded, c.body)
	}
	return c.folded
}

// value returns a field: label, level, sender's field, then what the line says.
func (c *candidate) value(name string) (string, bool) {
	if v, ok := c.stream.Label(name); ok {
		return v, v != ""
	}
	if name == "level" {
		return c.level.String(), true
	}
	if !c.parsed {
		c.parsed = true
		c.fields = appendJSONFields(c.fields[:0], c.sent)
		c.fields = AppendLineFields(c.fields, c.body)
	}
	for i := range c.fields {
		if c.fields[i].Key == name {
			return c.fields[i].Value, true
		}
	}
	return "", false
}

func (n *node) match(c *candidate) bool {
	switch n.op {
	case opAll:
		return true
	case opAnd:
		for _, k := range n.kids {
			if !k.match(c) {
				return false
			}
		}
		return true
	case opOr:
		for _, k := range n.kids {
			if k.match(c) {
				return true
			}
		}
		return false
	case opNot:
		return !n.kids[0].match(c)
	case opText:
		if n.exact {
			return contains(c.body, stringBytes(n.text), n.prefix)
		}
		return contains(c.fold(), stringBytes(n.text), n.prefix)
	case opRegex:
		if c.leaves != nil {
			if is, ok := c.leaves[n.leaf].automaton().match(c.body); ok {
				return is
			}
		}
		return c.finds(n, c.body)
	}
	if n.field == "level" {
		return n.matchLevel(c.level)
	}
	v, ok := c.value(n.field)
	if n.op == opMatch {
		return ok && c.finds(n, stringBytes(v))
	}
	return n.matchValue(v, ok)
}

// longSearch is the bytes of a text times the instructions of an expression from which
// on it is searched as long as there is time: about half a second at worst. Of lines
// that come there are many: package regexp has its slow way for what is longer than
// liveSearch, some ms at worst.
const (
	longSearch = 32 << 20
	liveSearch = 256 << 10
)

// finds tells whether the expression of n finds something in text.
func (c *candidate) finds(n *node, text []byte) bool {
	if c.over == nil || len(text)*n.size < cmp.Or(c.long, longSearch) {
		return n.re.Match(text)
	}
	if prefix, _ := n.re.LiteralPrefix(); !bytes.Contains(text, stringBytes(prefix)) { // of every match
		return false
	}
	r := timedText{text: text, over: c.over}
	is := n.re.MatchReader(&r)
	if r.late != nil {
		c.late = r.late
	}
	return is
}

// timedText is a text that ends when the time is up.
type timedText struct {
	text []byte
	over func() error
	late error
	look int // bytes until it is asked for the time
}

// lookedText bytes are read before the time is looked at.
const lookedText = 1 << 10

// ReadRune reads as package regexp reads bytes.
func (r *timedText) ReadRune() (rune, int, error) {
	if r.look <= 0 && r.late == nil {
		r.look, r.late = lookedText, r.over()
	}
	if r.late != nil || len(r.text) == 0 {
		return 0, 0, io.EOF
	}
	c, n := utf8.DecodeRune(r.text)
	r.text, r.look = r.text[n:], r.look-n
	return c, n, nil
}

func (n *node) matchLevel(l record.Level) bool {
	switch n.op {
	case opEqual:
		return l == n.level
	case opCompare: // a line of unknown level is in no range
		return l != record.Unknown && n.cmp.holds(int(l)-int(n.level))
	case opMatch:
		return n.re.MatchString(l.String())
	}
	return l != record.Unknown
}

func (n *node) matchValue(v string, ok bool) bool {
	if !ok {
		return false
	}
	switch n.op {
	case opEqual:
		if n.prefix {
			if len(v) < len(n.text) {
				return false
			}
			v = v[:len(n.text)]
		}
		return v == n.text || !n.exact && len(v) == len(n.text) && foldString(v) == n.text
	case opMatch:
		return n.re.MatchString(v)
	case opCompare:
		f, err := strconv.ParseFloat(v, 64)
		if err != nil || f != f {
			return false
		}
		switch {
		case f < n.number:
			return n.cmp.holds(-1)
		case f > n.number:
			return n.cmp.holds(1)
		}
		return n.cmp.holds(0)
	}
	return true
}

package query

import (
	"perch/logs/block"
	"perch/logs/index"
	"perch/logs/record"
)

// form is a text as templates have it: words with digits are holes.
type form struct {
	text   string
	folds  bool
	prefix bool
	holes  bool   // a template that has it may still not match
	other  string // when the last word may go on: with a hole for that word too
}

// formOf makes the form of a text that begins and ends at the ends of words, or
// with prefix within the last one.
func formOf(text string, exact, prefix bool) form {
	f := form{folds: !exact, prefix: prefix}
	var out []byte
	for i := 0; i < len(text); {
		if !wordByte(text[i]) {
			f.holes = f.holes || text[i] == block.Hole
			out = append(out, text[i])
			i++
			continue
		}
		start, digit := i, false
		for i < len(text) && wordByte(text[i]) {
			digit = digit || text[i] >= '0' && text[i] <= '9'
			i++
		}
		if i == len(text) && prefix && !digit {
			f.other = string(out) + string(rune(block.Hole))
		}
		if digit {
			f.holes = true
			out = append(out, block.Hole)
		} else {
			out = append(out, text[start:i]...)
		}
	}
	f.text = string(out)
	return f
}

func (f *form) in(c *statement) answer {
	hay := c.text
	if f.folds {
		hay = c.fold()
	}
	if contains(hay, stringBytes(f.text), f.prefix) {
		if f.holes {
			return maybe
		}
		return yes
	}
	if f.other != "" && contains(hay, stringBytes(f.other), false) {
		return maybe
	}
	return no
}

// statement is a template that is being looked at, with what all its lines
// share.
type statement struct {
	stream *record.Stream
	level  record.Level
	text   []byte
	folded []byte // nil: made when needed
	room   []byte // memory for folded
	holes  bool
	sent   bool // its lines may have fields from their sender
}

func (c *statement) fold() []byte {
	if c.folded == nil {
		if cap(c.room) < len(c.text) {
			c.room = make([]byte, 2*len(c.text))
		}
		c.folded = c.room[:len(c.text)]
		foldInto(c.folded, c.text)
	}
	return c.folded
}

// lines tells what the node says to all lines of a statement.
func (n *node) lines(c *statement, line *candidate) answer {
	switch n.op {
	case opAll:
		return yes
	case opNot:
		return n.kids[0].lines(c, line).not()
	case opAnd:
		out := yes
		for _, k := range n.kids {
			switch k.lines(c, line) {
			case no:
				return no
			case maybe:
				out = maybe
			}
		}
		return out
	case opOr:
		out := no
		for _, k := range n.kids {
			switch k.lines(c, line) {
			case yes:
				return yes
			case maybe:
				out = maybe
			}
		}
		return out
	}
	field := n.op != opText && n.op != opRegex
	if field {
		if n.field == "level" {
			return known(n.matchLevel(c.level))
		}
		if v, ok := c.stream.Label(n.field); ok {
			return known(n.matchValue(v, v != ""))
		}
		if c.sent {
			return maybe
		}
	}
	if !c.holes { // the template is the line
		line.reset(c.stream, c.level, c.text, c.folded, nil)
		return known(n.match(line))
	}
	if n.op == opText {
		return n.form.in(c)
	}
	for i := range n.forms {
		if n.forms[i].in(c) == no {
			return no
		}
	}
	return maybe
}

func known(b bool) answer {
	if b {
		return yes
	}
	return no
}

// prepare makes the forms of the texts that the node's lines have.
func (n *node) prepare() {
	for _, k := range n.kids {
		k.prepare()
	}
	switch n.op {
	case opText:
		n.form = formOf(n.text, n.exact, n.prefix)
	case opRegex:
		for _, l := range regexLiterals(n.re.String()) {
			if text := wholeWords(l.text); text != "" {
				if l.folds {
					text = foldString(text)
				}
				n.forms = append(n.forms, formOf(text, !l.folds, false))
			}
		}
	case opEqual, opMatch, opCompare, opExists:
		if _, label := (&record.Stream{}).Label(n.field); label || n.field == "level" {
			return
		}
		n.addWords(n.need())
	}
}

func (n *node) addWords(need index.Need) {
	if need.Op == index.Word {
		n.forms = append(n.forms, formOf(need.Text, false, false))
	}
	for _, k := range need.Kids { // fields need all of them
		n.addWords(k)
	}
}

// verdicts are the answers for the templates of one piece.
type verdicts struct {
	root  *node
	c     statement
	line  candidate
	t     *block.Templates
	known []answer // by template and level, undecided first
	byAll bool     // the level does not matter
}

const undecided answer = 255

// start looks at other templates. It tells what holds for all lines, of
// whatever level.
func (v *verdicts) start(root *node, stream *record.Stream, t *block.Templates, sent bool) {
	v.root, v.t, v.byAll = root, t, !root.asksLevel()
	v.c.stream, v.c.sent = stream, sent
	n := t.Len()
	if !v.byAll {
		n *= record.LevelCount
	}
	if cap(v.known) < n {
		v.known = make([]answer, n+n/2)
	}
	v.known = v.known[:n]
	for i := range v.known {
		v.known[i] = undecided
	}
}

// all is the answer for every line, when it does not depend on levels.
func (v *verdicts) all() answer {
	if !v.byAll {
		return maybe
	}
	out := v.of(0, 0)
	for i := 1; i < v.t.Len() && out != maybe; i++ {
		if v.of(uint32(i), 0) != out {
			out = maybe
		}
	}
	return out
}

func (v *verdicts) of(template uint32, level byte) answer {
	i := int(template)
	if !v.byAll {
		i = i*record.LevelCount + levelIndex(level)
	}
	if v.known[i] == undecided {
		v.c.text, v.c.folded = v.t.Of(int(template)), nil
		v.c.level, v.c.holes = record.Level(levelIndex(level)), v.t.Holes[template] > 0
		v.known[i] = v.root.lines(&v.c, &v.line)
	}
	return v.known[i]
}

// asksLevel tells whether the level of a line matters.
func (n *node) asksLevel() bool {
	for _, k := range n.kids {
		if k.asksLevel() {
			return true
		}
	}
	return n.field == "level"
}

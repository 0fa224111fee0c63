package query

import (
	"bytes"

	"perch/logs/block"
	"perch/logs/record"
)

// form is a text as templates have it: words with digits are holes.
type form struct {
	text    string
	folds   bool
	prefix  bool
	holes   bool          // a template that has it may still not match
	classes []block.Class // of the words that are holes
	other   string        // when the last word may go on: with a hole for that word too
	last    block.Class   // of that word, with digits
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
		start, class := i, block.Class(0)
		for i < len(text) && wordByte(text[i]) {
			class |= block.ClassOf(text[i])
			i++
		}
		if class&block.Digits != 0 {
			f.holes = true
			f.classes = append(f.classes, class)
			out = append(out, block.Hole)
			continue
		}
		if i == len(text) && prefix {
			f.other, f.last = string(out)+string(rune(block.Hole)), class|block.Digits
		}
		out = append(out, text[start:i]...)
	}
	f.text = string(out)
	return f
}

// fits tells whether columns can have words of all these classes.
func (f *form) fits(columns []block.Column, last bool) bool {
	for _, c := range f.classes {
		if !f.among(columns, c) {
			return false
		}
	}
	return !last || f.among(columns, f.last)
}

func (f *form) among(columns []block.Column, want block.Class) bool {
	for _, c := range columns {
		have := c.Class
		if f.folds { // text is small
			have |= (have & (block.UpHex | block.Upper)) >> 2
		}
		if want&^have == 0 {
			return true
		}
	}
	return false
}

// asked is a block with templates of which a worker asks which lines match.
type asked struct {
	root   *node
	leaves []leaf       // of the query, by number
	over   func() error // says when the time of the query is up
	stream *record.Stream
	sent   bool // lines may have fields from their sender
	parts  block.Parts
	t      *block.Templates
	folded []byte // t.Text; empty until asked for
	line   candidate
	known  []answer // by template, or by template and level; undecided first
	levels bool     // the level matters
	texts  block.Lines
	walk   walk
	spare  [][]uint32 // memory for lines of which templates do not tell
	looked int        // since the time was
}

// lookedLines, of 1 KiB each, are looked at before the time is. An expression may
// take long.
const lookedLines = 32

// timely is asked before a text of so many bytes is looked at.
func (a *asked) timely(bytes int) error {
	if a.looked += 1 + bytes>>10; a.looked < lookedLines {
		return nil
	}
	a.looked = 0
	return a.over()
}

// leaf is a node about texts or parsed fields, and what is known of it in the
// block.
type leaf struct {
	n       *node
	machine *machine // nil until asked for, or when there is none
	judged  bool
	answers []answer // of templates
	plans   []plans  // of templates
	placed  placed   // where the field is
	sent    bool     // a sender may have given the field
}

const undecided answer = 255

// start asks about the lines of the block to which parts is turned.
func (a *asked) start(q *Query, stream *record.Stream, sent bool) (err error) {
	a.about(q)
	a.stream, a.sent, a.folded = stream, sent, a.folded[:0]
	a.walk.cuts.reset()
	for i := range a.leaves {
		a.leaves[i].judged = false
	}
	if a.t, err = a.parts.Templates(); err != nil {
		return err
	}
	n := a.t.Len()
	if a.levels {
		n *= record.LevelCount
	}
	a.known = sized(a.known, n)
	for i := range a.known {
		a.known[i] = undecided
	}
	return nil
}

// about makes the leaves of a query, unless it is the one from before.
func (a *asked) about(q *Query) {
	if a.root == q.root {
		return
	}
	a.root, a.levels = q.root, q.root.asksLevel()
	a.leaves = make([]leaf, len(q.leaves))
	for i, n := range q.leaves {
		a.leaves[i].n = n
	}
}

// sized returns a slice of n, using s's memory when it can.
func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/2)
	}
	return s[:n]
}

// says answers for all lines of a template and level.
func (a *asked) says(template uint32, level byte) answer {
	i := int(template)
	if a.levels {
		i = i*record.LevelCount + levelIndex(level)
	}
	if a.known[i] == undecided {
		a.known[i] = a.verdict(a.root, template, record.Level(levelIndex(level)))
	}
	return a.known[i]
}

// all is the answer for every line, when it does not depend on levels.
func (a *asked) all() answer {
	if a.levels {
		return maybe
	}
	out := a.says(0, 0)
	for i := 1; i < a.t.Len() && out != maybe; i++ {
		if a.says(uint32(i), 0) != out {
			out = maybe
		}
	}
	return out
}

func (a *asked) verdict(n *node, template uint32, level record.Level) answer {
	switch n.op {
	case opAll:
		return yes
	case opNot:
		return a.verdict(n.kids[0], template, level).not()
	case opAnd:
		out := yes
		for _, k := range n.kids {
			switch a.verdict(k, template, level) {
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
			switch a.verdict(k, template, level) {
			case yes:
				return yes
			case maybe:
				out = maybe
			}
		}
		return out
	}
	if n.field == "level" {
		return known(n.matchLevel(level))
	}
	if v, ok := a.stream.Label(n.field); ok {
		return known(n.matchValue(v, v != ""))
	}
	return a.judge(&a.leaves[n.leaf])[template]
}

// judge answers for each template.
func (a *asked) judge(l *leaf) []answer {
	if l.judged {
		return l.answers
	}
	l.judged = true
	l.answers = sized(l.answers, a.t.Len())
	if more := a.t.Len() - cap(l.plans); more > 0 { // keeps the memory of plans
		l.plans = append(l.plans[:cap(l.plans)], make([]plans, more)...)
	}
	l.plans = l.plans[:a.t.Len()]
	for i := range l.plans {
		l.plans[i].reset()
	}
	n := l.n
	if n.op == opText {
		a.sweep(&n.form, l.answers)
		return l.answers
	}
	field := n.field != ""
	for i := range l.answers {
		l.answers[i] = maybe
	}
	if l.sent = field && a.sent && senders(&a.parts, n.field); l.sent {
		return l.answers
	}
	for _, w := range n.words {
		for i, has := range a.judge(&a.leaves[w.leaf]) {
			if has == no {
				l.answers[i] = no
			}
		}
	}
	if field {
		l.placed.start(n.field, a.t, l.answers)
	}
	for i := range l.answers {
		if a.timely(len(a.t.Of(i))) != nil {
			break // who looks at lines says so
		}
		switch {
		case l.answers[i] == no:
		case !field && l.automaton() != nil:
			l.answers[i] = a.look(l, uint32(i), 0, l.machine.begin).is
		case a.t.Holes[i] == 0: // the template is the line
			a.line.over = a.over
			a.line.reset(a.stream, record.Unknown, a.t.Of(i), nil, nil)
			if l.answers[i] = known(n.match(&a.line)); a.line.late != nil {
				l.answers[i] = maybe
			}
		case field:
			l.answers[i] = l.placed.of[i].says(n, a.t.Columns(i))
		}
	}
	return l.answers
}

func known(b bool) answer {
	if b {
		return yes
	}
	return no
}

// sweep finds the templates that have a form.
func (a *asked) sweep(f *form, answers []answer) {
	clear(answers)
	for i := range answers {
		answers[i] = no
	}
	hay := a.t.Text
	if f.folds {
		if len(a.folded) == 0 {
			a.folded = sized(a.folded, len(hay))
			foldInto(a.folded, hay)
		}
		hay = a.folded
	}
	a.each(hay, stringBytes(f.text), f.prefix, func(i int) {
		if !f.holes {
			answers[i] = yes
		} else if columns := a.t.Columns(i); columns == nil || f.fits(columns, false) {
			answers[i] = maybe
		}
	})
	if f.other == "" {
		return
	}
	a.each(hay, stringBytes(f.other), false, func(i int) {
		if columns := a.t.Columns(i); answers[i] == no && (columns == nil || f.fits(columns, true)) {
			answers[i] = maybe
		}
	})
}

// each calls found for every template that has a text, not within words.
func (a *asked) each(hay, text []byte, prefix bool, found func(i int)) {
	i, start := 0, 0
	for at := 0; ; {
		k := bytes.Index(hay[at:], text)
		if k < 0 {
			return
		}
		at += k
		for int(a.t.Ends[i]) <= at {
			start = int(a.t.Ends[i])
			i++
		}
		end := int(a.t.Ends[i])
		if at+len(text) <= end && whole(hay[start:end], at-start, len(text), prefix) {
			found(i)
			at = end
		} else {
			at++
		}
	}
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

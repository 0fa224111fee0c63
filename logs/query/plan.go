package query

import (
	"cmp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"

	"perch/logs/index"
	"perch/logs/record"
)

// answer is what is known of a line before it is read.
type answer uint8

const (
	maybe answer = iota
	yes
	no
)

func (a answer) not() answer {
	switch a {
	case yes:
		return no
	case no:
		return yes
	}
	return maybe
}

// ask answers for all lines of a stream.
func (n *node) ask(s *record.Stream) answer { return n.askOf(s.Label) }

// askNamespace answers for all lines of a namespace, whatever else the query says.
func (n *node) askNamespace(name string) answer {
	return n.askOf(func(label string) (string, bool) { return name, label == "namespace" })
}

// askOf answers for all lines that have some labels; others are not known.
func (n *node) askOf(label func(name string) (value string, known bool)) answer {
	switch n.op {
	case opAll:
		return yes
	case opNot:
		return n.kids[0].askOf(label).not()
	case opAnd:
		out := yes
		for _, k := range n.kids {
			switch k.askOf(label) {
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
			switch k.askOf(label) {
			case yes:
				return yes
			case maybe:
				out = maybe
			}
		}
		return out
	case opText, opRegex:
		return maybe
	}
	v, ok := label(n.field)
	if !ok {
		return maybe
	}
	if n.matchValue(v, v != "") {
		return yes
	}
	return no
}

// light tells whether the query can be decided on labels and levels alone.
func (n *node) light() bool {
	switch n.op {
	case opText, opRegex:
		return false
	case opAll:
		return true
	case opAnd, opOr, opNot:
		for _, k := range n.kids {
			if !k.light() {
				return false
			}
		}
		return true
	}
	return n.plain()
}

// need is what a block must have so that one of its lines can match.
func (n *node) need() index.Need {
	switch n.op {
	case opAnd:
		kids := make([]index.Need, len(n.kids))
		for i, k := range n.kids {
			kids[i] = k.need()
		}
		return index.All(kids...)
	case opOr:
		kids := make([]index.Need, len(n.kids))
		for i, k := range n.kids {
			kids[i] = k.need()
		}
		return index.One(kids...)
	case opText:
		return textNeed(n.text, n.prefix)
	case opRegex:
		return regexNeed(n.re.String())
	case opEqual, opMatch, opCompare, opExists:
		if n.plain() || derived(n.field) {
			return index.Need{}
		}
		var needs []index.Need
		if !shaped(n.field) { // the name stands in the line
			needs = append(needs, asciiWords(n.field))
		}
		if n.op == opEqual {
			needs = append(needs, safeWords(n.text, n.prefix))
		}
		return index.All(needs...)
	}
	return index.Need{}
}

// textNeed: all words of text are whole words of the line, the last one may be
// a prefix.
func textNeed(text string, prefix bool) index.Need {
	if !prefix || text == "" || !wordByte(text[len(text)-1]) {
		return index.Phrase(text)
	}
	at := len(text)
	for at > 0 && wordByte(text[at-1]) {
		at--
	}
	return index.All(index.Phrase(text[:at]), index.Need{Op: index.Prefix, Text: foldString(text[at:])})
}

// asciiWords is the need for the words of a field's name. Writers of JSON may
// escape other letters.
func asciiWords(name string) index.Need {
	for i := 0; i < len(name); i++ {
		if name[i] >= 0x80 {
			return index.Need{}
		}
	}
	return index.Phrase(name)
}

// safeWords is the need for those words of a field's value that stand in the
// line as they are, however its writer escapes: pure ASCII, at the start or
// after a byte nobody escapes.
func safeWords(value string, prefix bool) index.Need {
	var needs []index.Need
	for i := 0; i < len(value); {
		if !wordByte(value[i]) {
			i++
			continue
		}
		start, ascii := i, true
		for i < len(value) && wordByte(value[i]) {
			ascii = ascii && value[i] < 0x80
			i++
		}
		if ascii && (start == 0 || neverEscaped(value[start-1])) && (i < len(value) || !prefix) {
			needs = append(needs, index.Phrase(value[start:i]))
		}
	}
	return index.All(needs...)
}

func neverEscaped(c byte) bool {
	switch c {
	case '"', '\\', '<', '>', '&', '\'', '/', 0x7f:
		return false
	}
	return c >= 0x20 && c < 0x80
}

// regexNeed finds words that every match contains.
func regexNeed(expr string) index.Need {
	var needs []index.Need
	for _, l := range regexLiterals(expr) {
		needs = append(needs, index.Phrase(wholeWords(l.text)))
	}
	return index.All(needs...)
}

// wholeWords leaves out the words at the ends of a text from inside a line:
// they may go on there.
func wholeWords(text string) string {
	start := 0
	for start < len(text) && wordByte(text[start]) {
		start++
	}
	end := len(text)
	for end > start && wordByte(text[end-1]) {
		end--
	}
	return text[start:end]
}

// regexLiterals returns texts that are in every match.
func regexLiterals(expr string) []literal {
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil
	}
	return literals(re.Simplify(), nil)
}

// literal is a text that is in every match of an expression.
type literal struct {
	text  string
	folds bool
}

func literals(re *syntax.Regexp, out []literal) []literal {
	switch re.Op {
	case syntax.OpLiteral:
		folds := re.Flags&syntax.FoldCase != 0
		for _, r := range re.Rune {
			switch {
			case r == utf8.RuneError: // also matches bytes that are not UTF-8
				return out
			case folds && (r >= 0x80 || r|0x20 == 'k' || r|0x20 == 's'): // letters that fold to others outside ASCII
				return out
			}
		}
		return append(out, literal{string(re.Rune), folds})
	case syntax.OpConcat:
		for _, k := range re.Sub {
			out = literals(k, out)
		}
	case syntax.OpCapture, syntax.OpPlus:
		return literals(re.Sub[0], out)
	}
	return out
}

// driver is a text that every matching line contains, to jump from line to
// line; empty when there is none.
type driver struct {
	text  string
	folds bool // looked for in folded text
	field bool // of a field, which a sender may have given beside the line
}

func (n *node) driver() driver {
	switch n.op {
	case opText:
		return driver{text: n.text, folds: !n.exact}
	case opRegex:
		return regexDriver(n.re.String())
	case opEqual:
		if n.plain() || derived(n.field) || !verbatim(n.text) {
			return driver{}
		}
		return driver{text: n.text, folds: !n.exact, field: true}
	case opAnd:
		var best driver
		for _, k := range n.kids {
			if d := k.driver(); len(d.text) > len(best.text) {
				best = d
			}
		}
		return best
	}
	return driver{}
}

// verbatim tells whether a value stands in a line as it is, however its writer
// escapes.
func verbatim(v string) bool {
	for i := 0; i < len(v); i++ {
		if !neverEscaped(v[i]) {
			return false
		}
	}
	return true
}

// regexDriver is the longest text that is in every match. One byte is in too
// many lines to be worth it.
func regexDriver(expr string) driver {
	var best driver
	for _, l := range regexLiterals(expr) {
		if len(l.text) > max(1, len(best.text)) {
			best = driver{text: l.text, folds: l.folds}
			if l.folds {
				best.text = foldString(l.text)
			}
		}
	}
	return best
}

// prepare gets the nodes ready to be asked about blocks.
func (q *Query) prepare(n *node) {
	for _, k := range n.kids {
		q.prepare(k)
	}
	switch n.op {
	case opAll, opOr, opNot:
		return
	case opAnd:
		slices.SortStableFunc(n.kids, func(a, b *node) int { return cmp.Compare(a.cost(), b.cost()) })
		return
	case opText:
		n.form = formOf(n.text, n.exact, n.prefix)
		n.prog = textProgram(n.text, n.exact, n.prefix)
		for _, w := range variables(n.text) {
			if w != n.text {
				n.words = append(n.words, &node{op: opText, text: w, exact: n.exact, prefix: n.prefix && strings.HasSuffix(n.text, w)})
			} else {
				n.probe = probe(w, n.exact)
			}
		}
	case opRegex:
		for _, l := range regexLiterals(n.re.String()) {
			if text := wholeWords(l.text); text != "" {
				n.words = append(n.words, textNode(text, !l.folds, false))
			}
		}
	default:
		if n.plain() {
			return
		}
		n.addWords(n.need())
	}
	for _, w := range n.words {
		q.prepare(w)
	}
	n.leaf = len(q.leaves)
	q.leaves = append(q.leaves, n)
}

func (n *node) addWords(need index.Need) {
	if need.Op == index.Word {
		n.words = append(n.words, textNode(need.Text, false, false))
	}
	for _, k := range need.Kids { // fields need all of them
		n.addWords(k)
	}
}

// plain tells whether a node about a field is about a label or the level.
func (n *node) plain() bool {
	_, label := (&record.Stream{}).Label(n.field)
	return label || n.field == "level"
}

// cost orders nodes: the cheap ones first.
func (n *node) cost() int {
	switch n.op {
	case opAll:
		return 0
	case opText:
		return 2
	case opRegex:
		return 3
	case opAnd, opOr, opNot:
		most := 0
		for _, k := range n.kids {
			most = max(most, k.cost())
		}
		return most
	}
	if n.plain() {
		return 1
	}
	return 4
}

// variables are the words with digits of a text.
func variables(text string) (words []string) {
	for i := 0; i < len(text); {
		start, digit := i, false
		for i < len(text) && wordByte(text[i]) {
			digit = digit || text[i] >= '0' && text[i] <= '9'
			i++
		}
		if digit {
			words = append(words, text[start:i])
		}
		if i == start {
			i++
		}
	}
	return words
}

// probe is the longest part of a word of which the case does not matter.
func probe(word string, exact bool) (best string) {
	if exact {
		return word
	}
	for i := 0; i < len(word); i++ {
		from := i
		for i < len(word) && (word[i] < 'a' || word[i] > 'z') {
			i++
		}
		if i-from > len(best) {
			best = word[from:i]
		}
	}
	return best
}

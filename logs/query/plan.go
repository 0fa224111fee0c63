package query

import (
	"regexp/syntax"
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
func (n *node) ask(s *record.Stream) answer {
	switch n.op {
	case opAll:
		return yes
	case opNot:
		return n.kids[0].ask(s).not()
	case opAnd:
		out := yes
		for _, k := range n.kids {
			switch k.ask(s) {
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
			switch k.ask(s) {
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
	v, ok := s.Label(n.field)
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
	_, label := (&record.Stream{}).Label(n.field)
	return label || n.field == "level"
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
		if _, label := (&record.Stream{}).Label(n.field); label || n.field == "level" {
			return index.Need{}
		}
		needs := []index.Need{asciiWords(n.field)}
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
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return index.Need{}
	}
	var needs []index.Need
	for _, lit := range literals(re.Simplify(), nil) {
		// Words that touch an end of the literal may go on outside of it.
		start := 0
		for start < len(lit) && wordByte(lit[start]) {
			start++
		}
		end := len(lit)
		for end > start && wordByte(lit[end-1]) {
			end--
		}
		needs = append(needs, index.Phrase(lit[start:end]))
	}
	return index.All(needs...)
}

// literals returns texts that are in every match of re.
func literals(re *syntax.Regexp, out []string) []string {
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase != 0 {
			for _, r := range re.Rune {
				if r >= 0x80 || r == 'k' || r == 'K' || r == 's' || r == 'S' {
					return out // letters that fold to others outside ASCII
				}
			}
		}
		for _, r := range re.Rune {
			if r == utf8.RuneError { // also matches bytes that are not UTF-8
				return out
			}
		}
		return append(out, string(re.Rune))
	case syntax.OpConcat:
		for _, k := range re.Sub {
			out = literals(k, out)
		}
	case syntax.OpCapture, syntax.OpPlus:
		return literals(re.Sub[0], out)
	}
	return out
}

// driver returns a text that every matching line contains, to jump from line to
// line; nil when there is none.
func (n *node) driver() *node {
	switch n.op {
	case opText:
		return n
	case opAnd:
		var best *node
		for _, k := range n.kids {
			if d := k.driver(); d != nil && (best == nil || len(d.text) > len(best.text)) {
				best = d
			}
		}
		return best
	}
	return nil
}

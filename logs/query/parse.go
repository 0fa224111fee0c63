package query

import (
	"fmt"
	"math"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"

	"perch/logs/record"
)

// Error says where a query is wrong and what was expected there.
type Error struct {
	Position int    // bytes from the start
	Expected string // what could stand there
	Found    string // what does
}

func (e *Error) Error() string {
	return fmt.Sprintf("query position %d: expected %s, found %s", e.Position, e.Expected, e.Found)
}

type op uint8

const (
	opAll     op = iota // every line
	opAnd               // all kids
	opOr                // one of kids
	opNot               // not the kid
	opText              // the line contains text
	opRegex             // the line matches re
	opEqual             // field equals text
	opMatch             // field matches re
	opCompare           // field cmp number, or level cmp level
	opExists            // field is there
)

type comparison uint8

const (
	less comparison = iota
	lessEqual
	greater
	greaterEqual
)

func (c comparison) holds(order int) bool {
	switch c {
	case less:
		return order < 0
	case lessEqual:
		return order <= 0
	case greater:
		return order > 0
	}
	return order >= 0
}

type node struct {
	op     op
	kids   []*node
	field  string
	text   string // folded unless exact
	exact  bool   // case counts
	prefix bool   // the end of text need not be the end of a word or value
	cmp    comparison
	number float64
	level  record.Level
	re     *regexp.Regexp
	size   int          // instructions of re
	prog   *syntax.Prog // of re or text, for the whole line; nil when there is none
	form   form         // of text
	probe  string       // of a text that is one word with digits: what to look for in variables
	words  []*node      // words that every line has which matches: of a text those with digits; of fields when they are in the line
	leaf   int          // number in Query.leaves
}

// Query is a parsed query.
type Query struct {
	Text   string
	root   *node
	leaves []*node // about texts and parsed fields, and their words
}

const (
	maxDepth = 64
	maxQuery = 16 << 10
	lineName = "line" // the pseudo field for the whole line
	// maxProgram is the number of instructions of all expressions of a query. Each
	// of them may cost time at each byte of a line.
	maxProgram = 2000
)

// Parse reads a query. The error is a *Error.
func Parse(text string) (*Query, error) {
	if len(text) > maxQuery {
		return nil, &Error{maxQuery, fmt.Sprintf("a query of at most %d bytes", maxQuery), fmt.Sprintf("%d bytes", len(text))}
	}
	p := &parser{text: text}
	p.space()
	if p.at == len(text) {
		return &Query{Text: text, root: &node{op: opAll}}, nil
	}
	root, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if p.at < len(text) {
		return nil, p.fail("a word, a phrase, field:value, and, or, not")
	}
	q := &Query{Text: text, root: root}
	q.prepare(root)
	return q, nil
}

type parser struct {
	text    string
	at      int
	program int // instructions of expressions so far
}

func (p *parser) space() {
	for p.at < len(p.text) && isSpace(p.text[p.at]) {
		p.at++
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func (p *parser) fail(expected string) error { return p.failAt(p.at, expected) }

func (p *parser) failAt(at int, expected string) error {
	found := "the end"
	if at < len(p.text) {
		rest := []rune(p.text[at:])
		if len(rest) > 12 {
			rest = append(rest[:12], '…')
		}
		found = strconv.Quote(string(rest))
	}
	return &Error{at, expected, found}
}

// keyword takes one of the words if it stands alone here.
func (p *parser) keyword(words ...string) bool {
	for _, w := range words {
		end := p.at + len(w)
		if strings.HasPrefix(p.text[p.at:], w) && (end == len(p.text) || isSpace(p.text[end]) || p.text[end] == '(') {
			p.at = end
			p.space()
			return true
		}
	}
	return false
}

const operand = "a word, a phrase, field:value, not or ("

func (p *parser) or(depth int) (*node, error) {
	if depth > maxDepth {
		return nil, p.fail(fmt.Sprintf("at most %d nested parentheses", maxDepth))
	}
	first, err := p.and(depth)
	if err != nil {
		return nil, err
	}
	kids := []*node{first}
	for p.keyword("or", "OR") {
		k, err := p.and(depth)
		if err != nil {
			return nil, err
		}
		kids = append(kids, k)
	}
	if len(kids) == 1 {
		return first, nil
	}
	return &node{op: opOr, kids: kids}, nil
}

func (p *parser) and(depth int) (*node, error) {
	first, err := p.not(depth)
	if err != nil {
		return nil, err
	}
	kids := []*node{first}
	for {
		if !p.keyword("and", "AND") {
			if p.at == len(p.text) || p.text[p.at] == ')' {
				break
			}
			at := p.at
			if p.keyword("or", "OR") {
				p.at = at
				break
			}
		}
		k, err := p.not(depth)
		if err != nil {
			return nil, err
		}
		kids = append(kids, k)
	}
	if len(kids) == 1 {
		return first, nil
	}
	return &node{op: opAnd, kids: kids}, nil
}

func (p *parser) not(depth int) (*node, error) {
	if depth > maxDepth {
		return nil, p.fail(fmt.Sprintf("at most %d nested negations", maxDepth))
	}
	if p.at < len(p.text) && (p.text[p.at] == '-' || p.text[p.at] == '!') {
		p.at++
		if p.at == len(p.text) || isSpace(p.text[p.at]) {
			return nil, p.fail(operand + " right after the sign")
		}
	} else if !p.keyword("not", "NOT") {
		return p.primary(depth)
	}
	k, err := p.not(depth + 1)
	if err != nil {
		return nil, err
	}
	return &node{op: opNot, kids: []*node{k}}, nil
}

func (p *parser) primary(depth int) (*node, error) {
	if p.at == len(p.text) || p.text[p.at] == ')' {
		return nil, p.fail(operand)
	}
	if at := p.at; p.keyword("and", "AND", "or", "OR") {
		return nil, p.failAt(at, operand)
	}
	defer p.space()
	switch p.text[p.at] {
	case '(':
		p.at++
		p.space()
		n, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		if p.at == len(p.text) || p.text[p.at] != ')' {
			return nil, p.fail("and, or, or )")
		}
		p.at++
		return n, nil
	case '~':
		p.at++
		return p.regex(lineName)
	}
	if n := fieldLength(p.text[p.at:]); n > 0 {
		field := p.text[p.at : p.at+n]
		p.at += n + 1
		return p.value(field)
	}
	text, exact, prefix, err := p.word(operand)
	if err != nil {
		return nil, err
	}
	return textNode(text, exact, prefix), nil
}

func textNode(text string, exact, prefix bool) *node {
	if text == "" && prefix {
		return &node{op: opAll}
	}
	if !exact {
		text = foldString(text)
	}
	return &node{op: opText, text: text, exact: exact, prefix: prefix}
}

// fieldLength returns the length of a field name before ':', or 0.
func fieldLength(s string) int {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '@' || c >= 0x80:
		case i > 0 && (c >= '0' && c <= '9' || c == '.' || c == '-' || c == '/'):
		case i > 0 && c == ':':
			return i
		default:
			return 0
		}
	}
	return 0
}

// word reads a phrase in quotes, or bytes up to a space or parenthesis. A star
// at the end asks for a prefix.
func (p *parser) word(expected string) (text string, exact, prefix bool, err error) {
	if p.at == len(p.text) || isSpace(p.text[p.at]) || p.text[p.at] == ')' || p.text[p.at] == '(' {
		return "", false, false, p.fail(expected)
	}
	if p.text[p.at] == '"' {
		text, err = p.quoted()
		if err != nil {
			return "", false, false, err
		}
		if p.at < len(p.text) && p.text[p.at] == '*' {
			p.at++
			return text, true, true, nil
		}
		return text, true, false, nil
	}
	start := p.at
	for p.at < len(p.text) && !isSpace(p.text[p.at]) && p.text[p.at] != '(' && p.text[p.at] != ')' && p.text[p.at] != '"' {
		p.at++
	}
	text = p.text[start:p.at]
	if t, ok := strings.CutSuffix(text, "*"); ok {
		return t, false, true, nil
	}
	return text, false, false, nil
}

func (p *parser) quoted() (string, error) {
	start := p.at
	p.at++
	var b strings.Builder
	for p.at < len(p.text) {
		c := p.text[p.at]
		p.at++
		switch c {
		case '"':
			if b.Len() == 0 {
				return "", p.failAt(start, "a phrase that is not empty")
			}
			return b.String(), nil
		case '\\':
			if p.at == len(p.text) {
				return "", p.fail(`one of " \ n t r after the backslash`)
			}
			switch e := p.text[p.at]; e {
			case '"', '\\':
				b.WriteByte(e)
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case 'r':
				b.WriteByte('\r')
			default:
				return "", p.fail(`one of " \ n t r after the backslash`)
			}
			p.at++
		default:
			b.WriteByte(c)
		}
	}
	return "", p.fail(`a closing " for the one at position ` + strconv.Itoa(start))
}

// value reads what stands after "field:".
func (p *parser) value(field string) (*node, error) {
	rest := p.text[p.at:]
	for _, c := range []struct {
		sign string
		cmp  comparison
	}{{">=", greaterEqual}, {"<=", lessEqual}, {">", greater}, {"<", less}} {
		if strings.HasPrefix(rest, c.sign) {
			p.at += len(c.sign)
			return p.compare(field, c.cmp)
		}
	}
	if strings.HasPrefix(rest, "~") {
		p.at++
		return p.regex(field)
	}
	if strings.HasPrefix(rest, "=") {
		p.at++
	}
	at := p.at
	text, exact, prefix, err := p.word("a value after " + field + ":")
	if err != nil {
		return nil, err
	}
	switch {
	case field == lineName:
		return textNode(text, exact, prefix), nil
	case text == "" && prefix:
		return &node{op: opExists, field: field}, nil
	case field == "level" && !prefix:
		l, ok := record.ParseLevel(text)
		if !ok {
			return nil, p.failAt(at, levelNames)
		}
		return &node{op: opEqual, field: field, level: l}, nil
	case field == "level":
		return nil, p.failAt(at, levelNames)
	}
	if !exact {
		text = foldString(text)
	}
	return &node{op: opEqual, field: field, text: text, exact: exact, prefix: prefix}, nil
}

const levelNames = "trace, debug, info, warn, error, fatal or unknown"

func (p *parser) compare(field string, cmp comparison) (*node, error) {
	at, want := p.at, "a number after the comparison"
	if field == "level" {
		want = levelNames
	}
	text, _, prefix, err := p.word(want)
	if err != nil {
		return nil, err
	}
	if field == "level" {
		l, ok := record.ParseLevel(text)
		if !ok || prefix {
			return nil, p.failAt(at, levelNames)
		}
		return &node{op: opCompare, field: field, cmp: cmp, level: l}, nil
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || prefix || math.IsNaN(n) {
		return nil, p.failAt(at, want)
	}
	return &node{op: opCompare, field: field, cmp: cmp, number: n}, nil
}

func (p *parser) regex(field string) (*node, error) {
	at := p.at
	if at == len(p.text) || isSpace(p.text[at]) {
		return nil, p.fail("a regular expression after ~")
	}
	var text string
	if p.text[at] == '"' {
		// Inside quotes \" and \\ are escapes; other backslashes belong to the expression.
		var b strings.Builder
		p.at++
		for {
			if p.at == len(p.text) {
				return nil, p.fail(`a closing " for the one at position ` + strconv.Itoa(at))
			}
			c := p.text[p.at]
			p.at++
			if c == '"' {
				break
			}
			if c == '\\' && p.at < len(p.text) {
				if p.text[p.at] != '"' && p.text[p.at] != '\\' {
					b.WriteByte('\\')
				}
				c = p.text[p.at]
				p.at++
			}
			b.WriteByte(c)
		}
		text = b.String()
	} else {
		depth := 0
		for p.at < len(p.text) && !isSpace(p.text[p.at]) {
			switch p.text[p.at] {
			case '\\':
				p.at = min(p.at+1, len(p.text)-1)
			case '(':
				depth++
			case ')':
				depth--
			}
			if depth < 0 { // closes a parenthesis of the query
				break
			}
			p.at++
		}
		text = p.text[at:p.at]
	}
	prog, err := compile(text)
	if err != nil {
		return nil, &Error{at, "a regular expression in RE2 syntax", strings.TrimPrefix(err.Error(), "error parsing regexp: ")}
	}
	if p.program += len(prog.Inst); p.program > maxProgram {
		return nil, &Error{at, fmt.Sprintf("regular expressions of at most %d instructions", maxProgram), fmt.Sprintf("%d", p.program)}
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, &Error{at, "a regular expression in RE2 syntax", strings.TrimPrefix(err.Error(), "error parsing regexp: ")}
	}
	if field == lineName {
		return &node{op: opRegex, re: re, size: len(prog.Inst), prog: prog}, nil
	}
	return &node{op: opMatch, field: field, re: re, size: len(prog.Inst)}, nil
}

func compile(expr string) (*syntax.Prog, error) {
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, err
	}
	return syntax.Compile(re.Simplify())
}

func foldString(s string) string {
	b := []byte(s)
	foldInto(b, b)
	return string(b)
}

package query

import (
	"bytes"
	"strings"
	"unsafe"

	"perch/logs/block"
)

// place says where the lines of a template have a field, so that its value is
// read from their columns and lines need not be put together. What it says is
// what AppendLineFields finds, whatever the variables are.
type place struct {
	how    placeKind
	value  string  // varying: with marks for variables
	cut    bool    // the cells of its columns are known
	access *access // of which the columns must have what it takes; nil: nothing more to ask
}

type placeKind uint8

const (
	unplaced placeKind = iota // each line has to be looked at
	absent                    // no line has the field
	fixed                     // all have the same value
	varying
)

// A mark stands for variable n: markByte, then two bytes of seven bits each.
// All are bytes of words, as those of variables are, and the first is in no UTF-8.
const (
	markByte  = 0xfe
	markSize  = 3
	mostMarks = 1 << 14
)

// marked is a template with marks for its holes. It is not ok when what a
// variable is may change how the line is read, or a mark could be misread.
func marked(template []byte) (out []byte, ok bool) {
	if bytes.IndexByte(template, markByte) >= 0 {
		return nil, false
	}
	n := 0
	for i, c := range template {
		if c != block.Hole {
			out = append(out, c)
			continue
		}
		if n == mostMarks || i > 0 && template[i-1] == '\\' { // an escape may go on in the variable
			return nil, false
		}
		out = append(out, markByte, 0x80|byte(n>>7), 0x80|byte(n&0x7f))
		n++
	}
	return out, true
}

// nextMark cuts v at its first mark. hole is -1 when there is none.
func nextMark(v string) (before string, hole int, after string) {
	i := strings.IndexByte(v, markByte)
	if i < 0 {
		return v, -1, ""
	}
	return v[:i], int(v[i+1]&0x7f)<<7 | int(v[i+2]&0x7f), v[i+markSize:]
}

// locate finds a field in the lines of a template.
func locate(field string, template []byte) place {
	if otherShape(template) || len(field) > maxName/markSize { // whether a name is too long depends on the variables
		return place{}
	}
	if !named(field, template) && !bytes.Contains(template, []byte(`] "`)) { // no access log either
		return place{how: absent}
	}
	b, ok := marked(template)
	if !ok {
		return place{}
	}
	pairs := appendJSONLine(nil, b)
	var p place
	if len(pairs) == 0 {
		rest := b
		if a, is := cutAccess(b); is && a.may() {
			pairs, rest = a.append(nil)
			p.access = &a
		}
		var object []pair
		if p.access != nil {
			object = appendJSONLine(pairs, rest)
		}
		switch {
		case len(object) > len(pairs):
			pairs = object
		case variedQuotes(rest):
			return place{}
		default:
			pairs = appendLogfmt(pairs, rest)
		}
	}
	if len(pairs) >= maxFields { // of which some may not be keys
		return place{}
	}
	kind := unmarked(field, false)
	p.how = absent
	for _, f := range pairs {
		if strings.IndexByte(f.Key, markByte) >= 0 {
			if unmarked(f.Key, true) == kind { // a variable tells the name
				return place{}
			}
			continue
		}
		if p.how == absent && f.Key == field {
			p.value, p.how = f.Value, fixed
			if strings.IndexByte(f.Value, markByte) >= 0 {
				p.how = varying
			}
		}
	}
	return p
}

// named tells whether the last part of a name may stand in a template.
func named(field string, template []byte) bool {
	last := lastPart(field)
	return bytes.Contains(template, stringBytes(last)) || bytes.IndexByte(template, '\\') >= 0 || strings.ContainsAny(last, "0123456789")
}

// senders tells whether senders may have given a field beside the lines of a block,
// or cannot be read: then each line is.
func senders(parts *block.Parts, field string) bool {
	l, err := parts.Fields()
	return err != nil || bytes.Contains(l.Fields, stringBytes(lastPart(field))) || bytes.IndexByte(l.Fields, '\\') >= 0
}

// lastPart of a name is in the text however it is nested.
func lastPart(field string) string { return field[strings.LastIndexByte(field, '.')+1:] }

// unmarked is a name in which a byte stands for each variable.
func unmarked(name string, marks bool) string {
	var out []byte
	for i := 0; i < len(name); {
		if !wordByte(name[i]) {
			out = append(out, name[i])
			i++
			continue
		}
		start, varies := i, false
		for i < len(name) && wordByte(name[i]) { // what an escape stands for may go on a variable
			if marks && name[i] == markByte {
				varies = true
				i += markSize
				continue
			}
			varies = varies || name[i] >= '0' && name[i] <= '9'
			i++
		}
		if varies {
			out = append(out, markByte)
		} else {
			out = append(out, name[start:i]...)
		}
	}
	return string(out)
}

// otherShape tells whether a line of the template can have a shape of which it
// depends on the variables whether it has.
func otherShape(template []byte) bool {
	letters := 0
	for letters < min(4, len(template)) && template[letters]|0x20 >= 'a' && template[letters]|0x20 <= 'z' {
		letters++
	}
	begins := func(with string) bool { return bytes.HasPrefix(template, stringBytes(with)) }
	if letters == 3 { // a month
		template = template[letters:]
		return begins(" \x11 \x11:\x11:\x11 ") || begins("  \x11 \x11:\x11:\x11 ") // syslog
	}
	return begins("\x11 \x11:\x11:\x11.\x11 ") || // klog
		begins("\x11/\x11/\x11 \x11:\x11:\x11 [") || // error log of nginx
		begins("<\x11>") // syslog
}

// variedQuotes tells whether it depends on the first letter of a variable whether
// a quoted value is read as one: that of a key must not be a digit.
func variedQuotes(b []byte) bool {
	for at := 0; ; {
		i := bytes.Index(b[at:], []byte(`="`))
		if i < 0 {
			return false
		}
		at += i
		start := at
		for start > 0 && keyByte(b[start-1]) {
			start--
		}
		if start < at && b[start] == markByte {
			return true
		}
		at++
	}
}

// may tells whether a line with such variables can have the shape: what must be a
// number is one variable.
func (a *access) may() bool {
	return oneMark(a.status) && (oneMark(a.size) || string(a.size) == "-")
}

func oneMark(v []byte) bool { return len(v) == markSize && v[0] == markByte }

// does tells whether all lines with these columns have the shape. c is nil as long
// as what columns tell of themselves shall do.
func (a *access) does(c *block.Columns, columns []block.Column) bool {
	least, most := 0, 0
	for v, hole := string(a.at), 0; ; {
		var before string
		before, hole, v = nextMark(v)
		least, most = least+len(before), most+len(before)
		if hole < 0 {
			break
		}
		from, to, ok := lengths(c, &columns[hole])
		if !ok {
			return false
		}
		least, most = least+from, most+to
	}
	if least < accessTimeLeast || most > accessTimeMost {
		return false
	}
	_, status, _ := nextMark(string(a.status))
	from, to, ok := lengths(c, &columns[status])
	if !ok || columns[status].Class != block.Digits || from != 3 || to != 3 {
		return false
	}
	_, size, _ := nextMark(string(a.size))
	if size < 0 {
		return true
	}
	_, to, ok = lengths(c, &columns[size])
	return ok && columns[size].Class == block.Digits && to <= 18
}

// lengths are those of the shortest and longest value of a column.
func lengths(c *block.Columns, col *block.Column) (least, most int, ok bool) {
	if col.Most > 0 {
		return int(col.Least), int(col.Most), true
	}
	if c == nil {
		return 0, 0, false
	}
	text := c.Text(*col)
	least = len(text)
	for len(text) > 0 {
		n := bytes.IndexByte(text, '\n')
		if n < 0 {
			return 0, 0, false
		}
		if n > 0 { // else as before
			least, most = min(least, n), max(most, n)
		}
		text = text[n+1:]
	}
	return least, most, true
}

// placed are the places of a leaf's field in the templates of one block, and of
// those before.
type placed struct {
	of    []place
	seen  map[string]place
	bytes int // of the templates in seen
}

// These bound the templates whose places are remembered.
const (
	mostSeen      = 4096
	mostSeenBytes = 1 << 20 // what is remembered of each is about four times as long
)

func (p *placed) find(field string, template []byte) place {
	x, ok := p.seen[string(template)]
	if !ok {
		x = locate(field, template)
		if p.seen == nil || len(p.seen) >= mostSeen || p.bytes+len(template) > mostSeenBytes {
			p.seen, p.bytes = map[string]place{}, 0
		}
		if len(template) <= mostSeenBytes {
			p.seen[string(template)] = x
			p.bytes += len(template)
		}
	}
	return x
}

// start finds the places of a field in the templates of a block. Those of which
// no is the answer are left out; answers may be nil.
func (p *placed) start(field string, t *block.Templates, answers []answer) {
	p.of = sized(p.of, t.Len())
	for i := range p.of {
		x := place{}
		if answers == nil || answers[i] != no {
			x = p.find(field, t.Of(i))
		}
		if columns := t.Columns(i); x.access != nil && columns != nil && x.access.does(nil, columns) {
			x.access = nil
		}
		p.of[i] = x
	}
}

// says answers for all lines of a template. columns are nil when they are not known.
func (p *place) says(n *node, columns []block.Column) answer {
	switch {
	case p.access != nil || p.how == unplaced:
		return maybe
	case p.how == absent:
		return known(n.matchValue("", false))
	case p.how == fixed:
		return known(n.matchValue(p.value, true))
	case n.op == opExists:
		return yes
	case columns == nil || len(p.value) != markSize:
		return maybe
	}
	_, hole, _ := nextMark(p.value)
	some, every := false, true
	col := &columns[hole]
	col.Each(func(v []byte) bool {
		if n.matchValue(unsafe.String(unsafe.SliceData(v), len(v)), true) {
			some = true
		} else {
			every = false
		}
		return every || !some
	})
	switch {
	case len(col.Values) == 0 || some && !every:
		return maybe
	case some:
		return yes
	}
	return no
}

// settle decides by the columns whether lines have the shape that p supposes.
func (p *place) settle(c *block.Columns, columns []block.Column) {
	if p.access.does(c, columns) {
		p.access = nil
	} else {
		*p = place{}
	}
}

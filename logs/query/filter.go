package query

import (
	"bytes"
	"slices"

	"perch/logs/block"
	"perch/logs/record"
)

// filter returns those of the lines that match the node. Lines are in
// ascending order; their memory is used for the answer.
func (a *asked) filter(n *node, rows []uint32) (_ []uint32, err error) {
	if len(rows) == 0 {
		return rows, nil
	}
	switch n.op {
	case opAll:
		return rows, nil
	case opAnd:
		for _, k := range n.kids {
			if rows, err = a.filter(k, rows); err != nil {
				return nil, err
			}
		}
		return rows, nil
	case opOr:
		var out []uint32
		rest := slices.Clone(rows)
		for _, k := range n.kids {
			some, err := a.filter(k, slices.Clone(rest))
			if err != nil {
				return nil, err
			}
			rest = without(rest, some)
			out = append(out, some...)
		}
		slices.Sort(out)
		return out, nil
	case opNot:
		some, err := a.filter(n.kids[0], slices.Clone(rows))
		return without(rows, some), err
	}
	if n.field == "level" {
		_, levels, err := a.parts.Times()
		if err != nil {
			return nil, err
		}
		return slices.DeleteFunc(rows, func(row uint32) bool { return !n.matchLevel(record.Level(levelIndex(levels[row]))) }), nil
	}
	if v, ok := a.stream.Label(n.field); ok {
		if !n.matchValue(v, v != "") {
			rows = rows[:0]
		}
		return rows, nil
	}
	return a.filterLeaf(n, rows)
}

// without takes lines out of others. Both ascend.
func without(rows, some []uint32) []uint32 {
	k := 0
	return slices.DeleteFunc(rows, func(row uint32) bool {
		for k < len(some) && some[k] < row {
			k++
		}
		return k < len(some) && some[k] == row
	})
}

// filterLeaf decides by templates, and looks at the lines of those that do not
// tell.
func (a *asked) filterLeaf(n *node, rows []uint32) ([]uint32, error) {
	l := &a.leaves[n.leaf]
	answers := a.judge(l)
	ids, err := a.parts.IDs()
	if err != nil {
		return nil, err
	}
	open := a.borrow(len(rows))
	defer func() { a.spare = append(a.spare, open) }()
	sure, k := rows[:0], 0
	for _, row := range rows {
		switch answers[ids[row]] {
		case yes:
			sure = append(sure, row)
		case maybe:
			open[k] = row
			k++
		}
	}
	if k == 0 {
		return sure, nil
	}
	found, err := a.resolve(l, open[:k])
	if err != nil || len(found) == 0 {
		return sure, err
	}
	both := len(sure) > 0
	if sure = append(sure, found...); both {
		slices.Sort(sure)
	}
	return sure, nil
}

// borrow returns memory for n lines. Who takes it puts it back into spare.
func (a *asked) borrow(n int) []uint32 {
	var room []uint32
	if last := len(a.spare) - 1; last >= 0 {
		room, a.spare = a.spare[last], a.spare[:last]
	}
	return sized(room, n)
}

// resolve looks at lines whose templates do not tell.
func (a *asked) resolve(l *leaf, rows []uint32) (_ []uint32, err error) {
	n := l.n
	if n.probe != "" {
		return a.holding(n, rows)
	}
	if n.op == opText || l.automaton() == nil && !l.sent { // what a sender gave is not in the line
		if rows, err = a.having(n.words, rows); len(rows) == 0 {
			return nil, err
		}
	}
	if n.field != "" && !l.sent {
		placed, open, err := a.compare(l, rows)
		if err != nil || len(open) == 0 {
			return placed, err
		}
		if open, err = a.read(l, open); err != nil {
			return nil, err
		}
		rows = append(placed, open...)
		slices.Sort(rows)
		return rows, nil
	}
	if l.automaton() == nil {
		return a.read(l, rows)
	}
	if err := a.walk.run(a, l, rows); err != nil {
		return nil, err
	}
	var unsure []uint32
	sure := rows[:0]
	for _, row := range rows {
		switch a.walk.marks[row] {
		case yes:
			sure = append(sure, row)
		case maybe:
			unsure = append(unsure, row)
		}
	}
	if unsure, err = a.read(l, unsure); len(unsure) > 0 {
		sure = append(sure, unsure...)
		slices.Sort(sure)
	}
	return sure, err
}

// having filters by words.
func (a *asked) having(words []*node, rows []uint32) (_ []uint32, err error) {
	for _, w := range words {
		if rows, err = a.filter(w, rows); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// read puts lines together and looks at their texts.
func (a *asked) read(l *leaf, rows []uint32) (_ []uint32, err error) {
	n := l.n
	if n.field != "" && !l.sent {
		rows, err = a.having(n.words, rows)
	}
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	if err := a.parts.Texts(rows, &a.texts); err != nil {
		return nil, err
	}
	sent, err := a.parts.Fields()
	if err != nil {
		return nil, err
	}
	out := rows[:0]
	a.line.over = a.over
	for k, row := range rows {
		if err := a.timely(len(a.texts.Body(k))); err != nil {
			return nil, err
		}
		a.line.reset(a.stream, record.Unknown, a.texts.Body(k), nil, sent.FieldsOf(int(row)))
		is := n.match(&a.line)
		if a.line.late != nil {
			return nil, a.line.late
		}
		if is {
			out = append(out, row)
		}
	}
	return out, nil
}

// holding returns those lines of which a variable is the word of n.
func (a *asked) holding(n *node, rows []uint32) ([]uint32, error) {
	values, err := a.parts.Variables()
	if err != nil || !bytes.Contains(values, stringBytes(n.probe)) {
		return nil, err
	}
	c, err := a.parts.Columns()
	if err != nil {
		return nil, err
	}
	ids, err := a.parts.IDs()
	if err != nil {
		return nil, err
	}
	w := &a.walk
	w.shapes = sized(w.shapes, a.t.Len())
	clear(w.shapes)
	for _, row := range rows {
		w.shapes[a.t.Shapes[ids[row]]]++
	}
	w.marks = sized(w.marks, len(ids))
	clear(w.marks)
	for shape, count := range w.shapes {
		if count == 0 {
			continue
		}
		lines := c.Rows(uint32(shape))
		for _, col := range a.t.Columns(int(ids[lines[0]])) {
			if n.form.fits([]block.Column{col}, false) {
				n.hold(c.Text(col), lines, w.marks)
			}
		}
	}
	return slices.DeleteFunc(rows, func(row uint32) bool { return w.marks[row] != yes }), nil
}

// hold marks the lines of which the value in a column is the word of n.
func (n *node) hold(text []byte, lines []uint32, marks []answer) {
	probe, newLine := stringBytes(n.probe), []byte{'\n'}
	place, at := 0, 0 // line that at is in
	for {
		k := bytes.Index(text[at:], probe)
		if k < 0 {
			return
		}
		place += bytes.Count(text[at:at+k], newLine)
		at += k
		start := bytes.LastIndexByte(text[:at], '\n') + 1
		end := at + bytes.IndexByte(text[at:], '\n')
		if place >= len(lines) || end < at { // damaged
			return
		}
		if n.isWord(text[start:end]) {
			marks[lines[place]] = yes
			for next := place + 1; next < len(lines) && end+1 < len(text) && text[end+1] == '\n'; next++ { // as before
				marks[lines[next]] = yes
				end++
			}
		}
		at += len(probe)
	}
}

// isWord tells whether a variable is the word of n.
func (n *node) isWord(v []byte) bool {
	if len(v) < len(n.text) || len(v) > len(n.text) && !n.prefix {
		return false
	}
	for i := range len(n.text) {
		c := v[i]
		if !n.exact && c-'A' < 26 {
			c |= 0x20
		}
		if c != n.text[i] {
			return false
		}
	}
	return true
}

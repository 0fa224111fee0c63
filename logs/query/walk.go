package query

import (
	"bytes"
	"slices"

	"perch/logs/block"
)

// plan says what a machine that has read a template up to a hole will answer.
type plan struct {
	hole uint32
	from state // before the hole
	is   answer
	next uint32 // unless decided: the value of this hole is needed,
	to   state  // which the machine meets in this state, whatever is between
}

// plans are those of one template.
type plans struct {
	few  []plan
	more map[planKey]*plan
}

type planKey struct {
	hole uint32
	from state
}

// fewPlans are looked through faster than a map.
const fewPlans = 12

func (p *plans) reset() {
	p.few = p.few[:0]
	clear(p.more)
}

func (p *plans) find(hole uint32, from state) *plan {
	for i := len(p.few) - 1; i >= 0; i-- { // the first is asked for at the begin only
		if x := &p.few[i]; x.from == from && x.hole == hole {
			return x
		}
	}
	if len(p.few) < fewPlans {
		return nil
	}
	return p.more[planKey{hole, from}]
}

func (p *plans) add(x plan) *plan {
	if len(p.few) < fewPlans {
		if p.few == nil {
			p.few = make([]plan, 0, fewPlans/2)
		}
		p.few = append(p.few, x)
		return &p.few[len(p.few)-1]
	}
	if p.more == nil {
		p.more = map[planKey]*plan{}
	}
	p.more[planKey{x.hole, x.from}] = &x
	return &x
}

// cuts are the places of the holes of templates, found when asked for.
type cuts struct {
	first []uint32 // of each template in at, and 1 more; 0 when not known
	at    []uint32
}

func (c *cuts) reset() { c.first, c.at = c.first[:0], c.at[:0] }

// of returns the places of a template's holes.
func (c *cuts) of(t *block.Templates, template uint32) []uint32 {
	if len(c.first) == 0 {
		c.first = sized(c.first, t.Len())
		clear(c.first)
	}
	if c.first[template] == 0 {
		c.first[template] = uint32(len(c.at)) + 1
		for i, b := range t.Of(int(template)) {
			if b == block.Hole {
				c.at = append(c.at, uint32(i))
			}
		}
	}
	k := c.first[template] - 1
	return c.at[k : k+t.Holes[template]]
}

// automaton is the machine of a text or expression, made when first asked for;
// nil when there is none.
func (l *leaf) automaton() *machine {
	if l.machine == nil && l.n.prog != nil {
		l.machine = newMachine(l.n.prog)
	}
	return l.machine
}

// look says what the machine will answer that stands before the text in front
// of a hole. It is valid until the next look.
func (a *asked) look(l *leaf, template, hole uint32, from state) *plan {
	p := &l.plans[template]
	if x := p.find(hole, from); x != nil {
		return x
	}
	return p.add(a.foresee(l.machine, template, hole, from))
}

// foresee follows the machine through all values that the columns may have.
func (a *asked) foresee(m *machine, template, hole uint32, from state) plan {
	x := plan{hole: hole, from: from, next: hole, to: from}
	columns := a.t.Columns(int(template))
	w := &a.walk
	all, at := a.t.Of(int(template)), w.cuts.of(a.t, template)
	begin := uint32(0)
	if hole > 0 {
		begin = at[hole-1] + 1
	}
	set, next := append(w.set[:0], from), w.next[:0]
	for k := hole; ; k++ {
		next = next[:0]
		text := all[begin:]
		if int(k) < len(at) {
			text, begin = all[begin:at[k]], at[k]+1
		}
		for _, s := range set {
			if s = m.run(s, text); s == m.stuck() {
				if len(set) == 1 { // else a value may keep away from it
					x.next, x.to = k, s
				}
				return x
			}
			if !slices.Contains(next, s) {
				next = append(next, s)
			}
		}
		set, next = next, set
		if len(set) == 1 {
			if set[0] <= m.failed() {
				x.is = known(set[0] == m.matched())
				return x
			}
			x.next, x.to = k, set[0]
		}
		if int(k) == len(at) {
			break
		}
		class := block.AnyWord
		if columns != nil {
			class = columns[k].Class
		}
		next = next[:0]
		for _, s := range set {
			if s <= m.failed() {
				if !slices.Contains(next, s) {
					next = append(next, s)
				}
				continue
			}
			to := m.word(s, class)
			if to == nil {
				return x
			}
			for _, s := range to {
				if !slices.Contains(next, s) {
					next = append(next, s)
				}
			}
		}
		if len(next) > maxReach {
			return x
		}
		set, next = next, set
	}
	w.set, w.next = set, next
	some, every := false, true
	for _, s := range set {
		if m.end(s) {
			some = true
		} else {
			every = false
		}
	}
	switch {
	case every:
		x.is = yes
	case !some:
		x.is = no
	}
	return x
}

// walk is the memory to walk with.
type walk struct {
	cuts      cuts
	set, next []state
	marks     []answer // of each line
	at        []uint32 // hole whose value is needed, and 1 more; 0 for lines that are decided
	from      []state
	shapes    []uint32 // lines to walk of each shape
	waiting   []uint32 // lines of a shape that need a hole's value
	cells     [][]cell // values of a shape's columns
	value     []byte   // of a field
}

// run lets the leaf's machine walk along lines of the block, by the columns it
// needs to know. w.marks of the lines say whether they match; maybe when the
// machine was stuck.
func (w *walk) run(a *asked, l *leaf, rows []uint32) error {
	c, err := a.parts.Columns()
	if err != nil {
		return err
	}
	ids, err := a.parts.IDs()
	if err != nil {
		return err
	}
	w.marks, w.at, w.from = sized(w.marks, len(ids)), sized(w.at, len(ids)), sized(w.from, len(ids))
	clear(w.at)
	w.shapes = sized(w.shapes, a.t.Len())
	clear(w.shapes)
	for _, row := range rows {
		template := ids[row]
		if few := l.plans[template].few; len(few) > 0 { // the first is that of the begin
			w.put(row, &few[0], l.machine)
		} else {
			w.put(row, a.look(l, template, 0, l.machine.begin), l.machine)
		}
		w.shapes[a.t.Shapes[template]]++
	}
	for shape, n := range w.shapes {
		if n > 0 && a.over() != nil {
			return a.over()
		}
		if n > 0 && !w.shape(a, l, &c, c.Rows(uint32(shape)), ids) {
			return block.ErrDamaged
		}
	}
	return nil
}

// put notes what is known of a line.
func (w *walk) put(row uint32, x *plan, m *machine) {
	w.marks[row], w.at[row] = x.is, 0
	if x.is == maybe && x.to != m.stuck() {
		w.at[row], w.from[row] = x.next+1, x.to
	}
}

// shape moves the lines of a shape on. It returns false when the block is
// damaged.
func (w *walk) shape(a *asked, l *leaf, c *block.Columns, rows, ids []uint32) bool {
	columns := a.t.Columns(int(ids[rows[0]]))
	w.waiting = sized(w.waiting, len(columns)+2)
	clear(w.waiting)
	for _, row := range rows {
		w.waiting[w.at[row]]++
	}
	for hole, col := range columns {
		if w.waiting[hole+1] > 0 && !w.column(a, l, rows, ids, uint32(hole), c.Text(col)) {
			return false
		}
	}
	return true
}

// column moves the lines on that need the values of a column.
func (w *walk) column(a *asked, l *leaf, rows, ids []uint32, hole uint32, text []byte) bool {
	m := l.machine
	var value []byte
	var from, to state // before and after the value
	fresh := true
	for _, row := range rows {
		n := bytes.IndexByte(text, '\n')
		if n < 0 {
			return false
		}
		if n > 0 {
			value, fresh = text[:n], true
		}
		text = text[n+1:]
		if w.at[row] != hole+1 {
			continue
		}
		w.waiting[hole+1]--
		if fresh || w.from[row] != from {
			fresh, from = false, w.from[row]
			to = m.run(from, value)
		}
		switch {
		case to > m.failed():
			w.put(row, a.look(l, ids[row], hole+1, to), m)
		case to == m.stuck():
			w.put(row, &plan{to: to}, m)
		default:
			w.put(row, &plan{is: known(to == m.matched())}, m)
		}
		if w.at[row] > 0 {
			w.waiting[w.at[row]]++
		}
		if w.waiting[hole+1] == 0 {
			break
		}
	}
	return true
}

package block

import (
	"bytes"
	"fmt"
)

// Parts are what a block with templates is made of, each read when it is first
// asked for. One goroutine uses them, for one block after the other; what they
// give is valid until the next Open and must not be changed.
type Parts struct {
	file *File
	meta *Meta

	read   [frameKinds]bool
	frames [frameKinds][]byte
	bytes  int64
	z      []byte // as they are in the file
	at     int64  // of z
	of     *bundle
	raw    []byte // what that unpacks to: others may be unpacked while this is read

	templates Templates
	lines     Lines // times, levels, IDs, fields
	layout    bool  // what follows is known
	order     []uint32
	starts    []uint32
	place     []uint32
	ends      []uint32

	mark   []uint32 // scratch of Texts
	wanted []uint32
	first  []uint32
	values []span
	open   []int
}

// Open turns to another block.
func (p *Parts) Open(f *File, m *Meta) {
	p.file, p.meta, p.layout = f, m, false
	p.read, p.bytes, p.z = [frameKinds]bool{}, 0, p.z[:0]
	p.lines.Fields, p.lines.FEnds = nil, nil
	if p.of != m.in {
		p.of, p.raw = m.in, nil
	}
}

// frame reads one frame. It tells whether that is the first time.
func (p *Parts) frame(kind int) (b []byte, fresh bool, err error) {
	if p.read[kind] {
		return p.frames[kind], false, nil
	}
	f := p.meta.frames[kind]
	start := p.meta.start(kind)
	end := start + int64(f.bytes)
	if p.of != nil {
		if p.raw == nil {
			if p.raw, err = p.file.unpack(p.of); err != nil {
				return nil, false, fmt.Errorf("read block of the bundle at %d: %w", p.of.offset, err)
			}
		}
		return p.unpacked(kind, p.raw[start:end])
	}
	if start < p.at || end > p.at+int64(len(p.z)) {
		to := end
		if kind == frameTemplates { // who asks for these needs the next mostly
			to += int64(p.meta.frames[frameIDs].bytes)
		}
		p.z, p.at = grow(p.z, int(to-start)), start
		if _, err := p.file.f.ReadAt(p.z, start); err != nil {
			p.z = p.z[:0]
			return nil, false, fmt.Errorf("read block at %d: %w", p.meta.offset, err)
		}
	}
	return p.unpacked(kind, p.z[start-p.at:end-p.at])
}

// unpacked keeps what a frame's bytes are read as.
func (p *Parts) unpacked(kind int, z []byte) (b []byte, fresh bool, err error) {
	b, err = p.file.codec.unframe(p.frames[kind], z, p.meta.frames[kind])
	if err != nil {
		return nil, false, p.damaged()
	}
	p.frames[kind], p.read[kind] = b, true
	p.bytes += int64(len(b))
	return b, true, nil
}

// Bytes is how much of the block was unpacked.
func (p *Parts) Bytes() int64 { return p.bytes }

func (p *Parts) damaged() error {
	return fmt.Errorf("read block at %d: %w", p.meta.offset, ErrDamaged)
}

// again forgets a frame whose content is wrong.
func (p *Parts) again(kind int) error {
	p.read[kind] = false
	return p.damaged()
}

// Templates returns the templates.
func (p *Parts) Templates() (*Templates, error) {
	b, fresh, err := p.frame(frameTemplates)
	if err == nil && fresh && p.templates.parse(b, p.meta.Lines, p.meta.form) != nil {
		err = p.again(frameTemplates)
	}
	return &p.templates, err
}

// Times returns time, ns, and level of each line.
func (p *Parts) Times() ([]int64, []byte, error) {
	b, fresh, err := p.frame(frameTimes)
	if err == nil && fresh && p.meta.parseTimes(b, &p.lines) != nil {
		err = p.again(frameTimes)
	}
	return p.lines.Times, p.lines.Levels, err
}

// IDs returns the template of each line.
func (p *Parts) IDs() ([]uint32, error) {
	t, err := p.Templates()
	if err != nil {
		return nil, err
	}
	b, fresh, err := p.frame(frameIDs)
	if err == nil && fresh {
		p.lines.IDs = grow(p.lines.IDs, p.meta.Lines)
		if parseIDs(b, p.lines.IDs, t.Len()) != nil {
			err = p.again(frameIDs)
		}
	}
	return p.lines.IDs, err
}

// Fields returns Lines that have their senders' fields only.
func (p *Parts) Fields() (*Lines, error) {
	if !p.meta.Sent() {
		return &p.lines, nil
	}
	b, fresh, err := p.frame(frameFields)
	if err == nil && fresh {
		p.ends = grow(p.ends, p.meta.Lines)
		if splitLines(b, p.ends) != nil {
			return nil, p.again(frameFields)
		}
		p.lines.Fields, p.lines.FEnds = b, p.ends
	}
	return &p.lines, err
}

// Columns are the variables of a block.
type Columns struct {
	t      *Templates
	text   []byte
	order  []uint32
	starts []uint32
	place  []uint32
}

// Rows returns the lines of a shape, in their order.
func (c *Columns) Rows(shape uint32) []uint32 { return c.order[c.starts[shape]:c.starts[shape+1]] }

// Place is the place of a line in the Rows of its shape.
func (c *Columns) Place(row uint32) uint32 { return c.place[row] }

// Text returns the values of a column, each followed by '\n', one for each of
// the shape's Rows. An empty value equals the one before it.
func (c *Columns) Text(col Column) []byte { return c.text[col.Start:col.End] }

// Variables returns the values of all columns, each followed by '\n'.
func (p *Parts) Variables() ([]byte, error) {
	b, _, err := p.frame(frameColumns)
	return b, err
}

// Columns returns the variables by shape.
func (p *Parts) Columns() (Columns, error) {
	ids, err := p.IDs()
	if err != nil {
		return Columns{}, err
	}
	b, _, err := p.frame(frameColumns)
	if err != nil {
		return Columns{}, err
	}
	if !p.layout {
		if !p.arrange(ids, b) {
			return Columns{}, p.again(frameColumns)
		}
		p.layout = true
	}
	return Columns{&p.templates, b, p.order, p.starts, p.place}, nil
}

// arrange finds the lines of each shape, and the columns of a block that does
// not tell where they are.
func (p *Parts) arrange(ids []uint32, columns []byte) bool {
	t := &p.templates
	p.starts = grow(p.starts, t.Len()+2)
	clear(p.starts)
	for _, id := range ids {
		p.starts[t.Shapes[id]+2]++
	}
	for i := 2; i < len(p.starts); i++ {
		p.starts[i] += p.starts[i-1]
	}
	p.order, p.place = grow(p.order, len(ids)), grow(p.place, len(ids))
	next := p.starts[1:] // becomes the start of the shape after
	for i, id := range ids {
		shape := t.Shapes[id]
		at := next[shape]
		next[shape]++
		p.order[at] = uint32(i)
		p.place[i] = at
	}
	for i, id := range ids {
		p.place[i] -= p.starts[t.Shapes[id]]
	}
	if t.first != nil {
		n := len(t.columns)
		return n == 0 && len(columns) == 0 || n > 0 && int(t.columns[n-1].End) == len(columns)
	}
	t.starts = grow(t.starts, t.Len())
	at := 0
	for shape := range t.Len() { // each template has its own
		t.starts[shape] = uint32(len(t.columns))
		for range t.Holes[shape] {
			c := Column{Start: uint32(at), Class: AnyWord}
			for range p.starts[shape+1] - p.starts[shape] {
				k := bytes.IndexByte(columns[at:], '\n')
				if k < 0 {
					return false
				}
				at += k + 1
			}
			c.End = uint32(at)
			t.columns = append(t.columns, c)
		}
	}
	t.first = t.starts
	return at == len(columns)
}

// Texts puts the texts of some lines, in ascending order, into l.
func (p *Parts) Texts(rows []uint32, l *Lines) error {
	c, err := p.Columns()
	if err != nil {
		return err
	}
	if !p.find(rows, &c) {
		return p.damaged()
	}
	t, ids := c.t, p.lines.IDs
	l.Ends = grow(l.Ends, len(rows))
	dst := l.Text[:0]
	for k, row := range rows {
		text := t.Of(int(ids[row]))
		for _, v := range p.values[p.first[k]:p.first[k+1]] {
			i := bytes.IndexByte(text, Hole)
			dst = append(dst, text[:i]...)
			text = text[i+1:]
			dst = append(dst, c.text[v.start:v.end]...)
		}
		dst = append(dst, text...)
		if len(dst) >= MaxBytes {
			return p.damaged()
		}
		l.Ends[k] = uint32(len(dst))
		dst = append(dst, '\n')
	}
	l.Text = dst
	return nil
}

// find finds the values of lines: those of rows[k] are values[first[k]:first[k+1]].
func (p *Parts) find(rows []uint32, c *Columns) bool {
	t, ids := c.t, p.lines.IDs
	p.first = append(p.first[:0], 0)
	p.mark = grow(p.mark, len(ids))
	clear(p.mark)
	total := uint32(0)
	for k, row := range rows {
		total += t.Holes[ids[row]]
		p.first = append(p.first, total)
		p.mark[row] = uint32(k) + 1
	}
	p.values = grow(p.values, int(total))
	for shape := range uint32(t.Len()) {
		n := len(c.Rows(shape))
		p.wanted = p.wanted[:0]
		for _, row := range c.Rows(shape) {
			if k := p.mark[row]; k > 0 {
				p.wanted = append(p.wanted, k-1)
			}
		}
		if len(p.wanted) == 0 {
			continue
		}
		late := int(c.place[rows[p.wanted[0]]]) > n/2
		for hole, col := range t.Columns(int(ids[c.Rows(shape)[0]])) {
			found := false
			if late {
				found = p.findBack(rows, c, col, hole, n)
			} else {
				found = p.findOn(rows, c, col, hole)
			}
			if !found {
				return false
			}
		}
	}
	return true
}

// findOn finds the values of the wanted rows in a column from its begin.
func (p *Parts) findOn(rows []uint32, c *Columns, col Column, hole int) bool {
	at, next := col.Start, uint32(0)
	var v span
	for _, k := range p.wanted {
		for place := c.place[rows[k]]; next <= place; next++ {
			n := bytes.IndexByte(c.text[at:col.End], '\n')
			if n < 0 {
				return false
			}
			if n > 0 {
				v = span{at, at + uint32(n)}
			}
			at += uint32(n) + 1
		}
		p.values[p.first[k]+uint32(hole)] = v
	}
	return true
}

// findBack does so from the end of a column of n values.
func (p *Parts) findBack(rows []uint32, c *Columns, col Column, hole, n int) bool {
	at := col.End // after the '\n' of the value
	p.open = p.open[:0]
	left := len(p.wanted)
	for place := n - 1; left > 0 || len(p.open) > 0; place-- {
		if place < 0 || at == col.Start || c.text[at-1] != '\n' {
			return false
		}
		end := at - 1
		for at = end; at > col.Start && c.text[at-1] != '\n'; {
			at--
		}
		if left > 0 && int(c.place[rows[p.wanted[left-1]]]) == place {
			left--
			p.open = append(p.open, int(p.wanted[left]))
		}
		if at == end && at != col.Start { // as before
			continue
		}
		for _, k := range p.open {
			p.values[p.first[k]+uint32(hole)] = span{at, end}
		}
		p.open = p.open[:0]
	}
	return true
}

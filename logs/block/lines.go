package block

import (
	"perch/logs/record"
)

// Lines are columns of lines of one stream in the order they arrived. Columns
// only grow, so a copy of the struct is a snapshot that stays valid while its
// owner goes on adding.
type Lines struct {
	Times  []int64 // ns
	Levels []byte
	Text   []byte   // bodies, each followed by '\n'
	Ends   []uint32 // of each body in Text, before its '\n'
	Fields []byte   // sender's fields as JSON objects, each followed by '\n'
	FEnds  []uint32 // of each object in Fields; empty while no line has fields
	IDs    []uint32 // template of each line; empty unless read from a block with templates
}

// Len is the number of lines.
func (l *Lines) Len() int { return len(l.Times) }

// Bytes is the memory the lines take, with what is there for more.
func (l *Lines) Bytes() int {
	return cap(l.Text) + cap(l.Fields) + 8*cap(l.Times) + cap(l.Levels) + 4*(cap(l.Ends)+cap(l.FEnds)+cap(l.IDs))
}

// Add puts a record at the end. Body and fields are copied.
func (l *Lines) Add(r *record.Record) {
	l.Times = append(l.Times, r.Time)
	l.Levels = append(l.Levels, byte(r.Level))
	l.Text = append(l.Text, r.Body...)
	l.Ends = append(l.Ends, uint32(len(l.Text)))
	l.Text = append(l.Text, '\n')
	if len(r.Fields) == 0 && len(l.FEnds) == 0 {
		return
	}
	l.noFields(len(l.Times) - 1)
	l.Fields = AppendFields(l.Fields, r.Fields)
	l.FEnds = append(l.FEnds, uint32(len(l.Fields)))
	l.Fields = append(l.Fields, '\n')
}

// Grow makes room for so many lines, bytes of text and of fields. It is called on
// empty Lines.
func (l *Lines) Grow(lines, text, fields int) {
	if fields > 0 {
		l.Fields = make([]byte, 0, fields)
		l.FEnds = make([]uint32, 0, lines)
	}
	l.Times = make([]int64, 0, lines)
	l.Levels = make([]byte, 0, lines)
	l.Ends = make([]uint32, 0, lines)
	l.Text = make([]byte, 0, text)
}

// Body returns the bytes of line i.
func (l *Lines) Body(i int) []byte {
	start := uint32(0)
	if i > 0 {
		start = l.Ends[i-1] + 1
	}
	return l.Text[start:l.Ends[i]:l.Ends[i]]
}

// FieldsOf returns the JSON object of line i, empty when it has none.
func (l *Lines) FieldsOf(i int) []byte {
	if len(l.FEnds) == 0 {
		return nil
	}
	start := uint32(0)
	if i > 0 {
		start = l.FEnds[i-1] + 1
	}
	return l.Fields[start:l.FEnds[i]:l.FEnds[i]]
}

// otherFields appends the objects that differ from that of the line before, each
// followed by '\n'. Senders give many lines the same.
func (l *Lines) otherFields(dst []byte) []byte {
	var before []byte
	for i := range l.FEnds {
		if f := l.FieldsOf(i); string(f) != string(before) {
			dst = append(append(dst, f...), '\n')
			before = f
		}
	}
	return dst
}

// AppendFields writes fields as one flat JSON object of strings, or nothing
// when there are none.
func AppendFields(dst []byte, fields []record.Field) []byte {
	if len(fields) == 0 {
		return dst
	}
	dst = append(dst, '{')
	for i, f := range fields {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendJSONString(dst, f.Key)
		dst = append(dst, ':')
		dst = appendJSONString(dst, f.Value)
	}
	return append(dst, '}')
}

const hexDigits = "0123456789abcdef"

// appendJSONString escapes only what JSON demands, so that words stay whole.
func appendJSONString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

// Append puts the lines of o at the end.
func (l *Lines) Append(o *Lines) {
	n, text := len(l.Times), uint32(len(l.Text))
	l.Times = append(l.Times, o.Times...)
	l.Levels = append(l.Levels, o.Levels...)
	l.Text = append(l.Text, o.Text...)
	for _, e := range o.Ends {
		l.Ends = append(l.Ends, text+e)
	}
	if len(l.FEnds) == 0 && len(o.FEnds) == 0 {
		return
	}
	l.noFields(n)
	fields := uint32(len(l.Fields))
	l.Fields = append(l.Fields, o.Fields...)
	for _, e := range o.FEnds {
		l.FEnds = append(l.FEnds, fields+e)
	}
	l.noFields(len(l.Times))
}

// noFields says of the lines up to n that they have no fields, unless said
// already.
func (l *Lines) noFields(n int) {
	for len(l.FEnds) < n {
		l.FEnds = append(l.FEnds, uint32(len(l.Fields)))
		l.Fields = append(l.Fields, '\n')
	}
}

// Reset empties the lines and keeps their memory.
func (l *Lines) Reset() {
	*l = Lines{Times: l.Times[:0], Levels: l.Levels[:0], Text: l.Text[:0], Ends: l.Ends[:0], Fields: l.Fields[:0], FEnds: l.FEnds[:0], IDs: l.IDs[:0]}
}

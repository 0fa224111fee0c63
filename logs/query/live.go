package query

import (
	"perch/logs/block"
	"perch/logs/record"
)

// Live is a record that is asked about before it is stored, by many queries: it
// is folded and taken apart at most once. Use one in each goroutine.
type Live struct {
	c    candidate
	sent []byte
}

// Look turns to another record, which must stay as it is until the next one. Its
// level is filled in, as storing would.
func (l *Live) Look(r *record.Record) {
	if r.Level == record.Unknown {
		r.Level = record.Detect(r.Body)
	}
	l.sent = block.AppendFields(l.sent[:0], r.Fields)
	l.c.reset(r.Stream, r.Level, r.Body, nil, l.sent)
}

// Field is the value of a label, the level or a field, if the record has it.
func (l *Live) Field(name string) (string, bool) { return l.c.value(name) }

// Finds answers whether the query finds the record.
func (q *Query) Finds(l *Live) bool { return q.root.match(&l.c) }

// MayFind is false if the query finds no line of a stream.
func (q *Query) MayFind(s *record.Stream) bool { return q.root.ask(s) != no }

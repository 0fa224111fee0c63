package query

import (
	"context"
	"sync"
	"time"

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

// Finds answers whether the query finds the record. It is not known when an
// expression would take longer than the allowance has left.
func (q *Query) Finds(l *Live, a *Allowance) (is, known bool) { return l.c.matchWithin(q.root, a) }

// MayFind is false if the query finds no line of a stream.
func (q *Query) MayFind(s *record.Stream) bool { return q.root.ask(s) != no }

// Allowance is the time that the expressions of a query may take on long lines, of
// lines that nobody waits for: one part in allowancePart of a core, saved up to
// allowanceMost. The zero value is full.
type Allowance struct {
	mu   sync.Mutex // guards what follows
	debt time.Duration
	at   time.Time // of debt
}

const (
	allowanceMost = time.Second
	allowancePart = 10
)

// left is what may be taken now.
func (a *Allowance) left(now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.debt, a.at = max(0, a.debt-now.Sub(a.at)/allowancePart), now
	return allowanceMost - a.debt
}

func (a *Allowance) take(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.debt += d
}

// longSearches are those of one line.
type longSearches struct {
	allowance  *Allowance
	began, end time.Time // zero: there was none
}

// matchWithin is match as long as the allowance lasts.
func (c *candidate) matchWithin(n *node, a *Allowance) (is, known bool) {
	if c.over == nil {
		c.over, c.long = c.within, liveSearch
	}
	c.late, c.searches = nil, longSearches{allowance: a}
	is = n.match(c)
	if !c.searches.began.IsZero() {
		a.take(time.Since(c.searches.began))
	}
	return is, c.late == nil
}

func (c *candidate) within() error {
	s, now := &c.searches, time.Now()
	if s.began.IsZero() {
		s.began, s.end = now, now.Add(s.allowance.left(now))
	}
	if !now.Before(s.end) {
		return context.DeadlineExceeded
	}
	return nil
}

package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"perch/logs/query"
)

// Parts are what a Fan asks. None of the functions may block for long: Copies
// may ask nodes when it is told that its list must be new.
type Parts struct {
	Self  string // name of this machine
	Local query.Searcher
	// Peers are the other nodes; those known to be away too, so that they are
	// named as missing.
	Peers func() []Peer
	// Copies lists the copies of nodes' stores, wherever they are; nil: there are
	// none.
	Copies func(ctx context.Context, now bool) []Copy
}

// Fan asks many nodes. Make it with New.
type Fan struct {
	parts Parts
	log   *slog.Logger

	mu   sync.Mutex      // guards what follows
	away map[string]bool // answered by copies; asked again when a look finds them
	look map[string]bool // under way
}

// New makes a searcher over all nodes.
func New(parts Parts, log *slog.Logger) *Fan {
	if parts.Copies == nil {
		parts.Copies = func(context.Context, bool) []Copy { return nil }
	}
	return &Fan{parts: parts, log: log, away: map[string]bool{}, look: map[string]bool{}}
}

// member is one node of a request.
type member struct {
	name string // empty: this machine
	peer Peer
	s    query.Searcher
}

func (f *Fan) members() []member {
	out := []member{{s: f.parts.Local}}
	for _, p := range f.parts.Peers() {
		out = append(out, member{p.Node, p, NewRemote(p)})
	}
	return out
}

// patience is how much longer than a query's own limit a peer may take.
const patience = 2 * time.Second

// answer is what one member, or its copies, said.
type answer[T any] struct {
	all []T
	sum query.Summary // what is to be said of it besides
	at  time.Time     // of a copy
	err error
}

// ask runs one question on all members at the same time. An error of this
// machine is the error of the whole; a peer that does not answer is asked by its
// copy, and is missing when there is none. sum is what all this adds to the
// answer's summary.
func ask[T any](ctx context.Context, f *Fan, r *query.Request, one func(context.Context, query.Searcher) (T, error)) (first T, rest []T, sum query.Summary, err error) {
	limited, cancel := context.WithTimeout(ctx, r.Timeout+patience)
	defer cancel()
	members := f.members()
	answers := make([]answer[T], len(members))
	var all sync.WaitGroup
	all.Go(func() {
		got, err := one(limited, members[0].s)
		answers[0] = answer[T]{all: []T{got}, err: err}
	})
	for i, m := range members[1:] {
		all.Go(func() { answers[i+1] = askPeer(ctx, f, r, m, one) })
	}
	former := decideFormer(f.parts.Copies(ctx, false), f.parts.Self, members[1:])
	extra := make([]answer[T], len(former))
	for i, of := range former {
		all.Go(func() { extra[i] = askFormer(ctx, f, r, of, one) })
	}
	all.Wait()
	if answers[0].err != nil {
		return first, nil, sum, answers[0].err
	}
	for _, a := range append(answers[1:], extra...) {
		rest = append(rest, a.all...)
		sum.Merge(a.sum)
	}
	return answers[0].all[0], rest, sum, nil
}

// askPeer asks a peer, or else its copies.
func askPeer[T any](ctx context.Context, f *Fan, r *query.Request, m member, one func(context.Context, query.Searcher) (T, error)) answer[T] {
	away := f.isAway(m.peer)
	current := f.copiesOf(ctx, m.name, false)
	if !away || len(current) == 0 {
		got, err := direct(ctx, r, m, one)
		if err == nil {
			return answer[T]{all: []T{got}}
		}
		if ctx.Err() != nil {
			return missing[T](m.name)
		}
		f.log.Warn("node did not answer a log query", "node", m.name, "err", err)
		f.setAway(m.name, true)
		current = f.copiesOf(ctx, m.name, true)
	}
	if len(current) == 0 {
		return missing[T](m.name)
	}
	out := askCopies(ctx, f, r, current, one)
	if out.err != nil {
		f.setAway(m.name, false) // asked itself by the next query: nobody else answers
	}
	// Since then it may have written more.
	if out.err == nil && r.Around == nil && out.at.Before(time.Unix(0, r.To)) {
		out.sum.Merge(query.Summary{Partial: true, Reason: fmt.Sprintf("node %s does not answer, its copy ends at %s", m.name, out.at.UTC().Format(time.RFC3339))})
	}
	return out
}

// copiesOf are the copies of a node's present store, best first.
func (f *Fan) copiesOf(ctx context.Context, node string, now bool) []Copy {
	current, _ := decideCurrent(slices.DeleteFunc(slices.Clone(f.parts.Copies(ctx, now)), func(c Copy) bool { return c.Node != node }))
	return current
}

func missing[T any](node string) answer[T] {
	return answer[T]{sum: query.Summary{Partial: true, Reason: "not all nodes answered", Missing: []string{node}}}
}

// askCopies asks one of the copies of a store, the best first.
func askCopies[T any](ctx context.Context, f *Fan, r *query.Request, of []Copy, one func(context.Context, query.Searcher) (T, error)) (out answer[T]) {
	for _, c := range of {
		got, err := direct(ctx, r, member{c.By, c.Peer, NewRemote(c.Peer)}, one)
		if err != nil {
			out.err = err
			f.log.Warn("copy did not answer a log query", "node", c.Node, "by", c.By, "err", err)
			continue
		}
		said := query.Copied{Node: c.Node, By: c.By, At: c.At, From: c.From, Age: time.Since(c.At).Milliseconds()}
		out = answer[T]{all: []T{got}, at: c.At, sum: query.Summary{Copies: []query.Copied{said}}}
		if !c.From.IsZero() && r.Around == nil && r.From < c.From.UnixNano() {
			out.sum.Partial, out.sum.Reason = true, fmt.Sprintf("the copy of node %s begins at %s", c.Node, c.From.UTC().Format(time.RFC3339))
		}
		return out
	}
	out.sum = missing[T](of[0].Node).sum
	return out
}

// askFormer asks the copies of a store that is no more. What found nothing there
// need not be told of it.
func askFormer[T any](ctx context.Context, f *Fan, r *query.Request, of []Copy, one func(context.Context, query.Searcher) (T, error)) answer[T] {
	out := askCopies(ctx, f, r, of, one)
	if out.err == nil && !found(out.all[0]) {
		out.sum.Copies = nil
	}
	return out
}

// found tells whether an answer has lines.
func found(answer any) bool {
	switch a := answer.(type) {
	case part:
		return len(a.lines) > 0
	case query.Histogram:
		return a.Total > 0
	case query.Values:
		return len(a.Values) > 0
	case query.Patterns:
		return a.Total > 0
	case query.FieldStats:
		return len(a.Groups) > 0
	}
	panic(fmt.Sprintf("BUG: answer of type %T", answer))
}

// part is a node's answer to Query.
type part struct {
	lines []*query.Line
	sum   query.Summary
	bytes int
	cut   bool // it has more lines, for which there was no room
}

// allParts is how many bytes of lines all parts of an answer may have while they are
// merged.
const allParts = 2 * query.MaxAnswer

// add keeps the next line of a part, or says that it ends here: of many nodes none may
// take the room of the others.
func (p *part) add(l *query.Line, room int) {
	if p.bytes += l.Bytes(); p.cut || p.bytes > room && len(p.lines) > 0 {
		p.cut = true
		return
	}
	p.lines = append(p.lines, l)
}

// goesOn tells whether its node has more lines.
func (p *part) goesOn() bool { return p.cut || p.sum.Cursor != "" }

// Query merges the lines of all nodes.
func (f *Fan) Query(ctx context.Context, r query.Request, emit func(*query.Line) error) (query.Summary, error) {
	r, err := r.Normal()
	if err != nil {
		return query.Summary{}, err
	}
	room := allParts / (1 + len(f.parts.Peers()))
	if r.Around != nil { // it has no next page
		room = query.MaxAnswer
	}
	var ends []query.Cursor // where parts stop that have more
	own, rest, more, err := ask(ctx, f, &r, func(ctx context.Context, s query.Searcher) (p part, err error) {
		p.sum, err = s.Query(ctx, r, func(l *query.Line) error { p.add(l, room); return nil })
		return p, err
	})
	if err != nil {
		return query.Summary{}, err
	}
	sum, goesOn := own.sum, own.goesOn()
	lists := [][]*query.Line{own.lines}
	for _, p := range append(rest, own) {
		if n := len(p.lines); n > 0 && p.goesOn() {
			ends = append(ends, p.lines[n-1].Cursor)
		}
	}
	for _, p := range rest {
		sum.Merge(p.sum)
		goesOn = goesOn || p.goesOn()
		lists = append(lists, p.lines)
	}
	sum.Merge(more)
	order := r.Order
	limit := r.Limit
	if r.Around != nil {
		order, limit = query.OldestFirst, query.MaxLimit
	}
	lines := merge(lists, order)
	if n := upto(lines, ends, r, limit); n < len(lines) {
		lines, goesOn = lines[:n], true
	}
	for _, l := range lines {
		if err := emit(l); err != nil {
			return query.Summary{}, err
		}
	}
	sum.Cursor = ""
	if goesOn && len(lines) > 0 && r.Around == nil {
		sum.Cursor = lines[len(lines)-1].Cursor.String()
	}
	return sum, nil
}

// upto is how many of merged lines are the answer: up to its limits, and not beyond
// where a part stops that has more.
func upto(lines []*query.Line, ends []query.Cursor, r query.Request, limit int) int {
	bytes := 0
	for i, l := range lines {
		bytes += l.Bytes()
		past := slices.ContainsFunc(ends, func(end query.Cursor) bool { return r.Order.Before(end, l.Cursor) })
		if i == limit || r.Around == nil && (past || i > 0 && bytes > query.MaxAnswer) {
			return i
		}
	}
	return len(lines)
}

// merge joins sorted lists; a line that several hold comes once.
func merge(lists [][]*query.Line, order query.Order) []*query.Line {
	var out []*query.Line
	for _, l := range lists {
		out = append(out, l...)
	}
	slices.SortStableFunc(out, func(a, b *query.Line) int {
		switch {
		case order.Before(a.Cursor, b.Cursor):
			return -1
		case order.Before(b.Cursor, a.Cursor):
			return 1
		}
		return 0
	})
	return slices.CompactFunc(out, func(a, b *query.Line) bool { return a.Cursor == b.Cursor })
}

// Histogram adds up the histograms of all nodes.
func (f *Fan) Histogram(ctx context.Context, r query.Request) (query.Histogram, error) {
	r, err := r.Normal()
	if err != nil {
		return query.Histogram{}, err
	}
	part := r
	part.Raw = true
	h, rest, more, err := ask(ctx, f, &r, func(ctx context.Context, s query.Searcher) (query.Histogram, error) { return s.Histogram(ctx, part) })
	if err != nil {
		return query.Histogram{}, err
	}
	for _, o := range rest {
		h.Merge(o)
	}
	h.Fold()
	h.Summary.Merge(more)
	return h, nil
}

// wider is how many of the most frequent things each node is asked for, when so many
// are wanted: what is rare at one may be frequent elsewhere.
func wider(limit int) int { return min(10*limit, query.MaxLimit) }

// Values adds up the values of all nodes.
func (f *Fan) Values(ctx context.Context, r query.Request) (query.Values, error) {
	r, err := r.Normal()
	if err != nil {
		return query.Values{}, err
	}
	part := r
	part.Limit = wider(r.Limit)
	v, rest, more, err := ask(ctx, f, &r, func(ctx context.Context, s query.Searcher) (query.Values, error) { return s.Values(ctx, part) })
	if err != nil {
		return query.Values{}, err
	}
	for _, o := range rest {
		v.Merge(o, part.Limit)
	}
	v.Merge(query.Values{}, r.Limit)
	v.Summary.Merge(more)
	return v, nil
}

// Patterns adds up the patterns of all nodes.
func (f *Fan) Patterns(ctx context.Context, r query.Request) (query.Patterns, error) {
	r, err := r.Normal()
	if err != nil {
		return query.Patterns{}, err
	}
	part := r
	part.Raw, part.Limit = true, wider(r.Limit)
	p, rest, more, err := ask(ctx, f, &r, func(ctx context.Context, s query.Searcher) (query.Patterns, error) { return s.Patterns(ctx, part) })
	if err != nil {
		return query.Patterns{}, err
	}
	for _, o := range rest {
		p.Merge(o, part.Limit)
	}
	p.Merge(query.Patterns{}, r.Limit)
	p.Summary.Merge(more)
	return p, nil
}

// Stats adds up the figures of all nodes.
func (f *Fan) Stats(ctx context.Context, r query.Request) (query.FieldStats, error) {
	r, err := r.Normal()
	if err != nil {
		return query.FieldStats{}, err
	}
	part := r
	part.Raw = true
	s, rest, more, err := ask(ctx, f, &r, func(ctx context.Context, s query.Searcher) (query.FieldStats, error) { return s.Stats(ctx, part) })
	if err != nil {
		return query.FieldStats{}, err
	}
	for _, o := range rest {
		s.Merge(o)
	}
	s.Finish(r)
	s.Summary.Merge(more)
	return s, nil
}

const (
	// refresh is how often a tail looks for nodes that came or came back.
	refresh = 2 * time.Second
	// late is how much the times of lines may be behind the clock here.
	late = time.Second
)

// Tail follows all nodes. Nodes that are away are named when that changes and
// followed again when they are back, from a moment before the last line seen of them,
// or else from the begin of the tail.
func (f *Fan) Tail(ctx context.Context, r query.Request, emit func(query.TailEvent) error) error {
	r, err := r.Normal()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := &tail{f: f, r: r, emit: emit, began: time.Now().Add(-late).UnixNano(), begins: map[string]bool{self: true}, following: map[string]bool{}, heard: map[string]*heard{}, away: map[string]bool{}, hidden: map[string]bool{}, failed: make(chan error, 1)}
	defer t.all.Wait()
	defer cancel()
	t.follow(ctx)
	t.all.Go(func() {
		err := f.parts.Local.Tail(ctx, r, func(e query.TailEvent) error {
			if e.Live {
				return t.begun(self)
			}
			return t.pass(e)
		})
		if ctx.Err() == nil {
			t.fail(errors.Join(err, errors.New("tail of this node ended")))
		}
	})
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-t.failed:
			return err
		case <-tick.C:
			t.follow(ctx)
		}
	}
}

// self is this machine beside the names of peers.
const self = ""

// tail is one Tail under way.
type tail struct {
	f      *Fan
	r      query.Request
	all    sync.WaitGroup
	failed chan error
	began  int64 // ns

	mu        sync.Mutex // guards what follows, and calls of emit
	emit      func(query.TailEvent) error
	begins    map[string]bool // members from the begin that have not told yet what they have from before
	round     int             // of looking for peers
	following map[string]bool
	heard     map[string]*heard
	away      map[string]bool
	hidden    map[string]bool // namespaces that were told to be
}

func (t *tail) fail(err error) {
	select {
	case t.failed <- err:
	default: // the first one counts
	}
}

func (t *tail) pass(e query.TailEvent) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(e.Hidden) > 0 { // other nodes have lines of the same namespaces
		e.Hidden = slices.DeleteFunc(e.Hidden, func(n string) bool { return t.hidden[n] })
		for _, n := range e.Hidden {
			t.hidden[n] = true
		}
	}
	err := t.emit(e)
	if err != nil {
		t.fail(err)
	}
	return err
}

// begun notes that a member has told what it has from before, or does not. When all
// have, the tail is live.
func (t *tail) begun(node string) error {
	t.mu.Lock()
	last := t.begins[node] && len(t.begins) == 1
	delete(t.begins, node)
	t.mu.Unlock()
	if !last {
		return nil
	}
	return t.pass(query.TailEvent{Live: true})
}

// follow starts to follow peers that are not followed. Those that were not there in the
// first round have lines since the tail began.
func (t *tail) follow(ctx context.Context) {
	peers := t.f.parts.Peers()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.round++
	for _, p := range peers {
		if t.following[p.Node] {
			continue
		}
		if t.round == 1 {
			t.begins[p.Node] = true
		}
		t.following[p.Node] = true
		r := t.r
		shown := map[query.Cursor]bool{}
		if h := t.heard[p.Node]; h != nil {
			r.Cursor, shown = h.goOn()
		} else if t.round > 1 && r.Cursor == nil {
			r.Cursor = &query.Cursor{Time: t.began}
		}
		t.all.Go(func() {
			err := NewRemote(p).Tail(ctx, r, func(e query.TailEvent) error {
				again := e.Line != nil && shown[e.Line.Cursor]
				t.mu.Lock()
				if e.Line != nil && !again {
					t.hear(p.Node, e.Line.Cursor)
				}
				delete(t.away, p.Node)
				t.mu.Unlock()
				switch {
				case again:
					return nil
				case e.Live:
					return t.begun(p.Node)
				}
				return t.pass(e)
			})
			if ctx.Err() == nil {
				t.lost(p.Node, err)
			}
		})
	}
}

func (t *tail) lost(node string, err error) {
	t.mu.Lock()
	t.following[node] = false
	known := t.away[node]
	t.away[node] = true
	t.mu.Unlock()
	if !known {
		t.f.log.Warn("node is not followed", "node", node, "err", err)
		_ = t.pass(query.TailEvent{Missing: []string{node}}) // pass told the failure
	}
	_ = t.begun(node)
}

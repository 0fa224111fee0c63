package cluster

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"perch/logs/query"
)

// Fan asks many nodes. Make it with New.
type Fan struct {
	local query.Searcher
	peers func() []Peer
	log   *slog.Logger
}

// New makes a searcher over local and the peers that peers lists at the time of
// each request (without this machine; nodes that are known to be away included,
// so that they are named as missing). peers must not block.
func New(local query.Searcher, peers func() []Peer, log *slog.Logger) *Fan {
	return &Fan{local: local, peers: peers, log: log}
}

// member is one node of a request.
type member struct {
	name string // empty: this machine
	s    query.Searcher
}

func (f *Fan) members() []member {
	out := []member{{s: f.local}}
	for _, p := range f.peers() {
		out = append(out, member{p.Node, NewRemote(p)})
	}
	return out
}

// patience is how much longer than a query's own limit a peer may take.
const patience = 2 * time.Second

// ask runs one question on all members at the same time. An error of this
// machine is the error of the whole; that of a peer makes it missing.
func ask[T any](ctx context.Context, f *Fan, r *query.Request, one func(context.Context, query.Searcher) (T, error)) (first T, rest []T, missing []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout+patience)
	defer cancel()
	members := f.members()
	answers := make([]T, len(members))
	errs := make([]error, len(members))
	var all sync.WaitGroup
	for i, m := range members {
		all.Go(func() { answers[i], errs[i] = one(ctx, m.s) })
	}
	all.Wait()
	if errs[0] != nil {
		return first, nil, nil, errs[0]
	}
	for i := 1; i < len(members); i++ {
		if errs[i] != nil {
			missing = append(missing, members[i].name)
			f.log.Warn("node did not answer a log query", "node", members[i].name, "err", errs[i])
			continue
		}
		rest = append(rest, answers[i])
	}
	return answers[0], rest, missing, nil
}

func miss(s *query.Summary, missing []string) {
	if len(missing) > 0 {
		s.Merge(query.Summary{Partial: true, Reason: "not all nodes answered", Missing: missing})
	}
}

// part is a node's answer to Query.
type part struct {
	lines []*query.Line
	sum   query.Summary
}

// Query merges the lines of all nodes.
func (f *Fan) Query(ctx context.Context, r query.Request, emit func(*query.Line) error) (query.Summary, error) {
	r, err := r.Normal()
	if err != nil {
		return query.Summary{}, err
	}
	own, rest, missing, err := ask(ctx, f, &r, func(ctx context.Context, s query.Searcher) (p part, err error) {
		p.sum, err = s.Query(ctx, r, func(l *query.Line) error { p.lines = append(p.lines, l); return nil })
		return p, err
	})
	if err != nil {
		return query.Summary{}, err
	}
	sum, more := own.sum, own.sum.Cursor != ""
	lists := [][]*query.Line{own.lines}
	for _, p := range rest {
		sum.Merge(p.sum)
		more = more || p.sum.Cursor != ""
		lists = append(lists, p.lines)
	}
	miss(&sum, missing)
	order := r.Order
	limit := r.Limit
	if r.Around != nil {
		order, limit = query.OldestFirst, query.MaxLimit
	}
	lines := merge(lists, order)
	if len(lines) > limit {
		lines, more = lines[:limit], true
	}
	for _, l := range lines {
		if err := emit(l); err != nil {
			return query.Summary{}, err
		}
	}
	sum.Cursor = ""
	if more && len(lines) > 0 && r.Around == nil {
		sum.Cursor = lines[len(lines)-1].Cursor.String()
	}
	return sum, nil
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
	h, rest, missing, err := ask(ctx, f, &r, func(ctx context.Context, s query.Searcher) (query.Histogram, error) { return s.Histogram(ctx, part) })
	if err != nil {
		return query.Histogram{}, err
	}
	for _, o := range rest {
		h.Merge(o)
	}
	h.Fold()
	miss(&h.Summary, missing)
	return h, nil
}

// Values adds up the values of all nodes.
func (f *Fan) Values(ctx context.Context, r query.Request) (query.Values, error) {
	r, err := r.Normal()
	if err != nil {
		return query.Values{}, err
	}
	v, rest, missing, err := ask(ctx, f, &r, func(ctx context.Context, s query.Searcher) (query.Values, error) { return s.Values(ctx, r) })
	if err != nil {
		return query.Values{}, err
	}
	for _, o := range rest {
		v.Merge(o, r.Limit)
	}
	miss(&v.Summary, missing)
	return v, nil
}

// Patterns adds up the patterns of all nodes.
func (f *Fan) Patterns(ctx context.Context, r query.Request) (query.Patterns, error) {
	r, err := r.Normal()
	if err != nil {
		return query.Patterns{}, err
	}
	part := r
	part.Raw, part.Limit = true, min(10*r.Limit, query.MaxLimit) // what is rare here may be frequent elsewhere
	p, rest, missing, err := ask(ctx, f, &r, func(ctx context.Context, s query.Searcher) (query.Patterns, error) { return s.Patterns(ctx, part) })
	if err != nil {
		return query.Patterns{}, err
	}
	for _, o := range rest {
		p.Merge(o, part.Limit)
	}
	p.Merge(query.Patterns{}, r.Limit)
	miss(&p.Summary, missing)
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
	s, rest, missing, err := ask(ctx, f, &r, func(ctx context.Context, s query.Searcher) (query.FieldStats, error) { return s.Stats(ctx, part) })
	if err != nil {
		return query.FieldStats{}, err
	}
	for _, o := range rest {
		s.Merge(o)
	}
	s.Finish(r)
	miss(&s.Summary, missing)
	return s, nil
}

// refresh is how often a tail looks for nodes that came or came back.
const refresh = 2 * time.Second

// Tail follows all nodes. Nodes that are away are named when that changes and
// followed again when they are back, from the last line seen of them.
func (f *Fan) Tail(ctx context.Context, r query.Request, emit func(query.TailEvent) error) error {
	r, err := r.Normal()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := &tail{f: f, r: r, emit: emit, following: map[string]bool{}, last: map[string]query.Cursor{}, away: map[string]bool{}, failed: make(chan error, 1)}
	defer t.all.Wait()
	defer cancel()
	t.all.Go(func() {
		err := f.local.Tail(ctx, r, t.pass)
		if ctx.Err() == nil {
			t.fail(errors.Join(err, errors.New("tail of this node ended")))
		}
	})
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	for {
		t.follow(ctx)
		select {
		case <-ctx.Done():
			return nil
		case err := <-t.failed:
			return err
		case <-tick.C:
		}
	}
}

// tail is one Tail under way.
type tail struct {
	f      *Fan
	r      query.Request
	all    sync.WaitGroup
	failed chan error

	mu        sync.Mutex // guards what follows, and calls of emit
	emit      func(query.TailEvent) error
	following map[string]bool
	last      map[string]query.Cursor
	away      map[string]bool
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
	err := t.emit(e)
	if err != nil {
		t.fail(err)
	}
	return err
}

// follow starts to follow peers that are not followed.
func (t *tail) follow(ctx context.Context) {
	peers := t.f.peers()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range peers {
		if t.following[p.Node] {
			continue
		}
		t.following[p.Node] = true
		r := t.r
		if c, ok := t.last[p.Node]; ok {
			r.Cursor = &c
		}
		t.all.Go(func() {
			err := NewRemote(p).Tail(ctx, r, func(e query.TailEvent) error {
				t.mu.Lock()
				if e.Line != nil {
					t.last[p.Node] = e.Line.Cursor
				}
				delete(t.away, p.Node)
				t.mu.Unlock()
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
}

package query

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"perch/logs/block"
	"perch/logs/record"
	"perch/logs/store"
)

const (
	tailBuffer   = 4096   // lines that wait for a slow reader
	tailBackfill = 20_000 // lines shown at most from before
	tailNotice   = time.Second

	// Lines from before are asked for a page at a time, because a reader may stand still
	// and a tail lasts: the page is all that waits for it. So many pages are looked for
	// at once, by all tails together.
	pageLines = 2000
	pageBytes = 1 << 20
	pageTurns = 4
)

// Tail emits what is stored after r.Cursor (up to a limit, oldest first), then
// new lines as they become durable.
func (e *Engine) Tail(ctx context.Context, r Request, emit func(TailEvent) error) error {
	r, err := r.Normal()
	if err != nil {
		return err
	}
	root, hidden := r.Query.root, &leftOut{}
	f := e.store.Follow(tailBuffer, func(s *record.Stream) bool {
		if r.allows(s.Namespace) {
			return root.ask(s) != no
		}
		if root.askNamespace(s.Namespace) != no { // as in an answer
			hidden.add(s.Namespace)
		}
		return false
	})
	defer f.Close()
	shown := map[Cursor]struct{}{}
	if r.Cursor != nil {
		whole, err := e.backfill(ctx, r, func(l *Line) error {
			shown[l.Cursor] = struct{}{}
			return emit(TailEvent{Line: l})
		}, hidden)
		if err != nil {
			return err
		}
		if !whole {
			if err := emit(TailEvent{Dropped: 1}); err != nil { // at least
				return err
			}
		}
	}
	if err := emit(TailEvent{Live: true}); err != nil {
		return err
	}
	notice := time.NewTicker(tailNotice)
	defer notice.Stop()
	var c candidate
	var allowance Allowance
	slow := int64(0) // lines that take too long to be looked at
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-notice.C:
			if n := f.Dropped() + slow; n > 0 {
				slow = 0
				if err := emit(TailEvent{Dropped: n}); err != nil {
					return err
				}
			}
			if names := hidden.take(); len(names) > 0 {
				if err := emit(TailEvent{Hidden: names}); err != nil {
					return err
				}
			}
		case n, ok := <-f.Lines():
			if !ok {
				return errors.New("log store was closed")
			}
			if !f.Took(&n) {
				continue
			}
			l := liveLine(&n)
			if _, ok := shown[l.Cursor]; ok {
				delete(shown, l.Cursor)
				continue
			}
			c.reset(l.Stream, l.Level, l.Body, nil, l.Fields)
			is, known := c.matchWithin(root, &allowance)
			if !known {
				slow++
			}
			if !is || !known {
				continue
			}
			if err := emit(TailEvent{Line: l}); err != nil {
				return err
			}
		}
	}
}

// backfill emits what is stored after r.Cursor, oldest first; whole is false when
// there is more than a tail shows, or may be.
func (e *Engine) backfill(ctx context.Context, r Request, emit func(*Line) error, hidden *leftOut) (whole bool, _ error) {
	r.From, r.To, r.Order = r.Cursor.Time, maxTime, OldestFirst
	for shown := 0; ; {
		r.Limit = min(pageLines, tailBackfill-shown)
		lines, sum, err := e.page(ctx, r)
		if err != nil {
			return false, err
		}
		for _, namespace := range sum.Hidden {
			hidden.add(namespace)
		}
		for _, l := range lines {
			if err := emit(l); err != nil {
				return false, err
			}
		}
		shown += len(lines)
		switch {
		case sum.Partial:
			return false, nil
		case sum.Cursor == "":
			return true, nil
		case shown >= tailBackfill || len(lines) == 0:
			return false, nil
		}
		r.Cursor = &lines[len(lines)-1].Cursor
	}
}

// page waits for its turn and returns the first lines after r.Cursor.
func (e *Engine) page(ctx context.Context, r Request) (lines []*Line, sum Summary, err error) {
	select {
	case e.pages <- struct{}{}:
		defer func() { <-e.pages }()
	case <-ctx.Done():
		return nil, sum, ctx.Err()
	}
	bytes, full := 0, false
	sum, err = e.Query(ctx, r, func(l *Line) error {
		if bytes += l.Bytes(); full || bytes > pageBytes && len(lines) > 0 {
			full = true
			return nil
		}
		lines = append(lines, l)
		return nil
	})
	if full {
		sum.Cursor = lines[len(lines)-1].String()
	}
	return lines, sum, err
}

// leftOut are the namespaces whose lines a tail does not show.
type leftOut struct {
	mu    sync.Mutex // guards what follows
	known map[string]bool
	fresh []string
}

func (l *leftOut) add(namespace string) {
	namespace = cmp.Or(namespace, NoValue)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known[namespace] {
		return
	}
	if l.known == nil {
		l.known = map[string]bool{}
	}
	l.known[namespace] = true
	l.fresh = append(l.fresh, namespace)
}

// take returns those that were not told yet.
func (l *leftOut) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.fresh
	l.fresh = nil
	slices.Sort(out)
	return out
}

func liveLine(n *store.Numbered) *Line {
	return &Line{Cursor: Cursor{n.Time, n.Hash, n.Number}, Stream: n.Stream, Level: n.Level, Body: n.Body, Fields: block.AppendFields(nil, n.Record.Fields)}
}

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
		if root.ask(s) == no {
			return false
		}
		if !r.allows(s.Namespace) {
			hidden.add(s.Namespace)
			return false
		}
		return true
	})
	defer f.Close()
	shown := map[Cursor]struct{}{}
	if r.Cursor != nil {
		back := r
		back.From, back.To, back.Limit, back.Order = r.Cursor.Time, maxTime, tailBackfill, OldestFirst
		sum, err := e.Query(ctx, back, func(l *Line) error {
			shown[l.Cursor] = struct{}{}
			return emit(TailEvent{Line: l})
		})
		if err != nil {
			return err
		}
		for _, namespace := range sum.Hidden {
			hidden.add(namespace)
		}
		if sum.Partial || sum.Cursor != "" {
			if err := emit(TailEvent{Dropped: 1}); err != nil { // at least
				return err
			}
		}
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
			f.Took(&n)
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

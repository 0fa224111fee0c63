package cluster

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"perch/logs/query"
)

// Copy is a copy of a node's store at another node.
type Copy struct {
	Node string    // whose lines
	ID   string    // of the store: a node that was set up anew has another
	By   string    // the node that keeps it
	At   time.Time // all lines before are there
	From time.Time // as in query.Copied
	Peer Peer      // asks it
	// Former: the node has another store now, as it says itself, of which there may be
	// no copy yet.
	Former bool
}

// moving is how much older a copy may be that is still as good as another: it
// may have more partitions.
const moving = 15 * time.Second

// decideCurrent orders the copies of a node: those of its present store, best
// first; and those of each store it had before. There may be none of the present one.
func decideCurrent(of []Copy) (current []Copy, former [][]Copy) {
	byID := map[string][]Copy{}
	for _, c := range of {
		byID[c.ID] = append(byID[c.ID], c)
	}
	var stores [][]Copy
	for _, all := range byID {
		slices.SortFunc(all, func(a, b Copy) int { return b.At.Compare(a.At) })
		best := 0
		for i, c := range all {
			if all[0].At.Sub(c.At) <= moving && c.From.Before(all[best].From) {
				best = i
			}
		}
		all[0], all[best] = all[best], all[0]
		stores = append(stores, all)
	}
	slices.SortFunc(stores, func(a, b []Copy) int { return b[0].At.Compare(a[0].At) })
	if at := slices.IndexFunc(stores, func(of []Copy) bool { return !of[0].Former }); at >= 0 {
		current = stores[at]
		stores = slices.Delete(stores, at, at+1)
	}
	return current, stores
}

// decideFormer names the copies that hold what no node holds any more: of nodes
// that are not members, and of former stores of those that are.
func decideFormer(all []Copy, self string, members []member) (out [][]Copy) {
	byNode := map[string][]Copy{}
	for _, c := range all {
		byNode[c.Node] = append(byNode[c.Node], c)
	}
	for node, of := range byNode {
		current, former := decideCurrent(of)
		if len(current) > 0 && node != self && !slices.ContainsFunc(members, func(m member) bool { return m.name == node }) {
			out = append(out, current)
		}
		out = append(out, former...)
	}
	return out
}

// How long a peer may be silent, and then to a look whether it is there.
const (
	silence   = 1500 * time.Millisecond
	lookLimit = 4 * time.Second
)

// direct asks a peer itself. When it is silent it is looked at: a machine that
// is gone does not hold up the answer.
func direct[T any](ctx context.Context, r *query.Request, m member, one func(context.Context, query.Searcher) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.Timeout+patience, fmt.Errorf("no answer within %s", r.Timeout+patience))
	defer cancel()
	ctx, give := context.WithCancelCause(ctx)
	defer give(nil)
	silent := time.AfterFunc(silence, func() {
		if err := reach(ctx, m.peer); err != nil && ctx.Err() == nil {
			give(err)
		}
	})
	defer silent.Stop()
	got, err := one(ctx, m.s)
	if err != nil && context.Cause(ctx) != nil {
		err = fmt.Errorf("%w: %w", err, context.Cause(ctx))
	}
	return got, err
}

// reach tells whether a peer answers questions at all.
func reach(ctx context.Context, p Peer) error {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+query.Prefix, nil)
	if err != nil {
		return fmt.Errorf("look at node %s: %w", p.Node, err)
	}
	resp, err := p.Client.Do(req)
	if err != nil {
		return fmt.Errorf("look at node %s: %w", p.Node, err)
	}
	_ = resp.Body.Close() // nothing in it
	if resp.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("look at node %s: status %d", p.Node, resp.StatusCode)
	}
	return nil
}

// isAway tells whether a peer did not answer before, and has somebody look
// whether it does now.
func (f *Fan) isAway(p Peer) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.away[p.Node] {
		return false
	}
	if !f.look[p.Node] {
		f.look[p.Node] = true
		go func() { // for all who ask later; both end by limits of their own
			ctx := context.Background()
			err := reach(ctx, p)
			if err == nil {
				f.parts.Copies(ctx, true) // it may have another store now
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			delete(f.look, p.Node)
			if err == nil {
				delete(f.away, p.Node)
			}
		}()
	}
	return true
}

func (f *Fan) setAway(node string, away bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if away {
		f.away[node] = true
	} else {
		delete(f.away, node)
	}
}

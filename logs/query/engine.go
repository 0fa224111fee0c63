package query

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"perch/logs/index"
	"perch/logs/record"
	"perch/logs/store"
)

// Engine answers from the store of this machine.
type Engine struct {
	store *store.Store
	log   *slog.Logger
	slots chan struct{} // pieces that are read at the same time, by all queries together
	pages chan struct{} // looked for at the same time, of lines that tails begin with
	idle  sync.Pool     // *worker, for their memory
}

// New makes an engine. All its queries together use as many cores as Go may.
func New(s *store.Store, log *slog.Logger) *Engine {
	return &Engine{store: s, log: log, slots: make(chan struct{}, runtime.GOMAXPROCS(0)), pages: make(chan struct{}, pageTurns)}
}

// search is one request under way.
type search struct {
	e      *Engine
	ctx    context.Context
	r      *Request
	view   *store.View
	start  time.Time
	root   *node
	driver driver
	hidden map[string]struct{}

	mu  sync.Mutex // guards what follows, and what workers share
	sum Summary
}

func (e *Engine) begin(ctx context.Context, r *Request) (*search, context.CancelFunc, error) {
	view, err := e.store.View()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	s := &search{e: e, ctx: ctx, r: r, view: view, start: time.Now(), hidden: map[string]struct{}{}, root: r.Query.root}
	s.driver = s.root.driver()
	return s, func() {
		cancel()
		if err := view.Release(); err != nil {
			e.log.Warn("view was not released", "err", err)
		}
	}, nil
}

// pieces are those of the view that may have a line that matches.
func (s *search) pieces() []store.Piece {
	return s.choose(s.r.From, s.r.To, s.want, s.root.need())
}

// choose selects pieces; the answer is partial without those that cannot be read.
func (s *search) choose(from, to int64, want func(*record.Stream) bool, need index.Need) []store.Piece {
	out := s.view.Select(s.ctx, from, to, want, need)
	if s.view.Lost() != nil {
		s.mu.Lock()
		s.partial("blocks are damaged")
		s.mu.Unlock()
	}
	return out
}

func (s *search) want(st *record.Stream) bool { return s.may(st) && s.root.ask(st) != no }

// may tells whether the asker may read a stream, and notes what is left out: the
// namespace, whatever the query says of anything but namespaces. Else who may not read
// it could ask whether it has a pod of some name.
func (s *search) may(st *record.Stream) bool {
	if s.r.allows(st.Namespace) {
		return true
	}
	if s.root.askNamespace(st.Namespace) != no {
		s.hidden[cmp.Or(st.Namespace, NoValue)] = struct{}{}
	}
	return false
}

// due tells whether the request must end before the next piece. Called with mu
// held.
func (s *search) due() bool {
	switch {
	case s.ctx.Err() != nil:
		s.partial("time is up")
	case s.sum.Stats.Bytes > s.r.MaxBytes:
		s.partial(fmt.Sprintf("more than %d bytes to read", s.r.MaxBytes))
	default:
		return false
	}
	return true
}

// partial notes that the answer is not whole. Called with mu held.
func (s *search) partial(reason string) {
	s.sum.Partial = true
	if s.sum.Reason == "" {
		s.sum.Reason = reason
	}
}

func (s *search) summary() Summary {
	s.sum.Missing, s.sum.Hidden = []string{}, []string{}
	for n := range s.hidden {
		s.sum.Hidden = append(s.sum.Hidden, n)
	}
	slices.Sort(s.sum.Hidden)
	s.sum.Stats.Took = time.Since(s.start).Milliseconds()
	return s.sum
}

// each hands the pieces in their order to workers, one per core at most, until
// stop says so or the budget is used up. stop is called with mu held.
func (s *search) each(pieces []store.Piece, stop func(*store.Piece) bool, one func(*worker, *store.Piece)) {
	next := 0
	take := func() *store.Piece {
		s.mu.Lock()
		defer s.mu.Unlock()
		if next == len(pieces) {
			return nil
		}
		if s.due() || stop != nil && stop(&pieces[next]) {
			next = len(pieces)
			return nil
		}
		next++
		return &pieces[next-1]
	}
	work := func() {
		w, ok := s.e.idle.Get().(*worker)
		if !ok {
			w = newWorker()
		}
		w.s = s
		for more := true; more; {
			select {
			case s.e.slots <- struct{}{}:
			case <-s.ctx.Done():
				s.mu.Lock()
				s.due()
				s.mu.Unlock()
				return
			}
			p := take()
			if more = p != nil; more {
				w.used = false
				one(w, p)
				w.count()
			}
			<-s.e.slots
		}
		w.s = nil
		s.e.idle.Put(w)
	}
	var all sync.WaitGroup
	for range min(cap(s.e.slots), len(pieces)) - 1 {
		all.Go(work)
	}
	if len(pieces) > 0 {
		work()
	}
	all.Wait()
}

package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/metrics/target"
)

// Loop asks what is due, and remembers the answers.
type Loop struct {
	cfg     Config
	parts   Parts
	log     *slog.Logger
	metrics *metrics
	stale   atomic.Bool

	// open makes a search ready to be asked; another one in tests.
	open func(s target.Search) (asker, error)

	mu      sync.Mutex
	entries map[string]*entry // by key of the search
	out     map[string]left   // those for which there is no room, by namespace
	under   map[string]int    // questions under way, by namespace
}

// left are searches of one namespace for which there is no room.
type left struct {
	count int
	why   string // of the first
}

// asker asks one search once, and is not called again before it has. It ends with
// ctx.
type asker func(ctx context.Context) (answer, error)

// answer is a good one.
type answer struct {
	groups []target.Group
	note   string // what there is to tell of it
	bytes  int64  // what it costs to keep, about
}

// entry is one search; the loop's mu is for it, too.
type entry struct {
	search target.Search
	ask    asker
	found  target.Found
	told   bool  // it was asked, or cannot be
	bytes  int64 // of found
	next   time.Time
	stop   context.CancelFunc // of the question under way; nil: there is none
	round  int                // that of an older one does not count
}

// result is the end of a question.
type result struct {
	entry *entry
	round int
	begun time.Time
	got   answer
	err   error
}

// New asks nothing yet.
func New(cfg Config, parts Parts, log *slog.Logger, reg prometheus.Registerer) (*Loop, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if parts.Searches == nil || parts.Changed == nil || parts.Machine == nil {
		return nil, errors.New("build discovery: parts are missing")
	}
	l := &Loop{cfg: cfg, parts: parts, log: log, metrics: newMetrics(reg), entries: map[string]*entry{}, out: map[string]left{}, under: map[string]int{}}
	l.open = l.opened
	return l, nil
}

// opened is a search over HTTP or DNS.
func (l *Loop) opened(s target.Search) (asker, error) {
	if s.URL != "" {
		return l.openHTTP(s)
	}
	return func(ctx context.Context) (answer, error) { return l.askDNS(ctx, s) }, nil
}

// Changed says that Searches may answer differently. It never blocks.
func (l *Loop) Changed() { l.stale.Store(true) }

// Found is what is known of a search; false: it was not asked yet.
func (l *Loop) Found(key string) (target.Found, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[key]
	if e == nil {
		out := l.out[target.NamespaceOf(key)]
		return target.Found{Failed: out.why}, out.count > 0
	}
	return e.found, e.told
}

// look is how often it is seen what is due.
const look = time.Second

// Run asks until ctx ends, and ends when all questions have.
func (l *Loop) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var asks sync.WaitGroup
	defer asks.Wait()
	defer stop()
	results := make(chan result, l.cfg.AtOnce) // each that is under way has room
	lists := make(chan []target.Search, 1)     // one is made at a time, which may wait for Secrets
	listing := false
	tick := time.NewTicker(look)
	defer tick.Stop()
	var listed time.Time
	for {
		now := time.Now()
		if !listing && (l.stale.Swap(false) || now.Sub(listed) >= l.cfg.List) {
			listed, listing = now, true
			asks.Go(func() { lists <- l.parts.Searches(ctx) })
		}
		for _, e := range l.due(now) {
			within, cancel := context.WithTimeout(ctx, min(l.cfg.Timeout, e.search.Every))
			e.stop = cancel
			r, ask := result{entry: e, round: e.round, begun: now}, e.ask
			asks.Go(func() {
				defer cancel()
				r.got, r.err = ask(within)
				results <- r
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case list := <-lists:
			listing = false
			if ctx.Err() != nil {
				return nil // it may be a part of them
			}
			if l.follow(time.Now(), list) {
				l.parts.Changed()
			}
		case r := <-results:
			if l.take(r, time.Now()) {
				l.parts.Changed()
			}
		}
	}
}

// follow makes the entries those of the list, and answers whether there is
// anything to tell. Those that are there go before new ones where there is no room.
func (l *Loop) follow(now time.Time, list []target.Search) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	wanted := make(map[string]target.Search, len(list))
	for _, s := range list {
		if _, twice := wanted[s.Key()]; !twice {
			wanted[s.Key()] = s
		}
	}
	changed := false
	ofOne := map[string]int{}
	for key, e := range l.entries {
		if _, still := wanted[key]; !still {
			e.drop()
			delete(l.entries, key)
			changed = true
			continue
		}
		ofOne[e.search.Namespace]++
	}
	out := map[string]left{}
	for _, s := range list {
		key := s.Key()
		s, first := wanted[key]
		if !first {
			continue
		}
		delete(wanted, key)
		e := l.entries[key]
		if e == nil {
			why := ""
			switch {
			case ofOne[s.Namespace] >= l.cfg.OfOne:
				why = fmt.Sprintf("it is left out: objects of namespace %q look for targets in more than %d places", s.Namespace, l.cfg.OfOne)
			case len(l.entries) >= l.cfg.Searches:
				why = fmt.Sprintf("it is left out: all objects together look for targets in more than %d places", l.cfg.Searches)
			}
			if why != "" {
				out[s.Namespace] = left{out[s.Namespace].count + 1, cmp.Or(out[s.Namespace].why, why)}
				continue
			}
			ofOne[s.Namespace]++
			e = &entry{}
			l.entries[key] = e
		}
		if e.search != s {
			changed = l.renew(now, e, s) || changed
		}
	}
	changed = changed || !maps.Equal(out, l.out)
	l.out = out
	l.count()
	return changed
}

// renew has a search asked at once that is new or another one; mu is held.
func (l *Loop) renew(now time.Time, e *entry, s target.Search) bool {
	e.drop()
	e.search, e.next, e.ask = s, now, nil
	lacks := s.Lacks
	if lacks == "" {
		ask, err := l.open(s)
		if err != nil {
			lacks = err.Error()
		}
		e.ask = ask
	}
	if lacks == "" || e.found.Failed == lacks && e.told {
		return false
	}
	e.found.Failed, e.told = lacks, true
	return true
}

// drop ends the question under way, whose answer counts no more.
func (e *entry) drop() {
	e.round++
	if e.stop != nil {
		e.stop()
	}
}

// due are those to ask now, as many as may be under way, the longest due first.
func (l *Loop) due(now time.Time) []*entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []*entry
	for _, e := range l.entries {
		if e.stop == nil && e.ask != nil && !now.Before(e.next) {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b *entry) int {
		return cmp.Or(a.next.Compare(b.next), cmp.Compare(a.search.Key(), b.search.Key()))
	})
	all := 0
	for _, n := range l.under {
		all += n
	}
	out := list[:0]
	for _, e := range list {
		if ns := e.search.Namespace; all < l.cfg.AtOnce && l.under[ns] < l.cfg.AtOnceOfOne {
			all, l.under[ns] = all+1, l.under[ns]+1
			out = append(out, e)
		}
	}
	return out
}

// take keeps an answer, or why there is none, and answers whether that is
// anything new.
func (l *Loop) take(r result, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := r.entry
	ns := e.search.Namespace // never another one: it is part of the key
	if l.under[ns]--; l.under[ns] == 0 {
		delete(l.under, ns)
	}
	e.stop = nil
	if r.round != e.round {
		return false // it is another search now, or gone
	}
	e.next = r.begun.Add(e.search.Every)
	if r.err == nil {
		r.err = l.room(e, r.got)
	}
	l.metrics.asked.WithLabelValues(kind(e.search), outcome(r.err)).Inc()
	before, first := e.found, !e.told
	e.told = true
	if r.err != nil {
		e.found.Failed = brief(r.err)
		if before.Failed == "" {
			l.log.Info("discovery failed", "from", e.search.From, "field", e.search.Field, "err", e.found.Failed)
		}
		return first || before.Failed != e.found.Failed
	}
	e.bytes = r.got.bytes
	e.found = target.Found{Groups: r.got.groups, Note: r.got.note, Good: now}
	l.count()
	return first || before.Failed != "" || before.Note != e.found.Note || !reflect.DeepEqual(before.Groups, e.found.Groups)
}

// mostReason is how much is told of a failure.
const mostReason = 300

// brief is an error's first line, and not all of a long one.
func brief(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	return strings.ToValidUTF8(text[:min(len(text), mostReason)], "")
}

// room says why an answer cannot be kept instead of that before; mu is held. The
// limits are there so that one namespace does not take the place of others.
func (l *Loop) room(of *entry, got answer) error {
	all, one := got.bytes, got.bytes
	found, foundOfOne := countOf(got.groups), countOf(got.groups)
	for _, e := range l.entries {
		if e == of {
			continue
		}
		n := countOf(e.found.Groups)
		all, found = all+e.bytes, found+n
		if e.search.Namespace == of.search.Namespace {
			one, foundOfOne = one+e.bytes, foundOfOne+n
		}
	}
	for _, x := range []struct {
		have, most int64
		what, unit string
	}{
		{int64(foundOfOne), int64(l.cfg.FoundOfOne), fmt.Sprintf("objects of namespace %q", of.search.Namespace), "targets"},
		{one, l.cfg.KeptOfOne, fmt.Sprintf("objects of namespace %q", of.search.Namespace), "bytes"},
		{int64(found), int64(l.cfg.Found), "all objects", "targets"},
		{all, l.cfg.Kept, "all objects", "bytes"},
	} {
		if x.have > x.most {
			return fmt.Errorf("there is no room for the answer: what %s find would be more than %d %s", x.what, x.most, x.unit)
		}
	}
	return nil
}

func countOf(groups []target.Group) (n int) {
	for _, g := range groups {
		n += len(g.Targets)
	}
	return n
}

// count tells how many there are; mu is held.
func (l *Loop) count() {
	targets := 0
	for _, e := range l.entries {
		targets += countOf(e.found.Groups)
	}
	l.metrics.searches.Set(float64(len(l.entries)))
	out := 0
	for _, o := range l.out {
		out += o.count
	}
	l.metrics.leftOut.Set(float64(out))
	l.metrics.targets.Set(float64(targets))
}

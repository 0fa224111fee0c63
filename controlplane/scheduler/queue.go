package scheduler

import (
	"cmp"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

const (
	firstBackoff = time.Second
	lastBackoff  = 10 * time.Second
	parkedLimit  = 5 * time.Minute // then a pod is tried again without a reason
)

// queue holds every waiting pod once: important first, then the longest waiting.
type queue struct {
	mu     sync.Mutex
	items  map[types.UID]*item
	wakes  int           // how often something changed that may help parked pods
	change chan struct{} // capacity 1: something may have become ready
}

type item struct {
	uid             types.UID
	namespace, name string
	priority        int32
	since           time.Time
	began           time.Time // of the attempt under way
	attempts        int
	failed          time.Time // of the last attempt
	ready           time.Time
	parked          bool // waits for a change in the cluster
	wakes           int  // of the queue when it was taken out
}

func newQueue() *queue { return &queue{items: map[types.UID]*item{}, change: make(chan struct{}, 1)} }

func (q *queue) signal() {
	select {
	case q.change <- struct{}{}:
	default: // already awake
	}
}

// add takes a pod that waits; a pod that is known is made ready again when its own
// change may help it.
func (q *queue) add(now time.Time, uid types.UID, namespace, name string, priority int32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	x, ok := q.items[uid]
	if !ok {
		x = &item{uid: uid, namespace: namespace, name: name, since: now, ready: now}
		q.items[uid] = x
	}
	x.priority = priority
	x.unpark()
	q.signal()
}

func (q *queue) remove(uid types.UID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.items, uid)
}

// retry puts a pod back after a failed attempt. A parked pod waits for wake,
// unless the cluster or the pod changed while it was being looked at.
func (q *queue) retry(now time.Time, x item, parked bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.wakes != x.wakes || q.items[x.uid] != nil {
		parked = false
	}
	x.attempts++
	x.failed, x.parked = now, parked
	x.ready = now.Add(backoff(x.attempts))
	if parked {
		x.ready = now.Add(parkedLimit)
	}
	q.items[x.uid] = &x
	q.signal()
}

// wake makes all parked pods ready, each after its back-off.
func (q *queue) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wakes++
	for _, x := range q.items {
		x.unpark()
	}
	q.signal()
}

func (x *item) unpark() {
	if x.parked {
		x.parked = false
		x.ready = x.failed.Add(backoff(x.attempts))
	}
}

func backoff(attempts int) time.Duration {
	return min(lastBackoff, firstBackoff<<min(max(attempts-1, 0), 10))
}

// pop takes out the next ready pod, or tells how long to wait for one.
func (q *queue) pop(now time.Time) (next item, wait time.Duration, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var best *item
	wait = parkedLimit
	for _, x := range q.items {
		if left := x.ready.Sub(now); left > 0 {
			wait = min(wait, left)
			continue
		}
		if best == nil || before(x, best) {
			best = x
		}
	}
	if best == nil {
		return item{}, wait, false
	}
	delete(q.items, best.uid)
	best.wakes = q.wakes
	return *best, 0, true
}

func before(a, b *item) bool {
	return cmp.Or(cmp.Compare(b.priority, a.priority), a.since.Compare(b.since), cmp.Compare(a.uid, b.uid)) < 0
}

// lengths count what can be tried now, what backs off, and what waits for a
// change.
func (q *queue) lengths(now time.Time) (active, backoff, parked int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, x := range q.items {
		switch {
		case x.parked:
			parked++
		case x.ready.After(now):
			backoff++
		default:
			active++
		}
	}
	return active, backoff, parked
}

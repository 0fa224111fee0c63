package reconcile

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// expectationLife is how long a lost watch event may hold a controller back.
const expectationLife = 5 * time.Minute

// Expectations remember creates and deletes whose echo has not come back
// through the watch yet, so that a loop does not act twice on an old snapshot.
// At most one entry per key and one uid per pending delete are kept.
type Expectations struct {
	mu   sync.Mutex
	keys map[Key]*expectation
}

type expectation struct {
	creates int
	deletes map[types.UID]struct{}
	since   time.Time
}

// NewExpectations makes an empty set.
func NewExpectations() *Expectations { return &Expectations{keys: map[Key]*expectation{}} }

// ExpectCreates says that count objects are about to be created for key.
func (e *Expectations) ExpectCreates(now time.Time, key Key, count int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.at(key)
	x.creates += count
	x.since = now
}

// ExpectDeletes says that these objects are about to be deleted for key.
func (e *Expectations) ExpectDeletes(now time.Time, key Key, uids ...types.UID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.at(key)
	for _, uid := range uids {
		x.deletes[uid] = struct{}{}
	}
	x.since = now
}

// Created says that a create was seen, or has failed and will not be seen.
func (e *Expectations) Created(key Key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x, ok := e.keys[key]; ok && x.creates > 0 {
		x.creates--
	}
}

// Deleted says that a delete was seen, or has failed.
func (e *Expectations) Deleted(key Key, uid types.UID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x, ok := e.keys[key]; ok {
		delete(x.deletes, uid)
	}
}

// Met answers whether the snapshot shows all that was done for key, or the wait was too long.
func (e *Expectations) Met(now time.Time, key Key) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	x, ok := e.keys[key]
	if !ok {
		return true
	}
	if (x.creates == 0 && len(x.deletes) == 0) || now.Sub(x.since) > expectationLife {
		delete(e.keys, key)
		return true
	}
	return false
}

// Forget drops what was expected for a key that is gone.
func (e *Expectations) Forget(key Key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.keys, key)
}

func (e *Expectations) at(key Key) *expectation {
	x, ok := e.keys[key]
	if !ok {
		x = &expectation{deletes: map[types.UID]struct{}{}}
		e.keys[key] = x
	}
	return x
}

package replica

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"perch/logs/query"
	"perch/logs/store"
)

// ReadPrefix is where copies are listed and read: ReadPrefix lists them,
// ReadPrefix + owner + "/" + identity + query.Prefix… asks one, as query.Handler
// does.
const ReadPrefix = "/logs/copies/"

// AtHeader of an answer from a copy says as of when it is: RFC 3339.
const AtHeader = "Perch-Copy-At"

// StoreHeader of the list of copies is the Identity of the store of the node that
// keeps them: copies of it that have another are of former ones.
const StoreHeader = "Perch-Log-Store"

// opened is a copy that is open to be read, as it was at one time.
type opened struct {
	store   *store.Store
	handler http.Handler
	at      time.Time
	scratch string
	users   int
	last    time.Time
	stale   bool // closed by its last user
}

// Reads answers questions about copies. The caller makes sure that only perch's
// own servers ask.
func (k *Keeper) Reads() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rest := strings.TrimPrefix(r.URL.Path, ReadPrefix)
		if rest == "" {
			if k.cfg.Store != "" {
				w.Header().Set(StoreHeader, k.cfg.Store)
			}
			answer(w, k.Copies())
			return
		}
		name, path, ok := strings.Cut(rest, query.Prefix)
		key, known := keyOf(name)
		if !ok || !known {
			http.Error(w, "want "+ReadPrefix+"NODE/STORE"+query.Prefix+"…", http.StatusNotFound)
			return
		}
		o, err := k.open(r.Context(), key)
		if err != nil {
			k.log.Warn("copy was not opened", "node", key.owner, "err", err)
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		defer k.release(o)
		w.Header().Set(AtHeader, o.at.Format(time.RFC3339Nano))
		to := r.Clone(r.Context())
		to.URL.Path = query.Prefix + path
		o.handler.ServeHTTP(w, to)
	})
}

// open opens a copy as it is now, or takes the one that is open when nothing was
// added since. When as many as may be are in use it waits for one.
func (k *Keeper) open(ctx context.Context, key copyKey) (*opened, error) {
	for {
		o, again, err := k.openNow(ctx, key)
		if !again {
			return o, err
		}
	}
}

// openNow is open; again is true when the copy was closed just before it was taken.
func (k *Keeper) openNow(ctx context.Context, key copyKey) (_ *opened, again bool, _ error) {
	has, err := k.place(ctx, key)
	if err != nil {
		return nil, false, err
	}
	defer func() {
		if has {
			k.mu.Lock()
			k.opening--
			k.wake()
			k.mu.Unlock()
		}
	}()
	h, err := k.take(key, false)
	if err != nil {
		return nil, false, err
	}
	if h == nil {
		return nil, false, fmt.Errorf("open copy of %s: it is not here", key.owner)
	}
	defer h.mu.Unlock() // no shipment meanwhile, and no second opening
	if !h.meta.Committed {
		return nil, false, fmt.Errorf("open copy of %s: not enough of it is here yet", key.owner)
	}
	k.mu.Lock()
	o := k.opened[key]
	if o != nil && o.at.Equal(h.meta.At) {
		o.users++
		k.mu.Unlock()
		return o, false, nil
	}
	if o == nil && !has {
		k.mu.Unlock()
		return nil, true, nil
	}
	if o != nil {
		k.retire(key, o)
	}
	if !has { // the place of the one that was open
		k.opening++
		has = true
	}
	k.serial++
	scratch := filepath.Join(k.cfg.Scratch, strconv.Itoa(k.serial))
	k.mu.Unlock()
	if err := ctx.Err(); err != nil { // it waited for the one before
		return nil, false, err
	}
	log := k.log.With("node", key.owner)
	s, err := store.OpenCopy(h.dir, store.Default(scratch), log)
	if err != nil {
		return nil, false, errors.Join(err, os.RemoveAll(scratch))
	}
	o = &opened{store: s, at: h.meta.At, scratch: scratch, users: 1, last: time.Now(),
		handler: query.Handler(query.New(s, log), func(_ context.Context, r *http.Request) (query.Access, error) {
			return query.AccessFromHeader(r.Header.Get(query.NamespacesHeader)), nil
		}, log)}
	k.mu.Lock()
	k.opened[key] = o
	k.m.opened.Set(float64(len(k.opened)))
	k.mu.Unlock()
	k.m.opens.Inc()
	k.log.Info("copy opened", "node", key.owner, "at", o.at)
	return o, false, nil
}

// place waits for a place among those that are open, which opening counts until the
// copy is one of them; has is false when it is.
func (k *Keeper) place(ctx context.Context, key copyKey) (has bool, _ error) {
	for {
		k.mu.Lock()
		if _, open := k.opened[key]; open {
			k.mu.Unlock()
			return false, nil
		}
		for len(k.opened)+k.opening >= k.cfg.Opened && k.makeRoom() {
		}
		if len(k.opened)+k.opening < k.cfg.Opened {
			k.opening++
			k.mu.Unlock()
			return true, nil
		}
		freed := k.freed
		k.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return false, fmt.Errorf("open copy of %s: %d copies are in use, the most at the same time: %w", key.owner, k.cfg.Opened, ctx.Err())
		}
	}
}

// wake lets those who wait for a place look again. Called with mu held.
func (k *Keeper) wake() {
	close(k.freed)
	k.freed = make(chan struct{})
}

// release ends one use of an opened copy.
func (k *Keeper) release(o *opened) {
	k.mu.Lock()
	defer k.mu.Unlock()
	o.users--
	o.last = time.Now()
	if o.users > 0 {
		return
	}
	if o.stale {
		k.close(o)
	}
	k.wake()
}

// retire takes an opened copy out of use. Called with mu held.
func (k *Keeper) retire(key copyKey, o *opened) {
	delete(k.opened, key)
	k.m.opened.Set(float64(len(k.opened)))
	o.stale = true
	if o.users == 0 {
		k.close(o)
	}
}

// makeRoom closes the copy that was not asked for the longest time. Called with
// mu held.
func (k *Keeper) makeRoom() bool {
	var which copyKey
	var oldest *opened
	for key, o := range k.opened {
		if o.users == 0 && (oldest == nil || o.last.Before(oldest.last)) {
			which, oldest = key, o
		}
	}
	if oldest != nil {
		k.retire(which, oldest)
	}
	return oldest != nil
}

func (k *Keeper) close(o *opened) {
	if err := errors.Join(o.store.Close(), os.RemoveAll(o.scratch)); err != nil {
		k.log.Warn("copy was not closed", "err", err)
	}
}

func (k *Keeper) closeIdle(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, o := range k.opened {
		if o.users == 0 && now.Sub(o.last) > k.cfg.Idle {
			k.retire(key, o)
		}
	}
}

func (k *Keeper) closeAll() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, o := range k.opened {
		k.retire(key, o)
	}
}

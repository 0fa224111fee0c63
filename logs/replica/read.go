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
// added since.
func (k *Keeper) open(ctx context.Context, key copyKey) (*opened, error) {
	h, err := k.take(key, false)
	if err != nil {
		return nil, err
	}
	if h == nil {
		return nil, fmt.Errorf("open copy of %s: it is not here", key.owner)
	}
	defer h.mu.Unlock() // no shipment meanwhile, and no second opening
	if !h.meta.Committed {
		return nil, fmt.Errorf("open copy of %s: not enough of it is here yet", key.owner)
	}
	k.mu.Lock()
	o := k.opened[key]
	if o != nil && o.at.Equal(h.meta.At) {
		o.users++
		k.mu.Unlock()
		return o, nil
	}
	if o != nil {
		k.retire(key, o)
	}
	if len(k.opened) >= k.cfg.Opened && !k.makeRoom() {
		k.mu.Unlock()
		return nil, fmt.Errorf("open copy of %s: %d copies are open, the most at the same time", key.owner, k.cfg.Opened)
	}
	k.serial++
	scratch := filepath.Join(k.cfg.Scratch, strconv.Itoa(k.serial))
	k.mu.Unlock()
	if err := ctx.Err(); err != nil { // it waited for the one before
		return nil, err
	}
	log := k.log.With("node", key.owner)
	s, err := store.OpenCopy(h.dir, store.Default(scratch), log)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(scratch))
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
	return o, nil
}

// release ends one use of an opened copy.
func (k *Keeper) release(o *opened) {
	k.mu.Lock()
	defer k.mu.Unlock()
	o.users--
	o.last = time.Now()
	if o.stale && o.users == 0 {
		k.close(o)
	}
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

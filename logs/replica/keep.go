package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// KeepConfig says where copies are kept and how many.
type KeepConfig struct {
	Dir       string        // of all copies
	Scratch   string        // for copies that are open; emptied at start
	MaxBytes  int64         // of all copies; then the oldest partitions go
	FreeBytes int64         // left free on the disk
	Opened    int           // copies open at the same time
	Idle      time.Duration // an opened copy is closed after
	Silence   time.Duration // a shipment ends when nothing of it comes for so long: its copy can be read then
	Store     string        // Identity of this node's own store, told to who lists copies
}

// DefaultKeep fits a small machine.
func DefaultKeep(dir, scratch string) KeepConfig {
	return KeepConfig{Dir: dir, Scratch: scratch, MaxBytes: 16 << 30, FreeBytes: 512 << 20, Opened: 2, Idle: 5 * time.Minute, Silence: 10 * time.Second}
}

// Keeper keeps copies of other nodes' stores.
type Keeper struct {
	cfg  KeepConfig
	log  *slog.Logger
	m    *keepMetrics
	free func(dir string) (int64, error)

	mu      sync.Mutex // guards what follows
	copies  map[copyKey]*held
	opened  map[copyKey]*opened
	opening int           // as many more have their place
	freed   chan struct{} // closed when there may be room for another
	serial  int           // names scratch directories
}

// Store is the Identity of this node's own store.
func (k *Keeper) Store() string { return k.cfg.Store }

// copyKey is a node and the identity of its store: a node that was set up anew
// has another.
type copyKey struct{ owner, id string }

// NewKeeper opens the copies in cfg.Dir.
func NewKeeper(cfg KeepConfig, log *slog.Logger, reg prometheus.Registerer) (*Keeper, error) {
	k := &Keeper{cfg: cfg, log: log, m: newKeepMetrics(reg), free: freeBytes, copies: map[copyKey]*held{}, opened: map[copyKey]*opened{}, freed: make(chan struct{})}
	if err := errors.Join(os.MkdirAll(cfg.Dir, 0o700), os.RemoveAll(cfg.Scratch)); err != nil {
		return nil, fmt.Errorf("open copies of logs: %w", err)
	}
	dirs, err := filepath.Glob(filepath.Join(cfg.Dir, "*", "*"))
	if err != nil {
		return nil, fmt.Errorf("open copies of logs: %w", err)
	}
	for _, dir := range dirs {
		key := copyKey{filepath.Base(filepath.Dir(dir)), filepath.Base(dir)}
		h, err := openHeld(key.owner, key.id, dir)
		if err != nil {
			log.Error("copy was not opened", "node", key.owner, "err", err)
			continue
		}
		k.copies[key] = h
	}
	k.m.limit.Set(float64(cfg.MaxBytes))
	k.measure()
	return k, nil
}

func freeBytes(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// tidyEvery is how often old lines of gone owners and idle readers are looked
// for.
const tidyEvery = 30 * time.Second

// Run removes what is too old and closes what is not asked, until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	defer k.closeAll()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			k.tidy(now)
		}
	}
}

func (k *Keeper) tidy(now time.Time) {
	k.closeIdle(now)
	for _, h := range k.all() {
		h.mu.Lock()
		reason, upto := decideAge(now, h.meta)
		var err error
		switch {
		case h.gone:
		case reason != "":
			err = k.remove(h, reason)
		case upto != "":
			k.m.dropped.WithLabelValues("partition", "age").Inc()
			err = h.dropParts(upto)
		}
		h.mu.Unlock()
		if err != nil {
			k.log.Error("copy was not shortened", "node", h.owner, "err", err)
		}
	}
	k.measure()
}

func (k *Keeper) all() (out []*held) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, h := range k.copies {
		out = append(out, h)
	}
	return out
}

// remove deletes a copy. Called with its mutex held.
func (k *Keeper) remove(h *held, reason string) error {
	h.gone = true
	k.mu.Lock()
	delete(k.copies, copyKey{h.owner, h.id})
	k.mu.Unlock()
	k.m.dropped.WithLabelValues("copy", reason).Inc()
	k.log.Info("copy removed", "node", h.owner, "reason", reason)
	err := os.RemoveAll(h.dir)
	_ = os.Remove(filepath.Dir(h.dir)) // when it was the node's only one
	return err
}

// take finds or makes the copy of a store and locks it.
func (k *Keeper) take(key copyKey, create bool) (*held, error) {
	for {
		k.mu.Lock()
		h, ok := k.copies[key]
		if !ok && create {
			var err error
			if h, err = openHeld(key.owner, key.id, filepath.Join(k.cfg.Dir, key.owner, key.id)); err != nil {
				k.mu.Unlock()
				return nil, err
			}
			k.copies[key] = h
			k.log.Info("copy begun", "node", key.owner)
		}
		k.mu.Unlock()
		if h == nil {
			return nil, nil
		}
		h.mu.Lock()
		if h.torn && !h.gone {
			now, err := openHeld(h.owner, h.id, h.dir)
			if err != nil {
				h.mu.Unlock()
				return nil, err
			}
			h.meta, h.torn = now.meta, false
		}
		if !h.gone {
			return h, nil
		}
		h.mu.Unlock()
	}
}

// ErrFull refuses bytes for which there is no room.
var ErrFull = errors.New("no room for copies")

// room makes sure that n bytes fit, by dropping the oldest partitions of any
// copy but the two newest of each. to is the copy that gets them, locked.
func (k *Keeper) room(to *held) func(int64) error {
	return func(n int64) error {
		free, err := k.free(k.cfg.Dir)
		if err != nil {
			return fmt.Errorf("read free space: %w", err)
		}
		if free-n < k.cfg.FreeBytes {
			return fmt.Errorf("%w: the disk of this node has only %d bytes free", ErrFull, free)
		}
		for {
			uses := k.uses(to)
			victim, ok := decideRoom(uses, n, k.cfg.MaxBytes)
			if !ok {
				return fmt.Errorf("%w: copies here may have %d bytes", ErrFull, k.cfg.MaxBytes)
			}
			if victim.part == "" {
				return nil
			}
			h := victim.of
			if h != to && !h.mu.TryLock() { // it gets a shipment and asks for room itself
				return fmt.Errorf("%w: another copy is being written", ErrFull)
			}
			err := h.dropParts(victim.part)
			if h != to {
				h.mu.Unlock()
			}
			if err != nil {
				return err
			}
			k.m.dropped.WithLabelValues("partition", "bytes").Inc()
			k.log.Warn("partition of a copy dropped", "node", h.owner, "part", victim.part, "reason", "bytes")
		}
	}
}

// uses are the sizes of all copies; nothing is dropped of one that is being
// written at this moment, other than to.
func (k *Keeper) uses(to *held) (out []use) {
	for _, h := range k.all() {
		if h != to && !h.mu.TryLock() {
			out = append(out, use{of: h, bytes: h.size.Load()})
			continue
		}
		u := use{of: h, parts: map[string]int64{}}
		for place, size := range h.meta.Sizes {
			u.bytes += size
			if part := partOf(place); part != "" {
				u.parts[part] += size
			}
		}
		if h != to {
			h.mu.Unlock()
		}
		out = append(out, u)
	}
	return out
}

func (k *Keeper) measure() {
	var bytes int64
	all := k.all()
	for _, h := range all {
		bytes += h.size.Load()
	}
	k.m.copies.Set(float64(len(all)))
	k.m.bytes.Set(float64(bytes))
}

// Prefix is where shipments go: Prefix + owner + "/" + identity of its store.
const Prefix = "/perch/v1/copies/"

// Ships takes shipments: GET tells what is there, POST adds, DELETE removes. The
// caller makes sure that a node speaks only for itself: OwnerOf.
func (k *Keeper) Ships() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, ok := keyOf(strings.TrimPrefix(r.URL.Path, Prefix))
		if !ok {
			http.Error(w, "want "+Prefix+"NODE/STORE", http.StatusNotFound)
			return
		}
		switch r.Method {
		case http.MethodGet:
			k.tell(w, key)
		case http.MethodPost:
			k.receive(w, r, key)
		case http.MethodDelete:
			k.drop(w, key)
		default:
			http.Error(w, "GET, POST or DELETE", http.StatusMethodNotAllowed)
		}
	})
}

// OwnerOf is the node whose copy a path below Prefix is about.
func OwnerOf(path string) (string, bool) {
	key, ok := keyOf(strings.TrimPrefix(path, Prefix))
	return key.owner, ok
}

func keyOf(path string) (copyKey, bool) {
	owner, id, ok := strings.Cut(path, "/")
	good := func(s string) bool {
		return s != "" && len(s) < 254 && s[0] != '.' && strings.Trim(s, "0123456789abcdefghijklmnopqrstuvwxyz-.") == ""
	}
	return copyKey{owner, id}, ok && good(owner) && good(id)
}

func (k *Keeper) tell(w http.ResponseWriter, key copyKey) {
	h, err := k.take(key, false)
	var s State
	if h != nil {
		s, err = h.state()
		h.mu.Unlock()
	}
	if err != nil {
		k.fail(w, err)
		return
	}
	answer(w, s)
}

func (k *Keeper) receive(w http.ResponseWriter, r *http.Request, key copyKey) {
	h, err := k.take(key, true)
	if err != nil {
		k.fail(w, err)
		return
	}
	c := http.NewResponseController(w)
	n, err := h.receive(alive{r.Body, c, k.cfg.Silence}, k.room(h))
	_ = c.SetReadDeadline(time.Time{}) // a connection that cannot have a deadline had none
	s := State{At: h.meta.At, Floor: h.meta.Floor}
	h.mu.Unlock()
	k.m.received.Add(float64(n))
	k.measure()
	if err != nil {
		k.fail(w, err)
		return
	}
	answer(w, s)
}

// alive is a body of which each part must arrive in time: an owner whose machine died
// says nothing any more, not even that.
type alive struct {
	body    io.Reader
	control *http.ResponseController
	silence time.Duration
}

func (a alive) Read(b []byte) (int, error) {
	_ = a.control.SetReadDeadline(time.Now().Add(a.silence))
	return a.body.Read(b)
}

func (k *Keeper) drop(w http.ResponseWriter, key copyKey) {
	h, err := k.take(key, false)
	if h != nil {
		err = k.remove(h, "told")
		h.mu.Unlock()
	}
	k.measure()
	if err != nil {
		k.fail(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (k *Keeper) fail(w http.ResponseWriter, err error) {
	status, reason, tell := http.StatusServiceUnavailable, "other", k.log.Debug // the owner tells why, once
	switch {
	case errors.Is(err, ErrFull), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		status, reason = http.StatusInsufficientStorage, "full"
	case errors.Is(err, errMismatch):
		status, reason = http.StatusConflict, "mismatch"
	case errors.Is(err, errFrame):
		status, reason = http.StatusBadRequest, "broken"
	default: // something is wrong here
		tell = k.log.Warn
	}
	k.m.refused.WithLabelValues(reason).Inc()
	tell("shipment refused", "reason", reason, "err", err)
	http.Error(w, err.Error(), status)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the asker is gone if this fails
}

// Copy is what a follower says of a copy it keeps.
type Copy struct {
	Owner string    `json:"owner"`
	ID    string    `json:"id"`            // of the store
	At    time.Time `json:"at"`            // every line acknowledged before is there
	From  time.Time `json:"from,omitzero"` // older partitions are not there; zero: all are
	Bytes int64     `json:"bytes"`
}

// Copies lists the copies that can be read.
func (k *Keeper) Copies() []Copy {
	out := []Copy{}
	for _, h := range k.all() {
		if c := h.seen.Load(); c != nil && !c.At.IsZero() {
			out = append(out, *c)
		}
	}
	slices.SortFunc(out, func(a, b Copy) int { return strings.Compare(a.Owner+"/"+a.ID, b.Owner+"/"+b.ID) })
	return out
}

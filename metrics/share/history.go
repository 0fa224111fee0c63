package share

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"perch/metrics/stream"
)

// epoch is a time with the same stores: records of the WAL that end behind From
// belong to it.
type epoch struct {
	From   stream.Position `json:"from"`
	Names  []string        `json:"names,omitempty"`  // none: everything is for the server
	Server string          `json:"server,omitempty"` // which of them is the server

	places *Places
}

// gets says whether a store gets a series; self is the server that asks for what
// it made itself, which it keeps.
func (e *epoch) gets(store, self string, l labels.Labels) bool {
	if e.places == nil {
		return store == theServer && self == ""
	}
	if store == theServer {
		store = e.Server
	}
	of := e.places.Of(l)
	switch {
	case self == "":
		return of[0] == store || of[1] == store
	case of[0] == self:
		return of[1] == store
	}
	return of[0] == store
}

// theServer stands for the store of whoever is the server.
const theServer = ""

// remembered is the file of a History.
type remembered struct {
	Epochs []*epoch `json:"epochs"`
	Seen   []Seen   `json:"seen"`
}

// History tells which stores there were when something was written to the WAL, so
// that all forwarders of a node say the same of a record, whenever they reach it.
type History struct {
	file string
	dir  string // of the store whose WAL it is about

	alone *epoch // before there were several stores

	mu    sync.RWMutex // guards what follows
	now   remembered
	saved time.Time
}

// saveSeen is how old the times of stores in the file may be.
const saveSeen = time.Minute

// openHistory reads the file; what it says of a WAL that was replaced is not true
// any more.
func openHistory(file, storeDir string) (*History, error) {
	h := &History{file: file, dir: storeDir, alone: &epoch{}}
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return h, nil
	} else if err != nil {
		return nil, fmt.Errorf("read history of stores: %w", err)
	}
	if err := json.Unmarshal(text, &h.now); err != nil {
		return nil, fmt.Errorf("read history of stores %s: %w: remove it to send everything to the server until the stores are known", file, err)
	}
	_, end, err := stream.End(storeDir)
	if err != nil {
		return nil, err
	}
	for _, e := range h.now.Epochs {
		if end.Before(e.From) {
			e.From = stream.Position{}
		}
		if len(e.Names) > 0 {
			if e.places, err = NewPlaces(e.Names); err != nil {
				return nil, fmt.Errorf("read history of stores %s: %w", file, err)
			}
		}
	}
	return h, nil
}

// at is the epoch of a record that ends at a position; what is older than the
// first was all for the server.
func (h *History) at(p stream.Position) *epoch {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, e := range slices.Backward(h.now.Epochs) {
		if e.From.Before(p) {
			return e
		}
	}
	return h.alone
}

// pick chooses for a store, see epoch.gets.
func (h *History) pick(store, self string) stream.Pick {
	var last *epoch
	var mine map[uint64]bool
	return func(at stream.Position) func(uint64, labels.Labels) bool {
		e := h.at(at)
		if last != e {
			last, mine = e, map[uint64]bool{}
		}
		if e.places == nil {
			return func(_ uint64, l labels.Labels) bool { return e.gets(store, self, l) }
		}
		return func(ref uint64, l labels.Labels) bool {
			yes, known := mine[ref]
			if !known {
				yes = e.gets(store, self, l)
				mine[ref] = yes
			}
			return yes
		}
	}
}

// seen are the stores of now.
func (h *History) seen() []Seen {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.now.Seen
}

// became begins an epoch at the end of the WAL if the names changed, and keeps who
// was seen. first is called before series begin to be shared.
func (h *History) became(seen []Seen, now time.Time, first func() error) (changed bool, _ error) {
	var stores []Store
	server := ""
	for _, s := range seen {
		stores = append(stores, s.Store)
		if s.Server {
			server = s.Name
		}
	}
	e := &epoch{Names: shared(stores), Server: server}
	if len(e.Names) == 0 {
		e.Server = ""
	}
	// No forwarder looks at a record meanwhile, so none has gone beyond the end
	// that is found here with the stores of before.
	h.mu.Lock()
	defer h.mu.Unlock()
	next := remembered{Epochs: slices.Clone(h.now.Epochs), Seen: seen}
	var had []string
	if n := len(next.Epochs); n > 0 {
		had = next.Epochs[n-1].Names
	}
	if changed = !slices.Equal(had, e.Names); changed {
		if len(had) == 0 && first != nil {
			if err := first(); err != nil {
				return false, err
			}
		}
		oldest, end, err := stream.End(h.dir)
		if err != nil {
			return false, err
		}
		if len(e.Names) > 0 {
			if e.places, err = NewPlaces(e.Names); err != nil {
				return false, err
			}
		}
		e.From = end
		next.Epochs = append(next.Epochs, e)
		// Nothing is left of what was written before the second of them.
		for len(next.Epochs) > 1 && next.Epochs[1].From.Before(oldest) {
			next.Epochs = next.Epochs[1:]
		}
	}
	same := slices.EqualFunc(seen, h.now.Seen, func(a, b Seen) bool { return a.Store == b.Store })
	if changed || !same || now.Sub(h.saved) > saveSeen && len(seen) > 0 {
		if err := h.save(next); err != nil {
			return false, err
		}
		h.saved = now
	}
	h.now = next
	return changed, nil
}

// since is where a store began to get samples that it still gets; zero when it
// gets none.
func (h *History) since(name string) (begin stream.Position) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, e := range slices.Backward(h.now.Epochs) {
		if !slices.Contains(e.Names, name) {
			break
		}
		begin = e.From
	}
	return begin
}

// save replaces the file at once or not at all.
func (h *History) save(r remembered) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode history of stores: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(h.file), 0o700); err != nil {
		return fmt.Errorf("write history of stores: %w", err)
	}
	next := h.file + ".next"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return fmt.Errorf("write history of stores: %w", err)
	}
	if err := os.Rename(next, h.file); err != nil {
		return fmt.Errorf("write history of stores: %w", err)
	}
	return nil
}

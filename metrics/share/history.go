package share

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
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
	From  stream.Position `json:"from"`
	Names []string        `json:"names,omitempty"` // none: nobody gets anything

	places *Places
}

// gets answers whether a store gets a series.
func (e *epoch) gets(store string, l labels.Labels) bool {
	return e.places != nil && e.places.Of(l) == store
}

// remembered is the file of a History.
type remembered struct {
	Epochs []*epoch `json:"epochs"`
	Seen   []Seen   `json:"seen"`
	Gap    Gap      `json:"gap"`
}

// History tells which stores there were when something was written to the WAL, so
// that all forwarders say the same of a record, whenever they reach it.
type History struct {
	file string
	dir  string // of the store whose WAL it is about

	alone *epoch // before there were several stores

	mu    sync.RWMutex // guards what follows
	now   remembered
	saved time.Time
}

// sentPrefix begins the files of positions, one for each store.
const sentPrefix = "sent-"

// saveSeen is how old the times of stores in the file may be.
const saveSeen = time.Minute

// openHistory reads the file of dir; lost is what the store has just lost. What is
// remembered of a WAL that was replaced is not true any more, and no position in
// one that was cut: samples that are sent twice do no harm.
func openHistory(dir, storeDir string, lost Gap, log *slog.Logger) (*History, error) {
	h := &History{file: filepath.Join(dir, "stores.json"), dir: storeDir, alone: &epoch{}, now: remembered{Gap: NoGap()}}
	text, err := os.ReadFile(h.file)
	if err == nil {
		err = json.Unmarshal(text, &h.now)
	}
	anew := lost != NoGap()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Warn("history of stores was not readable, begins anew", "file", h.file, "err", err)
		h.now, anew = remembered{Gap: NoGap()}, true
	}
	now := time.Now()
	for i := range h.now.Seen {
		h.now.Seen[i].At = now // while this process was away nobody looked
	}
	if !anew {
		return h, h.check()
	}
	sent, err := filepath.Glob(filepath.Join(dir, sentPrefix+"*"))
	if err != nil {
		return nil, fmt.Errorf("list what was sent: %w", err)
	}
	for _, file := range sent {
		if err := os.Remove(file); err != nil {
			return nil, fmt.Errorf("forget what was sent: %w", err)
		}
	}
	h.now.Gap = h.now.Gap.with(lost)
	if lost.From == math.MinInt64 { // another WAL: positions mean nothing in it
		h.now.Epochs = nil
		if err := os.RemoveAll(dir); err != nil {
			return nil, fmt.Errorf("forget what was sent: %w", err)
		}
	}
	return h, errors.Join(h.check(), h.save(h.now))
}

// check makes what was read usable.
func (h *History) check() error {
	if len(h.now.Epochs) == 0 {
		return nil
	}
	_, end, err := stream.End(h.dir)
	if err != nil {
		return err
	}
	for _, e := range h.now.Epochs {
		if end.Before(e.From) {
			e.From = stream.Position{}
		}
		if len(e.Names) > 0 {
			if e.places, err = NewPlaces(e.Names); err != nil {
				return fmt.Errorf("read history of stores %s: %w", h.file, err)
			}
		}
	}
	return nil
}

// at is the epoch of a record that ends at a position; what is older than the
// first is for nobody.
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

// picked is how many series a pick remembers; when there are more it begins anew.
const picked = 1 << 20

// pick chooses for a store.
func (h *History) pick(store string) stream.Pick {
	var last *epoch
	mine := map[uint64]bool{}
	return func(at stream.Position) func(uint64, labels.Labels) bool {
		e := h.at(at)
		if last != e || len(mine) > picked {
			last = e
			clear(mine)
		}
		return func(ref uint64, l labels.Labels) bool {
			yes, known := mine[ref]
			if !known {
				yes = e.gets(store, l)
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

// gap is what the server's store lacks.
func (h *History) gap() Gap {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.now.Gap
}

// became begins an epoch at the end of the WAL if the names changed, and keeps who
// was seen and what gap is left. The first stores ever get what the WAL has.
func (h *History) became(seen []Seen, gap Gap, now time.Time) (changed bool, _ error) {
	e := &epoch{Names: namesOf(seen)}
	// No forwarder looks at a record meanwhile, so none has gone beyond the end
	// that is found here with the stores of before.
	h.mu.Lock()
	defer h.mu.Unlock()
	next := remembered{Epochs: slices.Clone(h.now.Epochs), Seen: seen, Gap: gap}
	var had []string
	if n := len(next.Epochs); n > 0 {
		had = next.Epochs[n-1].Names
	}
	if changed = !slices.Equal(had, e.Names); changed {
		oldest, end, err := stream.End(h.dir)
		if err != nil {
			return false, err
		}
		if len(e.Names) > 0 {
			if e.places, err = NewPlaces(e.Names); err != nil {
				return false, err
			}
		}
		if len(next.Epochs) > 0 {
			e.From = end
		}
		next.Epochs = append(next.Epochs, e)
		// Nothing is left of what was written before the second of them.
		for len(next.Epochs) > 1 && next.Epochs[1].From.Before(oldest) {
			next.Epochs = next.Epochs[1:]
		}
	}
	same := slices.EqualFunc(seen, h.now.Seen, func(a, b Seen) bool { return a.Store == b.Store })
	if changed || !same || gap != h.now.Gap || now.Sub(h.saved) > saveSeen && len(seen) > 0 {
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
	f, err := os.OpenFile(next, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write history of stores: %w", err)
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil { // else a power loss leaves an empty file
		return fmt.Errorf("write history of stores: %w", err)
	}
	if err := os.Rename(next, h.file); err != nil {
		return fmt.Errorf("write history of stores: %w", err)
	}
	return nil
}

package cluster

import (
	"time"

	"perch/logs/query"
)

// heard is what a tail has of a node, to go on from when that was away. Lines of
// several streams are not stored in the order of their times, and clocks may be wrong.
type heard struct {
	last   query.Cursor
	at     int64 // when it came, ns
	recent []query.Cursor
	gone   int64 // the newest time of a line that is in recent no more
}

const (
	// overlap is how far a tail goes back behind the last line.
	overlap = 2 * time.Second
	// mostHeard lines are known again at most.
	mostHeard = 4096
)

// hear notes a line that is shown. Called with mu held.
func (t *tail) hear(node string, c query.Cursor) {
	h := t.heard[node]
	if h == nil {
		h = &heard{gone: -1 << 63}
		t.heard[node] = h
	}
	h.last, h.at = c, time.Now().UnixNano()
	if len(h.recent) == mostHeard {
		half := h.recent[:mostHeard/2]
		for _, c := range half {
			h.gone = max(h.gone, c.Time)
		}
		h.recent = h.recent[:copy(h.recent, h.recent[len(half):])]
	}
	h.recent = append(h.recent, c)
}

// goOn is where to go on, and which lines after that were shown.
func (h *heard) goOn() (*query.Cursor, map[query.Cursor]bool) {
	from := min(h.last.Time, h.at) - int64(overlap)
	if h.gone >= from {
		if h.gone >= h.last.Time {
			return &query.Cursor{Time: h.last.Time, Hash: h.last.Hash, Number: h.last.Number}, nil
		}
		from = h.gone + 1
	}
	shown := map[query.Cursor]bool{}
	for _, c := range h.recent {
		if c.Time >= from {
			shown[c] = true
		}
	}
	return &query.Cursor{Time: from}, shown
}

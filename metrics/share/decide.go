package share

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Store is one of the further stores.
type Store struct {
	Name string `json:"name"` // of its node
	Addr string `json:"addr"` // host:port of its agent's door
}

// Seen is a store and when it was last there.
type Seen struct {
	Store
	At time.Time `json:"at"`
}

// Decide says which stores have a place: those that are there now, and those that
// were and have not been away for longer than forget. The reason is empty when
// nothing but addresses and times changed.
func Decide(have []Seen, there []Store, now time.Time, forget time.Duration) (want []Seen, reason string) {
	var reasons []string
	for _, s := range there {
		want = append(want, Seen{s, now})
		if !slices.ContainsFunc(have, func(h Seen) bool { return h.Name == s.Name }) {
			reasons = append(reasons, s.Name+" is new")
		}
	}
	for _, h := range have {
		switch {
		case slices.ContainsFunc(there, func(s Store) bool { return h.Name == s.Name }):
		case now.Sub(h.At) <= forget:
			want = append(want, h)
		default:
			reasons = append(reasons, fmt.Sprintf("%s was not there for %s", h.Name, now.Sub(h.At).Round(time.Second)))
		}
	}
	slices.SortFunc(want, func(a, b Seen) int { return strings.Compare(a.Name, b.Name) })
	return want, strings.Join(reasons, ", ")
}

func namesOf(stores []Seen) (out []string) {
	for _, s := range stores {
		out = append(out, s.Name)
	}
	return out
}

// Gap is a time of which the server's own store may lack what copies have, in ms
// and inclusive. From is after To when there is none.
type Gap struct {
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

// NoGap is the gap of a store that lost nothing.
func NoGap() Gap { return Gap{math.MaxInt64, math.MinInt64} }

// backlog is how much older than its commit a sample may be: so much before the
// newest sample of a store may be missing too, when the end of its WAL is.
const backlog = 70 * time.Minute

// GapOf is what a store lacks that was just opened: everything when it is empty,
// the end when its WAL was damaged. newest is its newest sample, math.MinInt64
// when it has none.
func GapOf(newest int64, repaired bool, now time.Time) Gap {
	switch {
	case newest == math.MinInt64:
		return Gap{math.MinInt64, now.UnixMilli()}
	case repaired:
		return Gap{newest - backlog.Milliseconds(), now.UnixMilli()}
	}
	return NoGap()
}

// with is the shortest gap that has both.
func (g Gap) with(other Gap) Gap { return Gap{min(g.From, other.From), max(g.To, other.To)} }

// left is what of the gap may still be somewhere: no store keeps what is older than
// retention. The reason is empty when nothing changed.
func (g Gap) left(now time.Time, retention time.Duration) (Gap, string) {
	if oldest := now.Add(-retention); g != NoGap() && g.To < oldest.UnixMilli() {
		return NoGap(), fmt.Sprintf("no store keeps samples of before %s", oldest.UTC().Format(time.RFC3339))
	}
	return g, ""
}

// within is the part of a time that is in the gap.
func (g Gap) within(mint, maxt int64) (from, to int64, some bool) {
	from, to = max(g.From, mint), min(g.To, maxt)
	return from, to, from <= to
}

// View is what is known of a further store at a moment.
type View struct {
	Away   bool  // it does not answer
	Known  bool  // it has answered since this process began
	Oldest int64 // ms, of its oldest sample
}

// has answers whether a store may have something of up to a time.
func (v View) has(to int64) bool { return !v.Known || v.Oldest <= to }

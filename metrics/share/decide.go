package share

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Store is one of the stores that share the series.
type Store struct {
	Name   string `json:"name"`             // of its node
	Addr   string `json:"addr"`             // host:port of its agent's door
	Server bool   `json:"server,omitempty"` // it is the one that is asked
}

// Seen is a store and when it was last there.
type Seen struct {
	Store
	At time.Time `json:"at"`
}

// Decide says which stores share the series: those that are there now, and those
// that were and have not been away for longer than forget; the server as long as
// there is no other. The reason is empty when nothing but addresses and times
// changed.
func Decide(have []Seen, there []Store, now time.Time, forget time.Duration) (want []Seen, reason string) {
	var reasons []string
	server := slices.ContainsFunc(there, func(s Store) bool { return s.Server })
	for _, s := range there {
		want = append(want, Seen{s, now})
		if !slices.ContainsFunc(have, func(h Seen) bool { return h.Name == s.Name }) {
			reasons = append(reasons, s.Name+" is new")
		}
	}
	for _, h := range have {
		switch {
		case slices.ContainsFunc(there, func(s Store) bool { return h.Name == s.Name }):
		case h.Server && !server, now.Sub(h.At) <= forget:
			want = append(want, h)
		default:
			reasons = append(reasons, fmt.Sprintf("%s was not there for %s", h.Name, now.Sub(h.At).Round(time.Second)))
		}
	}
	slices.SortFunc(want, func(a, b Seen) int { return strings.Compare(a.Name, b.Name) })
	return want, strings.Join(reasons, ", ")
}

// shared are the names over which series are spread; none when there are not two,
// or none is the server.
func shared(stores []Store) []string {
	if len(stores) < Replication || !slices.ContainsFunc(stores, func(s Store) bool { return s.Server }) {
		return nil
	}
	var names []string
	for _, s := range stores {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	return names
}

// View is what is known of one store at a moment.
type View struct {
	Name string
	Away bool // it does not answer
	// Newest is of when the newest sample is that it has of each node.
	Newest map[string]time.Time
}

// Incomplete names, sorted, the nodes of want whose newest samples may be in no
// store that answers: so many are away, or have less than patience of it, that
// both places of a series can be among them.
func Incomplete(stores []View, want []string, now time.Time, patience time.Duration) []string {
	var out []string
	for _, n := range want {
		bad := 0
		for _, s := range stores {
			if s.Away || now.Sub(s.Newest[n]) > patience {
				bad++
			}
		}
		if bad >= Replication {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

package store

import (
	"cmp"
	"slices"
	"time"
)

// Use is what the store holds and by which rules it lets go of it.
type Use struct {
	Oldest     time.Time      `json:"oldest"` // of the blocks' lines; zero if there are none
	Bytes      int64          `json:"bytes"`  // on disk, with indexes and the write-ahead log
	Age        time.Duration  `json:"age"`    // 0: for ever
	MaxBytes   int64          `json:"maxBytes"`
	Namespaces []NamespaceUse `json:"namespaces"`
}

// NamespaceUse is the part of one namespace; bytes are those of its blocks.
type NamespaceUse struct {
	Name      string    `json:"name"`
	Oldest    time.Time `json:"oldest"`
	Bytes     int64     `json:"bytes"`
	Retention Retention `json:"retention"` // of its own; zero: as all
}

// Use looks at every block's head: it is for people, not for loops.
func (s *Store) Use() Use {
	by := s.cfg.policy()
	out := Use{Age: by.age, MaxBytes: by.bytes, Bytes: s.wal.Bytes()}
	parts := map[string]*NamespaceUse{}
	for name, r := range by.namespaces {
		parts[name] = &NamespaceUse{Name: name, Retention: r}
	}
	s.mu.RLock()
	all := s.parts
	s.mu.RUnlock()
	for _, p := range all { // looks at the disk: lines must not wait for that
		out.Bytes += p.bytes()
	}
	for _, p := range all {
		for name, have := range s.namespaces(p) {
			n := parts[name]
			if n == nil {
				n = &NamespaceUse{Name: name}
				parts[name] = n
			}
			n.Bytes += have.bytes
			at := time.Unix(0, have.oldest)
			if n.Oldest.IsZero() || at.Before(n.Oldest) {
				n.Oldest = at
			}
			if out.Oldest.IsZero() || at.Before(out.Oldest) {
				out.Oldest = at
			}
		}
	}
	for _, n := range parts {
		out.Namespaces = append(out.Namespaces, *n)
	}
	slices.SortFunc(out.Namespaces, func(a, b NamespaceUse) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Name, b.Name))
	})
	return out
}

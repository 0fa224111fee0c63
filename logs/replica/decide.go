package replica

import (
	"slices"
	"time"

	"perch/logs/store"
)

// Member is a node that can follow.
type Member struct {
	Node string
	URL  string // of its agent's door
}

// placement is where the copy is, and where it is being brought up.
type placement struct {
	at   *Member // has been complete; nil: nowhere yet
	next *Member // comes in its place
}

// decidePlace says where the copy belongs. want are the healthy nodes in the
// ring's order; first has stood at its head since. A follower that is not
// healthy is replaced at once, one that only is not the first any more after
// settle, since a node that restarts comes back.
func decidePlace(now time.Time, have placement, want []Member, since time.Time, settle time.Duration) (placement, string) {
	if len(want) == 0 {
		return have, "no other node is healthy"
	}
	first := want[0]
	healthy := func(m *Member) bool { return m != nil && slices.Contains(want, *m) }
	out := have
	if !healthy(out.next) {
		out.next = nil
	}
	switch {
	case have.at != nil && *have.at == first:
		out.next = nil
		return out, "it is where the ring says"
	case out.next != nil && *out.next == first:
		return out, "it comes to where the ring says"
	case healthy(have.at) && now.Sub(since) < settle:
		return out, "the ring has changed just now"
	case out.next != nil && now.Sub(since) < settle:
		return out, "the ring has changed just now"
	}
	out.next = &first
	if healthy(have.at) {
		return out, "the ring names another follower"
	}
	return out, "there is no healthy follower"
}

// sore is what the owner remembers of a node that the ring calls healthy and that
// takes nothing: its disk is full, or its door cannot be reached.
type sore struct {
	since time.Time // it has failed; zero: it has not
	until time.Time // it is passed over
}

// passOver is how many times settle a node that refused is passed over.
const passOver = 10

// after remembers how it went.
func (x sore) after(now time.Time, failed bool, settle time.Duration) sore {
	switch {
	case !failed:
		return sore{}
	case x.since.IsZero():
		x.since = now
	case now.Sub(x.since) >= settle:
		return sore{until: now.Add(passOver * settle)}
	}
	return x
}

// able leaves out nodes that are passed over, unless there are no others.
func able(now time.Time, members []Member, known map[string]sore) []Member {
	out := slices.DeleteFunc(slices.Clone(members), func(m Member) bool { return now.Before(known[m.Node].until) })
	if len(out) == 0 {
		return members
	}
	return out
}

// send is a part of a file to be sent.
type send struct {
	file store.File
	from int64
}

// plan is one shipment: log, then mark, then parts, then a commit, then older
// partitions. Or, when parts of the write-ahead log were never sent and are
// gone, parts before log.
type plan struct {
	log, parts, older []send
	logFirst          bool
	commit            bool
	files, coming     []store.File // of the commit
	from              string       // as in commit
	whole             bool         // after it nothing is left to be sent
	pending           int64        // bytes that are not there before it
}

// fileKey is one content.
type fileKey struct{ path, version string }

func keyFor(f store.File) fileKey { return fileKey{f.Path, f.Version} }

// known is what the owner knows of a copy.
type known struct {
	have      map[fileKey]int64 // bytes that are there; nil: to be asked
	committed bool              // it can be read
	seen      []store.File      // of the last commit
	from      string            // of the last commit
	floor     string
}

// decideShipment plans what to send of files. Bytes of partitions are limited by
// budget. What a reader has, it keeps: the first commit has the two newest
// partitions, a later one all from the oldest of the one before on. Older ones
// follow, the newest first.
func decideShipment(files store.Files, k known, budget int64) plan {
	p := plan{logFirst: true}
	missing := func(f store.File) int64 { return f.Size - min(k.have[keyFor(f)], f.Size) }
	lastLog := ""
	for _, f := range k.seen {
		if partOf(f.Path) == "" {
			lastLog = max(lastLog, f.Path)
		}
	}
	for f := range k.have {
		if partOf(f.path) == "" {
			lastLog = max(lastLog, f.path)
		}
	}
	if len(k.seen) > 0 && lastLog != "" {
		p.logFirst = slices.ContainsFunc(files.Segments, func(f store.File) bool { return f.Path == lastLog })
	}
	for _, f := range files.Segments {
		p.files = append(p.files, f)
		if n := missing(f); n > 0 {
			p.log = append(p.log, send{f, k.have[keyFor(f)]})
			p.pending += n
		}
	}
	parts := slices.DeleteFunc(slices.Clone(files.Parts), func(x store.Part) bool { return x.Name <= k.floor })
	needed := max(0, len(parts)-2)
	for needed > 0 && k.committed && parts[needed-1].Name >= k.from {
		needed--
	}
	left := budget
	// take plans a partition's files; it tells whether all are there then.
	take := func(x store.Part) (sends []send, all bool) {
		all = true
		for _, f := range x.Files {
			n := missing(f)
			p.pending += n
			if n == 0 {
				continue
			}
			from := k.have[keyFor(f)]
			if n > left {
				f.Size, all = from+left, false
			}
			if f.Size > from {
				sends = append(sends, send{f, from})
				left -= f.Size - from
			}
		}
		return sends, all
	}
	p.commit, p.whole = true, true
	for _, x := range parts[needed:] {
		sends, all := take(x)
		p.parts = append(p.parts, sends...)
		if all {
			p.files = append(p.files, x.Files...)
			continue
		}
		p.whole = false
		p.coming = append(p.coming, x.Files...)
		if old := sameLines(k.seen, x); old != nil {
			p.files = append(p.files, old...)
		} else {
			p.commit = false
		}
	}
	for i, x := range slices.Backward(parts[:needed]) {
		sends, all := take(x)
		p.older = append(p.older, sends...)
		// A partition is committed by the shipment after the one that ends it.
		if all && len(sends) == 0 && i == needed-1 && p.commit {
			p.files = append(p.files, x.Files...)
			needed--
			continue
		}
		p.whole = false
		p.coming = append(p.coming, x.Files...)
	}
	if needed > 0 {
		p.from = parts[needed].Name
	} else if len(files.Parts) > len(parts) && len(parts) > 0 {
		p.from = parts[0].Name
	}
	return p
}

// sameLines are the files of a closed partition that a reader has in an earlier
// form.
func sameLines(seen []store.File, x store.Part) (old []store.File) {
	for _, f := range seen {
		if partOf(f.Path) == x.Name {
			old = append(old, f)
		}
	}
	if len(old) == 0 || len(x.Files) == 0 || x.Files[0].Version == old[0].Version {
		return nil // it only grew: what is new counts
	}
	return old
}

// use is what room looks at of a copy.
type use struct {
	of    *held
	bytes int64
	parts map[string]int64 // nil: nothing can be dropped now
}

// victim is a partition to drop with all that are older in its copy; none when
// part is empty.
type victim struct {
	of   *held
	part string
}

// decideRoom names what to drop so that n more bytes fit into limit. It is the
// oldest partition of all copies; the two newest of each copy stay. false: there
// is nothing.
func decideRoom(uses []use, n, limit int64) (victim, bool) {
	var total int64
	var v victim
	for _, u := range uses {
		total += u.bytes
		names := make([]string, 0, len(u.parts))
		for name := range u.parts {
			names = append(names, name)
		}
		slices.Sort(names)
		if len(names) > 2 && (v.part == "" || names[0] < v.part) {
			v = victim{u.of, names[0]}
		}
	}
	if total+n <= limit {
		return victim{}, true
	}
	return v, v.part != ""
}

// Copies of owners that do not come any more.
const (
	neverBegun = 24 * time.Hour // until a copy that cannot be read goes
	goneAfter  = time.Hour      // an owner that was silent so long does not shorten its copy itself
)

// decideAge says whether a copy is too old as a whole, and why; or else up to
// which partition.
func decideAge(now time.Time, m meta) (reason, upto string) {
	switch {
	case !m.Committed && now.Sub(m.Touched) > neverBegun:
		return "incomplete", ""
	case !m.Committed || m.Keep <= 0 || now.Sub(m.At) < goneAfter:
		return "", ""
	case now.Sub(m.At) > m.Keep:
		return "age", ""
	}
	names := map[string]bool{}
	for p := range m.Versions {
		if part := partOf(p); part != "" {
			names[part] = true
		}
	}
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	for i := 1; i < len(sorted); i++ { // a partition ends where the next begins
		if end, err := store.PartStart(sorted[i]); err == nil && now.Sub(end) > m.Keep {
			upto = sorted[i-1]
		}
	}
	return "", upto
}

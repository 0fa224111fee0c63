package query

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"perch/logs/block"
	"perch/logs/index"
	"perch/logs/store"
)

// Limits of looking back for when patterns were first seen. Beyond them the answer
// says that there may be earlier lines.
const (
	seenPatterns = 500 // of one answer, the most frequent
	seenTimeout  = 2 * time.Second
	seenBytes    = 1 << 30 // unpacked on each node
	seenIndexed  = 64      // patterns whose words the index is asked for
	seenWords    = 4       // of a pattern, the longest
)

// Seen tells of the first line of a pattern in all that is stored.
type Seen struct {
	Time         time.Time `json:"time"`
	ID           string    `json:"id"`
	Namespace    string    `json:"namespace"`
	Pod          string    `json:"pod"`
	Container    string    `json:"container"`
	Instance     string    `json:"instance"`
	MaybeEarlier bool      `json:"maybe_earlier,omitempty"` // not all that is older was looked at
}

// tellSeen adds to patterns when they were first seen, whatever the time asked for,
// and by which image. The rest of the query counts.
func tellSeen(ctx context.Context, s Searcher, r Request, p *Patterns) {
	some := p.Patterns[:min(len(p.Patterns), seenPatterns)]
	if len(some) == 0 {
		return
	}
	older := map[string]Pattern{}
	whole := !p.Partial
	looked := time.Time{}
	if r.From > minTime {
		back := r
		back.From, back.To, back.Step, back.Buckets = minTime, r.From-1, 0, 1
		back.Timeout, back.MaxBytes, back.Limit, back.First = min(r.Timeout, seenTimeout), seenBytes, seenPatterns, nil
		for _, x := range some {
			back.First = append(back.First, x.Pattern)
		}
		got, err := s.Patterns(ctx, back)
		for _, x := range got.Patterns {
			older[x.Pattern] = x
		}
		whole, looked = whole && err == nil && !got.Partial, got.Looked
	}
	for i := range some {
		x := &some[i]
		from := x
		if o, ok := older[x.Pattern]; ok {
			from = &o
		}
		x.Seen = &Seen{Time: from.First, ID: from.ID, Namespace: from.Namespace, Pod: from.Pod, Container: from.Container, Instance: from.Instance,
			MaybeEarlier: !whole || !looked.IsZero() && !from.First.Before(looked)}
	}
	tellImages(ctx, s, r, some)
}

// tellImages adds the image of the container that wrote the first line, as far as
// there is time.
func tellImages(ctx context.Context, s Searcher, r Request, of []Pattern) {
	ctx, cancel := context.WithTimeout(ctx, seenTimeout)
	defer cancel()
	type container struct{ namespace, pod, container, instance string }
	type answer struct {
		image string
		known bool
	}
	images := map[container]answer{}
	for i := range of {
		first := of[i].Seen
		c := container{first.Namespace, first.Pod, first.Container, first.Instance}
		a, asked := images[c]
		switch {
		case asked:
		case c.pod == "": // no container wrote it
			a.known = true
		case len(images) < imageLookups:
			a.image, a.known = imageOf(ctx, s, r, first)
			images[c] = a
		}
		of[i].Image, of[i].Unsought = a.image, !a.known
	}
}

// sought is a pattern of which an earlier line is looked for.
type sought struct {
	text  string
	need  index.Need
	found bool
	first Cursor
	p     Pattern // of the first line found
}

// opened tells whether a line at a time or later could be the first one.
func (x *sought) opened(at int64) bool { return !x.found || x.first.Time >= at }

// seek is one look back.
type seek struct {
	*search
	by   map[string]*sought
	done map[[2]uint64]bool // pieces, by stream and first number
	lost int64              // time of the oldest line that could not be read
}

// firsts finds the first lines of the patterns of r.First, oldest pieces first. Of
// blocks with templates that do not have one only the templates are read.
func (e *Engine) firsts(ctx context.Context, r Request) (Patterns, error) {
	s, end, err := e.begin(ctx, &r)
	if err != nil {
		return Patterns{}, err
	}
	defer end()
	k := seek{search: s, by: map[string]*sought{}, done: map[[2]uint64]bool{}, lost: maxTime}
	var open []*sought
	for _, text := range r.First {
		if k.by[text] == nil {
			k.by[text] = &sought{text: text, need: patternNeed(text)}
			open = append(open, k.by[text])
		}
	}
	left := k.all(open)
	out := Patterns{From: time.Unix(0, r.From).UTC(), To: time.Unix(0, r.To).UTC(), Patterns: []Pattern{}}
	for _, x := range k.by {
		if x.found {
			out.Patterns = append(out.Patterns, x.p)
		}
	}
	slices.SortFunc(out.Patterns, func(a, b Pattern) int { return cmp.Compare(a.Pattern, b.Pattern) })
	if left = min(left, k.lost); left < maxTime {
		out.Looked = time.Unix(0, max(left, minTime+1)).UTC()
	}
	out.Summary = s.summary()
	out.Partial, out.Reason = false, "" // Looked tells
	return out, nil
}

// all looks until the first lines are known, and returns the time from which on not
// all was looked at.
func (k *seek) all(open []*sought) int64 {
	for len(open) > 0 {
		need, wordless := index.Need{}, 0
		for _, x := range open {
			if x.need.Op == index.Any {
				wordless++
			}
		}
		if len(open) <= seenIndexed && wordless == 0 {
			needs := make([]index.Need, len(open))
			for i, x := range open {
				needs[i] = x.need
			}
			need = index.One(needs...)
		}
		pieces := k.choose(k.r.From, k.r.To, k.want, index.All(k.root.need(), need))
		if k.view.Lost() != nil {
			k.lost = minTime
		}
		pieces = slices.DeleteFunc(pieces, func(p store.Piece) bool { return k.done[[2]uint64{p.Hash, p.First}] })
		store.Sort(pieces, false)
		k.each(pieces, func(p *store.Piece) bool { // with fewer patterns the index has fewer pieces
			still, rest := 0, 0
			for _, x := range open {
				if x.opened(p.Sooner()) {
					still++
					if x.need.Op == index.Any {
						rest++
					}
				}
			}
			return still == 0 || len(open) > 8 && still <= len(open)/2 || wordless > 0 && rest == 0
		}, k.one)
		left := int64(maxTime)
		for i := range pieces {
			if p := &pieces[i]; !k.done[[2]uint64{p.Hash, p.First}] {
				left = min(left, p.Min)
			}
		}
		open = slices.DeleteFunc(open, func(x *sought) bool { return left == maxTime || !x.opened(left) })
		k.mu.Lock()
		due := k.due()
		k.mu.Unlock()
		if due && len(open) > 0 {
			return left
		}
	}
	return maxTime
}

// one looks at a piece.
func (k *seek) one(w *worker, p *store.Piece) {
	own, err := w.seek(p, k)
	if err != nil && w.bad == nil {
		w.failed(err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil && k.ctx.Err() != nil {
		return
	}
	k.done[[2]uint64{p.Hash, p.First}] = true
	if err != nil {
		k.lost = min(k.lost, p.Min)
	}
	for text, x := range own {
		if s := k.by[text]; s != nil && (!s.found || x.first.compare(s.first) < 0) {
			s.found, s.first, s.p = true, x.first, x.pattern(text)
		}
	}
}

// seek finds the first lines of the patterns in a piece, if it has one that is asked
// for.
func (w *worker) seek(p *store.Piece, k *seek) (map[string]*seen, error) {
	if p.Templated() {
		w.turn(p)
		w.used = true
		t, err := w.asked.parts.Templates()
		if err != nil || !k.among(t, p.Min) {
			return nil, err
		}
	}
	own := map[string]*seen{}
	err := w.patterns(p, own, func(int64) int64 { return 0 }, 1)
	return own, cmp.Or(err, w.bad)
}

// among tells whether one of the templates has a pattern whose first line may be at a
// time or later.
func (k *seek) among(t *block.Templates, at int64) bool {
	var buf []byte
	for i := range t.Len() {
		buf = appendPattern(buf[:0], t.Of(i))
		if x := k.by[string(buf)]; x != nil {
			k.mu.Lock()
			opened := x.opened(at)
			k.mu.Unlock()
			if opened {
				return true
			}
		}
	}
	return false
}

// patternNeed is what a block must have that has a line of the pattern: its longest
// words. It leaves out what is no text and a word that may be cut off.
func patternNeed(pattern string) index.Need {
	if len(pattern) >= patternBytes-utf8.UTFMax || strings.ContainsRune(pattern, utf8.RuneError) {
		pattern = strings.TrimRightFunc(pattern, func(r rune) bool { return r >= 0x80 || wordByte(byte(r)) })
	}
	var words []string
	for _, part := range strings.Split(pattern, Variable) {
		index.Words(part, func(word string) {
			if !strings.ContainsRune(word, utf8.RuneError) {
				words = append(words, word)
			}
		})
	}
	slices.SortStableFunc(words, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	var needs []index.Need
	for _, word := range words[:min(len(words), seenWords)] {
		needs = append(needs, index.Need{Op: index.Word, Text: word})
	}
	return index.All(needs...)
}

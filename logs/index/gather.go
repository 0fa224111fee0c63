package index

import "slices"

// gathered are the distinct words of one block.
type gathered struct {
	text   []byte   // words, and idKey with letters before a digit, one after the other
	ends   []uint32 // of each in text
	hashes []uint64 // of each
	ids    []uint64 // hashes of tokens with digits
}

func (g *gathered) len() int { return len(g.ends) }

func (g *gathered) word(i int) []byte {
	start := uint32(0)
	if i > 0 {
		start = g.ends[i-1]
	}
	return g.text[start:g.ends[i]]
}

func (g *gathered) bytes() int { return len(g.text) + 4*len(g.ends) + 8*len(g.hashes) + 8*len(g.ids) }

func (g *gathered) clone() gathered {
	return gathered{slices.Clone(g.text), slices.Clone(g.ends), slices.Clone(g.hashes), slices.Clone(g.ids)}
}

// gatherer collects the distinct words of one block after the other. It is used
// by one goroutine.
type gatherer struct {
	gathered
	class [256]byte
	fold  [256]byte
	seen  []uint64 // open addressing by hash; 0 is free
	count int      // of seen
}

const (
	wordClass  = 1
	digitClass = 2
	upperClass = 4

	firstSeen = 1 << 13
	mostSeen  = 1 << 17
)

func newGatherer() *gatherer {
	g := &gatherer{seen: make([]uint64, firstSeen)}
	for i := range g.fold {
		c := byte(i)
		if g.fold[i] = Fold(c); g.fold[i] == 0 {
			continue
		}
		g.class[i] = wordClass
		switch {
		case c >= '0' && c <= '9':
			g.class[i] |= digitClass
		case c >= 'A' && c <= 'Z':
			g.class[i] |= upperClass
		}
	}
	return g
}

func (g *gatherer) start() {
	clear(g.seen)
	g.count = 0
	g.gathered = gathered{g.text[:0], g.ends[:0], g.hashes[:0], g.ids[:0]}
}

// fresh tells whether h is new. A table that cannot grow any more answers yes:
// duplicates are harmless.
func (g *gatherer) fresh(h uint64) bool {
	if g.count >= len(g.seen)*3/4 {
		if len(g.seen) >= mostSeen {
			return true
		}
		old := g.seen
		g.seen, g.count = make([]uint64, 4*len(old)), 0
		for _, h := range old {
			if h != 0 {
				g.fresh(h)
			}
		}
	}
	mask := uint64(len(g.seen) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		switch g.seen[i] {
		case 0:
			g.seen[i] = h
			g.count++
			return true
		case h:
			return false
		}
	}
}

// add takes the words of text.
func (g *gatherer) add(text []byte) {
	var room [maxWord + 1]byte
	for i := 0; i < len(text); {
		class := g.class[text[i]]
		if class == 0 {
			i++
			continue
		}
		start := i
		for i++; i < len(text); i++ {
			c := g.class[text[i]]
			if c == 0 {
				break
			}
			class |= c
		}
		word := text[start:i]
		if len(word) > maxWord {
			word, class = word[:maxWord], 0
			for _, c := range word {
				class |= g.class[c]
			}
		}
		if class&upperClass != 0 {
			folded := room[1 : 1+len(word)]
			for k, c := range word {
				folded[k] = g.fold[c]
			}
			word = folded
		}
		h := hashBytes(word)
		if !g.fresh(h) {
			continue
		}
		if class&digitClass == 0 || len(word) < 3 {
			g.keep(word, h)
			continue
		}
		g.ids = append(g.ids, h)
		k := 0
		for g.class[word[k]]&digitClass == 0 {
			k++
		}
		if k >= 2 {
			key := append(append(room[:0], idKey...), word[:k]...)
			if h := hashBytes(key); g.fresh(h) {
				g.keep(key, h)
			}
		}
	}
}

func (g *gatherer) keep(word []byte, h uint64) {
	g.text = append(g.text, word...)
	g.ends = append(g.ends, uint32(len(g.text)))
	g.hashes = append(g.hashes, h)
}

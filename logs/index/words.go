package index

import (
	"github.com/cespare/xxhash/v2"
)

// A word is a run of ASCII letters, digits, '_' and bytes from 0x80. ASCII
// letters fold case; everything else separates.

// Fold returns the folded byte, or 0 for a separator.
func Fold(c byte) byte {
	switch {
	case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_', c >= 0x80:
		return c
	case c >= 'A' && c <= 'Z':
		return c + ('a' - 'A')
	}
	return 0
}

// Words calls fn for each word of text in order, folded.
func Words(text string, fn func(word string)) {
	var word []byte
	for i := 0; i <= len(text); i++ {
		c := byte(0)
		if i < len(text) {
			c = Fold(text[i])
		}
		if c != 0 {
			word = append(word, c)
		} else if len(word) > 0 {
			fn(string(word))
			word = word[:0]
		}
	}
}

const (
	maxWord    = 64     // longer words are known by their first bytes
	helperKey  = "\x04" // + first 3 bytes of a word that is not a Bleve term
	idKey      = "\x02" // + letters before the first digit of a token
	helperSize = 3
	// Of a block of random words nearly every helper would be a term; it has
	// this one instead, and is read for any prefix.
	maxHelpers = 1024
	anyHelper  = "*"
)

func hash(word string) uint64 { return xxhash.Sum64String(word) }

// HasDigit tells whether a word is kept in filters rather than as a term.
func isID(word string) bool {
	if len(word) < 3 {
		return false
	}
	for i := 0; i < len(word); i++ {
		if word[i] >= '0' && word[i] <= '9' {
			return true
		}
	}
	return false
}

func alphaPrefix(word string) string {
	for i := 0; i < len(word); i++ {
		if word[i] >= '0' && word[i] <= '9' {
			return word[:i]
		}
	}
	return word
}

func clip(word string) string {
	if len(word) > maxWord {
		return word[:maxWord]
	}
	return word
}

// gatherer collects the distinct words of one block. It is used again and
// again by one goroutine.
type gatherer struct {
	fold  [256]byte
	digit [256]bool
	seen  []uint64 // open addressing by hash
	gen   []uint32
	turn  uint32
	words []string // distinct words without digits (and short ones with)
	ids   []uint64 // hashes of distinct tokens with digits
	arena []byte
}

const seenSize = 1 << 16

func newGatherer() *gatherer {
	g := &gatherer{seen: make([]uint64, seenSize), gen: make([]uint32, seenSize)}
	for i := range g.fold {
		g.fold[i] = Fold(byte(i))
		g.digit[i] = i >= '0' && i <= '9'
	}
	return g
}

func (g *gatherer) start() {
	g.turn++
	g.words, g.ids, g.arena = g.words[:0], g.ids[:0], make([]byte, 0, 16<<10)
}

// fresh tells whether h is new. A full table answers yes: duplicates are
// harmless, endless probing is not.
func (g *gatherer) fresh(h uint64) bool {
	i := h >> 48
	for range 256 {
		if g.gen[i] != g.turn {
			g.gen[i], g.seen[i] = g.turn, h
			return true
		}
		if g.seen[i] == h {
			return false
		}
		i = (i + 1) & (seenSize - 1)
	}
	return true
}

func (g *gatherer) keep(word []byte) string {
	if cap(g.arena)-len(g.arena) < len(word) {
		g.arena = make([]byte, 0, 16<<10)
	}
	at := len(g.arena)
	g.arena = append(g.arena, word...)
	return bytesString(g.arena[at:])
}

// add takes the words of text.
func (g *gatherer) add(text []byte) {
	var word [maxWord]byte
	for i := 0; i < len(text); {
		for i < len(text) && g.fold[text[i]] == 0 {
			i++
		}
		n := 0
		id := false
		for i < len(text) {
			c := g.fold[text[i]]
			if c == 0 {
				break
			}
			if n < maxWord {
				word[n] = c
				n++
				id = id || g.digit[c]
			}
			i++
		}
		if n == 0 {
			continue
		}
		h := xxhash.Sum64(word[:n])
		if !g.fresh(h) {
			continue
		}
		if !id || n < 3 {
			g.words = append(g.words, g.keep(word[:n]))
			continue
		}
		g.ids = append(g.ids, h)
		k := 0
		for !g.digit[word[k]] {
			k++
		}
		if k >= 2 {
			var key [maxWord + 1]byte
			b := append(append(key[:0], idKey...), word[:k]...)
			if g.fresh(xxhash.Sum64(b)) {
				g.words = append(g.words, g.keep(b))
			}
		}
	}
}

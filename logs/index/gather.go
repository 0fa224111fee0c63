package index

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"slices"

	"perch/logs/block"
)

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
	fold  [256]byte
	short [shortWord + 1][2]uint64 // by length: so many bytes of two numbers
	seen  []uint64                 // open addressing; 0 is free
	count int                      // of seen
	keys  [2]uint64                // nobody knows them, or a word could be written that hides another
}

const (
	firstSeen = 1 << 13
	mostSeen  = 1 << 17

	// shortWord bytes at most are compared as two numbers, whose hash has keys of
	// its own: with those of hashBytes "aaa" would be what "a" is there.
	shortWord = 16
)

func newGatherer() *gatherer {
	g := &gatherer{seen: make([]uint64, firstSeen), keys: [2]uint64{rand.Uint64(), rand.Uint64()}}
	for i := range g.fold {
		g.fold[i] = Fold(byte(i))
	}
	for n := range g.short {
		for i := range n {
			g.short[n][i/8] |= 0xff << (8 * (i % 8))
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
	mask := uint64(len(g.seen) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		switch g.seen[i] {
		case h:
			return false
		case 0:
			if g.count >= len(g.seen)*3/4 {
				return g.more(h)
			}
			g.seen[i] = h
			g.count++
			return true
		}
	}
}

// more is fresh for an h that is not in the full table.
func (g *gatherer) more(h uint64) bool {
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
	return g.fresh(h)
}

// add takes the words of text. It goes by groups of 64 bytes, a bit for each.
func (g *gatherer) add(text []byte) {
	open, carry := 0, uint64(0) // begin of the word that reaches into the group; 1 if there is one
	for at := 0; at < len(text); at += 64 {
		b := text[at:]
		if len(b) < 64 {
			var room [64]byte // what is after text separates
			copy(room[:], b)
			b = room[:]
		}
		in := uint64(0)
		for i := 0; i < 64; i += 8 {
			w, _ := block.WordBits(binary.LittleEndian.Uint64(b[i : i+8]))
			in |= w << i
		}
		after := in<<1 | carry
		begins, ends := in&^after, after&^in
		if carry == 0 && begins != 0 {
			open = at + bits.TrailingZeros64(begins)
			begins &= begins - 1
		}
		carry = in >> 63
		for ends != 0 {
			end := at + bits.TrailingZeros64(ends)
			ends &= ends - 1
			if n := end - open; n > shortWord || len(text)-open < shortWord {
				g.takeLong(text[open:end])
			} else {
				b := (*[shortWord]byte)(text[open:])
				keep := &g.short[n]
				low := binary.LittleEndian.Uint64(b[:8]) & keep[0]
				high := binary.LittleEndian.Uint64(b[8:]) & keep[1]
				h := max(1, spread(low^g.keys[0], high^g.keys[1]))
				if g.seen[h&uint64(len(g.seen)-1)] != h && g.fresh(h) {
					g.takeShort(low, high, n)
				}
			}
			open = at + bits.TrailingZeros64(begins)
			begins &= begins - 1
		}
	}
	if carry != 0 {
		g.takeLong(text[open:])
	}
}

// takeShort takes a word whose bytes are new. Most words were seen before in the
// block, which their bytes as two numbers tell sooner than their hash does.
func (g *gatherer) takeShort(low, high uint64, n int) {
	var room [len(idKey) + shortWord]byte
	small, smallHigh := FoldEight(low), FoldEight(high)
	binary.LittleEndian.PutUint64(room[len(idKey):], small)
	binary.LittleEndian.PutUint64(room[len(idKey)+8:], smallHigh)
	word := room[len(idKey) : len(idKey)+n]
	h := hashBytes(word)
	if !g.fresh(h) { // in other letters
		return
	}
	_, digits := block.WordBits(low)
	_, more := block.WordBits(high)
	g.put(room[:], word, h, bits.TrailingZeros64(digits|more<<8|1<<n))
}

func (g *gatherer) takeLong(word []byte) {
	var room [len(idKey) + maxWord]byte
	folded := room[len(idKey):][:min(len(word), maxWord)]
	for i := range folded {
		folded[i] = g.fold[word[i]]
	}
	h := hashBytes(folded)
	if !g.fresh(h) {
		return
	}
	digit := 0
	for digit < len(folded) && folded[digit]-'0' > 9 {
		digit++
	}
	g.put(room[:], folded, h, digit)
}

// put puts a fresh word, which stands in room after the place of idKey, to those
// it belongs to. digit is its first digit, or its length.
func (g *gatherer) put(room, word []byte, h uint64, digit int) {
	if digit == len(word) || len(word) < 3 {
		g.keep(word, h)
		return
	}
	g.ids = append(g.ids, h)
	if digit >= 2 {
		key := append(append(room[:0], idKey...), word[:digit]...)
		if h := hashBytes(key); g.fresh(h) {
			g.keep(key, h)
		}
	}
}

func (g *gatherer) keep(word []byte, h uint64) {
	g.text = append(g.text, word...)
	g.ends = append(g.ends, uint32(len(g.text)))
	g.hashes = append(g.hashes, h)
}

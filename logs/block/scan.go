package block

import (
	"encoding/binary"
	"math/bits"
)

// Every byte of these is the same.
const (
	eachOne  = 0x0101010101010101
	eachHigh = 0x80 * eachOne
)

// WordBits says which of eight bytes belong to words and which are digits, a bit
// for each, the first byte's the lowest.
func WordBits(x uint64) (in, digits uint64) {
	low := x &^ eachHigh // so that no sum carries into the next byte
	digit := (low + (0x80-'0')*eachOne) &^ (low + (0x7f-'9')*eachOne)
	letter := low | 0x20*eachOne
	letter = (letter + (0x80-'a')*eachOne) &^ (letter + (0x7f-'z')*eachOne)
	other := low ^ '_'*eachOne + 0x7f*eachOne // than '_'
	in = (digit | letter | ^other | x) & eachHigh
	digits = digit &^ x & eachHigh
	const gather = 0x0102040810204080
	return in >> 7 * gather >> 56, digits >> 7 * gather >> 56
}

// variables appends the places of the words of text that have a digit, counted
// from base. It goes by groups of 64 bytes, a bit for each.
func variables(dst []span, text []byte, base uint32) []span {
	open, has := -1, false // begin of a word that reaches the end of the group before, and whether it has a digit
	at := 0
	for ; at < len(text); at += 64 {
		b := text[at:]
		if len(b) < 64 {
			var room [64]byte // what is after text separates
			copy(room[:], b)
			b = room[:]
		}
		var in, digits uint64
		for i := 0; i < 64; i += 8 {
			w, d := WordBits(binary.LittleEndian.Uint64(b[i : i+8]))
			in |= w << i
			digits |= d << i
		}
		out := ^in
		if open >= 0 {
			end := bits.TrailingZeros64(out)
			if has = has || digits<<(64-end) != 0; out == 0 {
				continue
			}
			if has {
				dst = append(dst, span{base + uint32(open), base + uint32(at+end)})
			}
			digits &= ^uint64(0) << end
			open, has = -1, false
		}
		for digits != 0 {
			digit := bits.TrailingZeros64(digits) & 63
			start := at + 64 - bits.LeadingZeros64(out&(1<<digit-1))
			after := out >> digit
			if after == 0 {
				open, has = start, true
				break
			}
			end := digit + bits.TrailingZeros64(after)
			dst = append(dst, span{base + uint32(start), base + uint32(at+end)})
			digits &= ^uint64(0) << (end & 63)
		}
		if open < 0 && in>>63 != 0 {
			open = at + 64 - bits.LeadingZeros64(out)
		}
	}
	if has {
		dst = append(dst, span{base + uint32(open), base + uint32(len(text))})
	}
	return dst
}

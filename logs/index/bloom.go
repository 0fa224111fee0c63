package index

import "math/bits"

// A filter is a number of 64-byte lines; a key touches one line only.
const (
	filterLine = 64
	bitsPerKey = 12
	probes     = 6
)

func filterBytes(keys int) int {
	return (keys*bitsPerKey + filterLine*8 - 1) / (filterLine * 8) * filterLine
}

func filterAt(f []byte, h uint64) []byte {
	line, _ := bits.Mul64(h, uint64(len(f)/filterLine))
	return f[line*filterLine : (line+1)*filterLine]
}

func filterAdd(f []byte, h uint64) {
	l := filterAt(f, h)
	x := h * 0x9E3779B97F4A7C15
	for k := range probes {
		bit := x >> (uint(k) * 9) & 511
		l[bit>>3] |= 1 << (bit & 7)
	}
}

func filterHas(f []byte, h uint64) bool {
	if len(f) == 0 {
		return false // a block without such keys
	}
	l := filterAt(f, h)
	x := h * 0x9E3779B97F4A7C15
	for k := range probes {
		bit := x >> (uint(k) * 9) & 511
		if l[bit>>3]&(1<<(bit&7)) == 0 {
			return false
		}
	}
	return true
}

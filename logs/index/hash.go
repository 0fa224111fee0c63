package index

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// hash of a folded word, also of a key made of one. It is part of the format of
// filters.
func hash(word string) uint64 {
	return hashBytes(unsafe.Slice(unsafe.StringData(word), len(word)))
}

const (
	hashA = 0xa0761d6478bd642f
	hashB = 0xe7037ed1a0b428db
)

// hashBytes is quick for short words: one multiplication for up to 16 bytes,
// and one to spread the result.
func hashBytes(b []byte) uint64 {
	n := len(b)
	h := uint64(n) * hashB
	for len(b) > 16 {
		h = spread(binary.LittleEndian.Uint64(b)^hashA, binary.LittleEndian.Uint64(b[8:])^h)
		b = b[16:]
	}
	var lo, hi uint64 // together all bytes, some perhaps twice
	switch n = len(b); {
	case n >= 8:
		lo, hi = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[n-8:])
	case n >= 4:
		lo, hi = uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[n-4:]))
	case n > 0:
		lo, hi = uint64(b[0])|uint64(b[n/2])<<8|uint64(b[n-1])<<16, uint64(n)
	}
	return spread(spread(lo^hashA, hi^hashB^h), hashB)
}

func spread(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

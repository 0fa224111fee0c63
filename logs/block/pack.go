package block

import (
	"hash/crc32"

	"github.com/klauspost/compress/s2"
)

// packing is how the bytes of a frame are written.
type packing byte

const (
	packedZstd packing = iota // what all frames of older blocks are
	packedS2                  // for templates: small, and read by most queries, who wait longer for zstd's tables than for the text
	packedNot                 // for what is packed already
	packings
)

// frame appends a frame that is read as raw.
func (c *Codec) frame(dst, raw []byte, how packing) ([]byte, frame) {
	start := len(dst)
	if c.loose {
		how = packedNot
	}
	switch how {
	case packedS2:
		n := s2.MaxEncodedLen(len(raw))
		c.packed = grow(c.packed, n)
		encode := s2.Encode
		if c.slow {
			encode = s2.EncodeBetter
		}
		dst = append(dst, encode(c.packed, raw)...)
	case packedNot:
		dst = append(dst, raw...)
	default:
		dst = c.enc.EncodeAll(raw, dst)
	}
	z := dst[start:]
	return dst, frame{bytes: uint32(len(z)), raw: uint32(len(raw)), crc: crc32.Checksum(z, c.table), packing: how}
}

// unframe returns what a frame's bytes are read as, in memory of room when it is
// large enough.
func (c *Codec) unframe(room, z []byte, f frame) (out []byte, err error) {
	if crc32.Checksum(z, c.table) != f.crc {
		return nil, ErrDamaged
	}
	switch f.packing {
	case packedS2:
		if n, err := s2.DecodedLen(z); err != nil || n != int(f.raw) {
			return nil, ErrDamaged
		}
		out, err = s2.Decode(room[:cap(room)], z)
	case packedNot:
		out = append(room[:0], z...)
	default:
		out, err = c.dec.DecodeAll(z, room[:0])
	}
	if err != nil || len(out) != int(f.raw) {
		return nil, ErrDamaged
	}
	return out, nil
}

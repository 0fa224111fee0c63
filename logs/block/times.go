package block

import (
	"encoding/binary"
	"math/bits"
)

// A frame of times begins with how they are written, and ends with levels.
const (
	timesVarint = 0 // differences one by one, for zstd; in older blocks without this byte
	timesPacked = 1 // differences in groups, as many bits for each as the largest needs
)

const (
	// groupTimes have one width, so that a long silence costs few lines.
	groupTimes = 128
	// coarseTimes are multiples of it: they come again and again, and zstd makes
	// them shorter than packing does.
	coarseTimes = 1000
	// wideBits and more cannot be moved within one number: 64 are written.
	wideBits = 57
)

// appendTimes writes times, then levels, and tells what packing is good for them.
func appendTimes(dst []byte, l *Lines) ([]byte, packing) {
	coarse := true
	for _, t := range l.Times {
		if t%coarseTimes != 0 {
			coarse = false
			break
		}
	}
	if coarse {
		return appendRuns(appendVarints(append(dst, timesVarint), l.Times), l.Levels), packedZstd
	}
	dst = binary.AppendVarint(append(dst, timesPacked), l.Times[0])
	var group [groupTimes]uint64
	for rest := l.Times; len(rest) > 1; {
		n := min(groupTimes, len(rest)-1)
		least := rest[1] - rest[0]
		for i := range n {
			d := rest[i+1] - rest[i]
			group[i] = uint64(d)
			least = min(least, d)
		}
		most := uint64(0)
		for i := range n {
			group[i] -= uint64(least)
			most |= group[i]
		}
		width := bits.Len64(most)
		dst = append(binary.AppendVarint(dst, least), byte(width))
		dst = appendBits(dst, group[:n], width)
		rest = rest[n:]
	}
	return appendLevels(dst, l.Levels), packedNot
}

// parseTimes reads the times and levels of a block.
func (m *Meta) parseTimes(b []byte, l *Lines) error {
	if !m.form.packed {
		return parseOldTimes(b, l, m.Lines)
	}
	return parseTimes(b, l, m.Lines)
}

// parseTimes reads what appendTimes wrote of n lines.
func parseTimes(b []byte, l *Lines, n int) error {
	if len(b) == 0 || b[0] != timesPacked {
		if len(b) == 0 || b[0] != timesVarint {
			return ErrDamaged
		}
		return parseOldTimes(b[1:], l, n)
	}
	t, k := binary.Varint(b[1:])
	if k <= 0 || n < 1 {
		return ErrDamaged
	}
	b = b[1+k:]
	l.Times = grow(l.Times, n)
	l.Times[0] = t
	var group [groupTimes]uint64
	for rest := l.Times[1:]; len(rest) > 0; {
		some := group[:min(groupTimes, len(rest))]
		least, k := binary.Varint(b)
		if k <= 0 || len(b) == k {
			return ErrDamaged
		}
		var ok bool
		if b, ok = parseBits(b[k+1:], some, int(b[k])); !ok {
			return ErrDamaged
		}
		for i, d := range some {
			t += least + int64(d)
			rest[i] = t
		}
		rest = rest[len(some):]
	}
	return parseLevels(b, l, n)
}

// parseOldTimes reads differences one by one, then runs of levels.
func parseOldTimes(b []byte, l *Lines, n int) error {
	l.Times = grow(l.Times, n)
	before := int64(0)
	for i := range n {
		d, k := binary.Varint(b)
		if k <= 0 {
			return ErrDamaged
		}
		b = b[k:]
		before += d
		l.Times[i] = before
	}
	return parseRuns(b, l, n)
}

func appendVarints(dst []byte, times []int64) []byte {
	before := int64(0)
	for _, t := range times {
		dst = binary.AppendVarint(dst, t-before)
		before = t
	}
	return dst
}

// Levels are runs, or where they change all the time so many bits each.
func appendLevels(dst, levels []byte) []byte {
	runs, all := 1, levels[0]
	for i := 1; i < len(levels); i++ {
		if levels[i] != levels[i-1] {
			runs++
		}
		all |= levels[i]
	}
	width := bits.Len8(all)
	if width == 0 || 2*runs <= len(levels)*width/8 {
		return appendRuns(append(dst, 0), levels)
	}
	dst = append(dst, byte(width))
	var group [groupTimes]uint64
	for len(levels) > 0 {
		n := min(groupTimes, len(levels))
		for i, v := range levels[:n] {
			group[i] = uint64(v)
		}
		dst = appendBits(dst, group[:n], width)
		levels = levels[n:]
	}
	return dst
}

func parseLevels(b []byte, l *Lines, n int) error {
	if len(b) == 0 {
		return ErrDamaged
	}
	width := int(b[0])
	b = b[1:]
	if width == 0 {
		return parseRuns(b, l, n)
	}
	if width > 8 {
		return ErrDamaged
	}
	l.Levels = grow(l.Levels, n)
	var group [groupTimes]uint64
	for rest := l.Levels; len(rest) > 0; {
		some := group[:min(groupTimes, len(rest))]
		var ok bool
		if b, ok = parseBits(b, some, width); !ok {
			return ErrDamaged
		}
		for i, v := range some {
			rest[i] = byte(v)
		}
		rest = rest[len(some):]
	}
	if len(b) > 0 {
		return ErrDamaged
	}
	return nil
}

func appendRuns(dst, levels []byte) []byte {
	for i := 0; i < len(levels); {
		j := i
		for j < len(levels) && levels[j] == levels[i] {
			j++
		}
		dst = append(dst, levels[i])
		dst = binary.AppendUvarint(dst, uint64(j-i))
		i = j
	}
	return dst
}

func parseRuns(b []byte, l *Lines, n int) error {
	l.Levels = grow(l.Levels, n)
	for i := 0; i < n; {
		if len(b) < 2 {
			return ErrDamaged
		}
		v := b[0]
		run, k := binary.Uvarint(b[1:])
		if k <= 0 || run == 0 || run > uint64(n-i) {
			return ErrDamaged
		}
		b = b[1+k:]
		for range run {
			l.Levels[i] = v
			i++
		}
	}
	return nil
}

// appendBits writes up to groupTimes numbers of so many bits, the first in the
// lowest bits.
func appendBits(dst []byte, values []uint64, width int) []byte {
	if width >= wideBits {
		for _, v := range values {
			dst = binary.LittleEndian.AppendUint64(dst, v)
		}
		return dst
	}
	var room [groupTimes*wideBits/8 + 8]byte
	at := 0
	for _, v := range values {
		b := room[at>>3:]
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)|v<<(at&7))
		at += width
	}
	return append(dst, room[:(at+7)/8]...)
}

// parseBits reads them and returns what follows.
func parseBits(b []byte, values []uint64, width int) ([]byte, bool) {
	if width > 64 {
		return nil, false
	}
	if width >= wideBits {
		width = 64
	}
	size := (len(values)*width + 7) / 8
	if len(b) < size {
		return nil, false
	}
	if width == 64 {
		for i := range values {
			values[i] = binary.LittleEndian.Uint64(b[8*i:])
		}
		return b[size:], true
	}
	from := b
	if len(b) < size+8 {
		var room [groupTimes*wideBits/8 + 8]byte
		copy(room[:], b[:size])
		from = room[:]
	}
	mask, at := uint64(1)<<width-1, 0
	for i := range values {
		values[i] = binary.LittleEndian.Uint64(from[at>>3:]) >> (at & 7) & mask
		at += width
	}
	return b[size:], true
}

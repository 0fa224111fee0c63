package ingest

import (
	"encoding/binary"
	"fmt"
)

// extent finds where a message ends while its bytes arrive. It looks at each
// byte once, so that a sender who sends little at a time costs no more than one
// who sends all at once.
type extent struct {
	at   int    // everything before is passed
	left uint64 // values to pass, those inside of others included
}

func newExtent() extent { return extent{left: 1} }

// pass goes on in b, which begins with the message. It returns how long b must
// be at least to go on, or 0 when the message ends at at.
func (e *extent) pass(b []byte, limit int) (need int, err error) {
	for e.left > 0 {
		if uint64(e.at)+e.left > uint64(limit) { // a value has a byte at least
			return 0, fmt.Errorf("%w: more than %d bytes", errLarge, limit)
		}
		rest := b[e.at:]
		if len(rest) == 0 {
			return e.at + 1, nil
		}
		head, inside, text := shape(rest[0])
		if head == 0 {
			return 0, errFormat
		}
		if len(rest) < head {
			return e.at + head, nil
		}
		size := uint64(0)
		switch width := head - 1 - text.kind; {
		case !text.counted:
			size = text.size
		case width == 1:
			size = uint64(rest[1])
		case width == 2:
			size = uint64(binary.BigEndian.Uint16(rest[1:]))
		default:
			size = uint64(binary.BigEndian.Uint32(rest[1:]))
		}
		if inside > 0 {
			e.at += head
			e.left += size*inside - 1
			continue
		}
		end := uint64(e.at+head) + size
		if end > uint64(limit) {
			return 0, fmt.Errorf("%w: more than %d bytes", errLarge, limit)
		}
		if end > uint64(len(b)) {
			return int(end), nil
		}
		e.at = int(end)
		e.left--
	}
	return 0, nil
}

// length says how the size of a value is told.
type length struct {
	counted bool   // by bytes after the first
	size    uint64 // otherwise
	kind    int    // bytes of the header that say the kind of an extension
}

// shape tells what a value's first byte says: the bytes of its header, 0 for
// none that exists, and how many values each of its elements is.
func shape(c byte) (head int, inside uint64, l length) {
	switch {
	case c <= 0x7f, c >= 0xe0, c == 0xc0, c == 0xc2, c == 0xc3:
		return 1, 0, l
	case c <= 0x8f:
		return 1, 2, length{size: uint64(c & 0x0f)}
	case c <= 0x9f:
		return 1, 1, length{size: uint64(c & 0x0f)}
	case c <= 0xbf:
		return 1, 0, length{size: uint64(c & 0x1f)}
	}
	switch c {
	case 0xc4, 0xd9:
		return 2, 0, length{counted: true}
	case 0xc5, 0xda:
		return 3, 0, length{counted: true}
	case 0xc6, 0xdb:
		return 5, 0, length{counted: true}
	case 0xc7:
		return 3, 0, length{counted: true, kind: 1}
	case 0xc8:
		return 4, 0, length{counted: true, kind: 1}
	case 0xc9:
		return 6, 0, length{counted: true, kind: 1}
	case 0xcc, 0xd0:
		return 2, 0, l
	case 0xcd, 0xd1, 0xd4:
		return 3, 0, l
	case 0xd5:
		return 4, 0, l
	case 0xca, 0xce, 0xd2:
		return 5, 0, l
	case 0xd6:
		return 6, 0, l
	case 0xcb, 0xcf, 0xd3:
		return 9, 0, l
	case 0xd7:
		return 10, 0, l
	case 0xd8:
		return 18, 0, l
	case 0xdc:
		return 3, 1, length{counted: true}
	case 0xdd:
		return 5, 1, length{counted: true}
	case 0xde:
		return 3, 2, length{counted: true}
	case 0xdf:
		return 5, 2, length{counted: true}
	}
	return 0, 0, l
}

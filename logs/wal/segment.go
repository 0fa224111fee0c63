package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	magic       = "pWAL0001"
	headerBytes = 32 // magic, first seq, valid bytes of the segment before, crc32c, zero
	entryBytes  = 16 // length, crc32c of seq and payload, seq
	// MaxEntry is the longest payload in bytes.
	MaxEntry = 128 << 20
)

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// File is what the log needs of a segment that is being written.
type File interface {
	io.Writer
	Sync() error
	Truncate(size int64) error
	Seek(offset int64, whence int) (int64, error)
	Close() error
}

// segment is one file, the last of the list is open for writing.
type segment struct {
	number   uint64
	first    uint64 // sequence number of its first entry
	size     int64  // valid bytes
	headless bool   // its header is broken
}

func segmentPath(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%08d.wal", number))
}

func segmentNumber(name string) (uint64, bool) {
	base, ok := strings.CutSuffix(name, ".wal")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(base, 10, 64)
	return n, err == nil
}

func appendHeader(dst []byte, first uint64, before int64) []byte {
	start := len(dst)
	dst = append(dst, magic...)
	dst = binary.LittleEndian.AppendUint64(dst, first)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(before))
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli()))
	return append(dst, 0, 0, 0, 0)
}

var (
	errHeader = errors.New("segment header is broken")
	errBegun  = errors.New("segment was only begun")
)

func parseHeader(b []byte) (first uint64, before int64, err error) {
	if len(b) < headerBytes || string(b[:8]) != magic || crc32.Checksum(b[:24], castagnoli()) != binary.LittleEndian.Uint32(b[24:]) {
		return 0, 0, errHeader
	}
	return binary.LittleEndian.Uint64(b[8:]), int64(binary.LittleEndian.Uint64(b[16:])), nil
}

func appendEntry(dst []byte, seq uint64, payload []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, seq)
	dst = append(dst, payload...)
	binary.LittleEndian.PutUint32(dst[at:], crc32.Checksum(dst[at+4:], castagnoli()))
	return dst
}

// entryAt returns the payload of the entry at the begin of b and its number. It
// is not ok when that is not whole and as it was written.
func entryAt(b []byte) (seq uint64, payload []byte, ok bool) {
	n := lengthAt(b)
	if n < 0 || crc32.Checksum(b[8:entryBytes+n], castagnoli()) != binary.LittleEndian.Uint32(b[4:]) {
		return 0, nil, false
	}
	return binary.LittleEndian.Uint64(b[8:]), b[entryBytes : entryBytes+n], true
}

// lengthAt is the length of the payload that the entry at the begin of b says it
// has, less than 0 when b does not hold that.
func lengthAt(b []byte) int {
	if len(b) < entryBytes {
		return -1
	}
	if n := int(binary.LittleEndian.Uint32(b)); n <= MaxEntry && n <= len(b)-entryBytes {
		return n
	}
	return -1
}

// walk calls fn for each valid entry of b, which starts after the header. It
// returns the bytes up to the end of the last, and how many of them are of
// damaged entries, which are left out. seq is the number the first must have.
func walk(b []byte, seq uint64, fn func(seq uint64, payload []byte) error) (valid, damaged int, next uint64, err error) {
	for at := 0; ; {
		have, payload, ok := entryAt(b[at:])
		if !ok || have != seq {
			// What a damaged entry says of its length is believed when there is
			// the next one. Nothing is searched for: lines can look like entries.
			to, number := at, seq
			for have = seq - 1; !ok || have != number; {
				n := lengthAt(b[to:])
				if n < 0 {
					return valid, damaged, seq, nil
				}
				to += entryBytes + n
				number++
				have, payload, ok = entryAt(b[to:])
			}
			damaged += to - at
			at, seq = to, number
		}
		if err := fn(seq, payload); err != nil {
			return valid, damaged, seq, err
		}
		at += entryBytes + len(payload)
		valid = at
		seq++
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

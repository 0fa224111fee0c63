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
	number uint64
	first  uint64 // sequence number of its first entry
	size   int64  // valid bytes
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

var errHeader = errors.New("segment header is broken")

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

// walk calls fn for each valid entry of b, which starts after the header, and
// returns the number of valid bytes. seq is the number the first must have.
func walk(b []byte, seq uint64, fn func(seq uint64, payload []byte) error) (valid int, next uint64, err error) {
	table := castagnoli()
	for len(b)-valid >= entryBytes {
		e := b[valid:]
		n := int(binary.LittleEndian.Uint32(e))
		if n > MaxEntry || len(e) < entryBytes+n {
			break
		}
		if binary.LittleEndian.Uint64(e[8:]) != seq || crc32.Checksum(e[8:entryBytes+n], table) != binary.LittleEndian.Uint32(e[4:]) {
			break
		}
		if fn != nil {
			if err := fn(seq, e[entryBytes:entryBytes+n]); err != nil {
				return valid, seq, err
			}
		}
		valid += entryBytes + n
		seq++
	}
	return valid, seq, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

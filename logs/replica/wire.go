package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"strings"
	"time"

	"perch/logs/store"
)

// State is what a follower has of a copy.
type State struct {
	At    time.Time `json:"at"`              // every line acknowledged before is there; zero: it cannot be read yet
	From  string    `json:"from,omitempty"`  // the oldest partition a reader has, when older ones are missing
	Floor string    `json:"floor,omitempty"` // partitions up to this one were dropped for want of room
	Files []Held    `json:"files"`
}

// Held is a file at the follower.
type Held struct {
	store.File
	Committed bool   `json:"committed"` // part of what a reader sees
	Tail      uint32 `json:"tail"`      // crc32c of its last tailBytes
}

// tailBytes of a file's end are compared before more is added.
const tailBytes = 64 << 10

// commit is the end of a shipment that has everything: what a reader sees from
// now on. Other files go.
type commit struct {
	At         time.Time     `json:"at"`
	From       string        `json:"from,omitempty"` // the oldest partition, when older ones are not there
	Keep       time.Duration `json:"keep"`           // how long lines are kept; 0: for ever
	Files      []store.File  `json:"files"`
	Coming     []store.File  `json:"coming"` // not seen yet, but not to be removed
	Checkpoint []byte        `json:"checkpoint"`
}

// A shipment is a sequence of frames: kind, length of path and version, offset,
// length of body, crc32c of body; then path, version and body. Little endian.
const (
	frameData   = 'd' // bytes of a file at offset
	frameMark   = 'm' // the write-ahead log is there up to offset, a time in ns
	frameCommit = 'c' // body: JSON of commit
	frameBytes  = 1 + 2 + 2 + 8 + 4 + 4

	maxName   = 1 << 10
	maxData   = 1 << 20
	maxCommit = 64 << 20
)

type frame struct {
	kind    byte
	path    string
	version string
	offset  int64
	body    []byte
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func (f frame) appendHead(dst []byte) []byte {
	dst = append(dst, f.kind)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(f.path)))
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(f.version)))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(f.offset))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(f.body)))
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(f.body, castagnoli()))
	dst = append(dst, f.path...)
	return append(dst, f.version...)
}

var errFrame = errors.New("shipment is broken")

// readFrame reads the next frame; its body is in buf, which grows. io.EOF is the
// end of the shipment.
func readFrame(r io.Reader, buf []byte) (frame, []byte, error) {
	var head [frameBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errFrame
		}
		return frame{}, buf, err
	}
	f := frame{kind: head[0], offset: int64(binary.LittleEndian.Uint64(head[5:]))}
	np, nv := int(binary.LittleEndian.Uint16(head[1:])), int(binary.LittleEndian.Uint16(head[3:]))
	n := int64(binary.LittleEndian.Uint32(head[13:]))
	limit := int64(maxData)
	if f.kind == frameCommit {
		limit = maxCommit
	}
	if np+nv > maxName || n > limit || f.offset < 0 {
		return frame{}, buf, errFrame
	}
	if need := np + nv + int(n); cap(buf) < need {
		buf = make([]byte, need)
	}
	b := buf[:np+nv+int(n)]
	if _, err := io.ReadFull(r, b); err != nil {
		return frame{}, buf, fmt.Errorf("%w: %w", errFrame, err)
	}
	f.path, f.version, f.body = string(b[:np]), string(b[np:np+nv]), b[np+nv:]
	if crc32.Checksum(f.body, castagnoli()) != binary.LittleEndian.Uint32(head[17:]) {
		return frame{}, buf, fmt.Errorf("%w: its bytes do not have their sum", errFrame)
	}
	switch f.kind {
	case frameMark, frameCommit:
		return f, buf, nil
	case frameData:
		if legal(f.path) && legalVersion(f.version) {
			return f, buf, nil
		}
	}
	return frame{}, buf, errFrame
}

// legal tells whether a path is one of a store's files: nothing else may be
// written.
func legal(p string) bool {
	if p == "" || path.Clean(p) != p || strings.ContainsAny(p, "~\x00\\") {
		return false
	}
	for name := range strings.SplitSeq(p, "/") {
		if name == "." || name == ".." {
			return false
		}
	}
	return strings.HasPrefix(p, "wal/") || strings.HasPrefix(p, "parts/") && strings.Count(p, "/") >= 2
}

func legalVersion(v string) bool {
	return len(v) <= 32 && strings.Trim(v, "0123456789abcdefghijklmnopqrstuvwxyz-") == ""
}

// partOf is the partition a path belongs to, empty for the write-ahead log.
func partOf(p string) string {
	rest, ok := strings.CutPrefix(p, "parts/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

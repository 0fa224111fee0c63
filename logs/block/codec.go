package block

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"

	"github.com/klauspost/compress/zstd"

	"perch/logs/record"
)

// Meta describes a block without its lines.
type Meta struct {
	Stream   *record.Stream
	Hash     uint64 // of Stream
	First    uint64 // number of the first line within the stream
	Lines    int
	Min, Max int64  // times, ns
	Seq      uint64 // write-ahead entry of the last line
	Ord      uint32 // and its place in that entry
	Raw      int64  // bytes of text and fields
	Levels   [record.LevelCount]uint32

	in     *bundle // nil when the block is a record of the file
	offset int64   // in the file, or in what the bundle unpacks to
	head   uint32  // bytes before the first frame
	form   form
	frames [frameKinds]frame
}

// The frames of a block in the order they are written. A plain block has text,
// one with templates has templates, ids and columns instead.
const (
	frameTimes = iota
	frameText
	frameTemplates
	frameIDs
	frameColumns
	frameFields
	frameKinds
)

// frame is where a part of a block lies, and what it must look like.
type frame struct {
	bytes   uint32 // as it is written
	raw     uint32
	crc     uint32
	packing packing
}

// Size is the number of bytes of the block in its file; of a bundle it has a share.
func (m *Meta) Size() int64 {
	own := m.start(frameKinds) - m.offset
	if m.in == nil {
		return own
	}
	return own * m.in.size() / int64(max(1, m.in.body.raw))
}

// Templated tells whether the block's lines are written as templates and
// variables.
func (m *Meta) Templated() bool { return m.frames[frameTemplates].raw > 0 }

// Sent tells whether some of its lines have fields from their sender.
func (m *Meta) Sent() bool { return m.frames[frameFields].raw > 0 }

// start is where a frame begins in the file.
func (m *Meta) start(kind int) int64 {
	at := m.offset + int64(m.head)
	for _, f := range m.frames[:kind] {
		at += int64(f.bytes)
	}
	return at
}

// ErrDamaged says that bytes on disk are not what was written.
var ErrDamaged = errors.New("block is damaged")

// form is in which way a block is written. Its mark tells.
type form struct {
	templated bool
	shaped    bool // templates have shapes
	packed    bool // frames tell their packing, times how they are written
	told      bool // columns tell their values, if they have few
}

// formOf returns the form of a block with this mark.
func formOf(mark string) (f form, ok bool) {
	switch mark {
	case magic:
		return form{}, true
	case magic2:
		return form{templated: true}, true
	case magic3:
		return form{templated: true, shaped: true}, true
	case magic4:
		return form{packed: true}, true
	case magic5:
		return form{templated: true, shaped: true, packed: true}, true
	case magic7:
		return form{templated: true, shaped: true, packed: true, told: true}, true
	}
	return form{}, false
}

const (
	magic  = "pBK1" // plain; read only
	magic2 = "pBK2" // with templates, each of which is its own shape; read only
	magic3 = "pBK3" // with templates; read only
	magic4 = "pBK4" // plain
	magic5 = "pBK5" // with templates; read only
	magic6 = "pBK6" // a bundle of those that are not read only
	magic7 = "pBK7" // with templates

	prefixBytes = 12 // magic, header length, header crc32c
	maxHeader   = 64 << 10
	// MaxBytes is the most that one column of a block may hold.
	MaxBytes = 256 << 20
)

// Codec compresses and decompresses blocks. It may be used concurrently for
// decoding, by one goroutine for encoding.
type Codec struct {
	slow   bool // takes its time
	enc    *zstd.Encoder
	dec    *zstd.Decoder
	table  *crc32.Table
	col    []byte
	body   []byte
	split  splitter
	words  [][]byte // of the block encoded last
	room   [3][]byte
	packed []byte // scratch of frame
	loose  bool   // frames are not packed: the bundle is

	near nearBundles
}

// NewCodec makes a codec that compresses fast.
func NewCodec() (*Codec, error) { return newCodec(zstd.SpeedFastest, 256<<10, false) }

// NewSealCodec makes a codec that takes its time and large blocks.
func NewSealCodec() (*Codec, error) { return newCodec(zstd.SpeedBetterCompression, 1<<20, true) }

func newCodec(level zstd.EncoderLevel, window int, slow bool) (*Codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)), zstd.WithDecoderMaxMemory(MaxBytes), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, fmt.Errorf("make zstd decoder: %w", err)
	}
	return &Codec{slow: slow, enc: enc, dec: dec, table: crc32.MakeTable(crc32.Castagnoli)}, nil
}

// Close ends the codec's helpers.
func (c *Codec) Close() {
	c.dec.Close()
	_ = c.enc.Close() // nothing is buffered
}

// Encode appends the written form of a block to dst and completes m, whose
// stream, hash, line number and write-ahead place the caller has set.
func (c *Codec) Encode(dst []byte, m *Meta, l *Lines) []byte {
	mark := c.frames(m, l)
	head := appendMeta(nil, m)
	m.head = prefixBytes + uint32(len(head))
	dst = c.appendHead(dst, mark, head)
	return append(dst, c.body...)
}

func (c *Codec) appendHead(dst []byte, mark string, head []byte) []byte {
	dst = append(dst, mark...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(head)))
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(head, c.table))
	return append(dst, head...)
}

// frames puts the frames of a block into c.body, completes m and returns the
// block's mark.
func (c *Codec) frames(m *Meta, l *Lines) string {
	m.Lines = l.Len()
	m.Raw = int64(len(l.Text) + len(l.Fields))
	m.Min, m.Max = l.Times[0], l.Times[0]
	m.Levels = [record.LevelCount]uint32{}
	for i, t := range l.Times {
		m.Min, m.Max = min(m.Min, t), max(m.Max, t)
		if v := l.Levels[i]; int(v) < record.LevelCount {
			m.Levels[v]++
		}
	}
	m.frames = [frameKinds]frame{}
	body := c.body[:0]
	var how packing
	c.col, how = appendTimes(c.col[:0], l)
	body, m.frames[frameTimes] = c.frame(body, c.col, how)
	mark := magic4
	if c.split.split(l) {
		mark = magic7
		t := &c.split.dict
		c.room[0] = c.split.appendColumns(c.room[0][:0], l)
		c.col = appendTemplates(c.col[:0], t)
		body, m.frames[frameTemplates] = c.frame(body, c.col, packedS2)
		c.col = appendIDs(c.col[:0], c.split.ids)
		body, m.frames[frameIDs] = c.frame(body, c.col, packedZstd)
		body, m.frames[frameColumns] = c.frame(body, c.room[0], packedZstd)
		c.room[1] = t.apart(c.room[1][:0])
		c.words = append(c.words[:0], c.room[1], c.room[0])
	} else {
		c.col = appendText(c.col[:0], l)
		body, m.frames[frameText] = c.frame(body, c.col, packedZstd)
		c.words = append(c.words[:0], l.Text)
	}
	if len(l.FEnds) > 0 {
		body, m.frames[frameFields] = c.frame(body, l.Fields, packedZstd)
		c.room[2] = l.otherFields(c.room[2][:0])
		c.words = append(c.words, c.room[2])
	}
	c.body = body
	m.form, _ = formOf(mark)
	return mark
}

// Words are texts that together have the words of the block encoded last, each
// less often than its lines have them. They are valid until the next Encode and
// as long as its lines.
func (c *Codec) Words() [][]byte { return c.words }

func appendText(dst []byte, l *Lines) []byte {
	if bytes.Count(l.Text, []byte{'\n'}) == l.Len() {
		dst = append(dst, 0)
	} else {
		dst = append(dst, 1)
		dst = appendLengths(dst, l.Ends)
	}
	return append(dst, l.Text...)
}

func grow[T any](s []T, n int) []T {
	if cap(s) >= n {
		return s[:n]
	}
	return make([]T, n)
}

func appendLengths(dst []byte, ends []uint32) []byte {
	start := uint32(0)
	for _, e := range ends {
		dst = binary.AppendUvarint(dst, uint64(e-start))
		start = e + 1
	}
	return dst
}

// parseText splits a text frame of n lines.
func parseText(b []byte, l *Lines, n int) error {
	if len(b) == 0 {
		return ErrDamaged
	}
	l.Ends = grow(l.Ends, n)
	if b[0] == 0 {
		l.Text = b[1:]
		return splitLines(l.Text, l.Ends)
	}
	b = b[1:]
	end := uint64(0)
	for i := range n {
		v, k := binary.Uvarint(b)
		if k <= 0 || v > MaxBytes {
			return ErrDamaged
		}
		b = b[k:]
		end += v
		if end > MaxBytes {
			return ErrDamaged
		}
		l.Ends[i] = uint32(end)
		end++
	}
	if uint64(len(b)) != end {
		return ErrDamaged
	}
	l.Text = b
	return nil
}

func splitLines(b []byte, ends []uint32) error {
	at := 0
	for i := range ends {
		k := bytes.IndexByte(b[at:], '\n')
		if k < 0 {
			return ErrDamaged
		}
		at += k
		ends[i] = uint32(at)
		at++
	}
	if at != len(b) {
		return ErrDamaged
	}
	return nil
}

func appendMeta(dst []byte, m *Meta) []byte {
	dst = record.AppendStream(dst, m.Stream)
	dst = binary.AppendUvarint(dst, m.First)
	dst = binary.AppendUvarint(dst, uint64(m.Lines))
	dst = binary.AppendVarint(dst, m.Min)
	dst = binary.AppendVarint(dst, m.Max)
	dst = binary.AppendUvarint(dst, m.Seq)
	dst = binary.AppendUvarint(dst, uint64(m.Ord))
	dst = binary.AppendUvarint(dst, uint64(m.Raw))
	for _, n := range m.Levels {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	for kind, f := range m.frames {
		if !m.has(kind) {
			continue
		}
		dst = appendFrame(dst, f)
	}
	return dst
}

func appendFrame(dst []byte, f frame) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, f.bytes)
	dst = binary.LittleEndian.AppendUint32(dst, f.raw)
	dst = binary.LittleEndian.AppendUint32(dst, f.crc)
	return append(dst, byte(f.packing))
}

// parseFrame reads what appendFrame wrote, in older blocks without the packing,
// which then is zstd. It is not ok when no frame is like that.
func parseFrame(b []byte) (f frame, ok bool) {
	f = frame{bytes: binary.LittleEndian.Uint32(b), raw: binary.LittleEndian.Uint32(b[4:]), crc: binary.LittleEndian.Uint32(b[8:])}
	if len(b) == frameBytes {
		f.packing = packing(b[frameBytes-1])
	}
	return f, f.raw <= MaxBytes && f.bytes <= MaxBytes && f.packing < packings
}

// has tells whether the header of a block like this one names such a frame.
func (m *Meta) has(kind int) bool {
	if kind == frameText {
		return !m.Templated()
	}
	return kind == frameTimes || kind == frameFields || m.Templated()
}

// frameBytes is what a header tells of a frame.
const frameBytes = 13

func parseMeta(b []byte, f form) (*Meta, error) {
	s, b, err := record.DecodeStream(b)
	if err != nil {
		return nil, ErrDamaged
	}
	m := &Meta{Stream: s, Hash: s.Hash(), form: f}
	bad := false
	u := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			bad, b = true, nil
			return 0
		}
		b = b[n:]
		return v
	}
	i := func() int64 {
		v, n := binary.Varint(b)
		if n <= 0 {
			bad, b = true, nil
			return 0
		}
		b = b[n:]
		return v
	}
	m.First = u()
	lines := u()
	m.Min, m.Max = i(), i()
	m.Seq = u()
	m.Ord = uint32(u())
	m.Raw = int64(u())
	for k := range m.Levels {
		m.Levels[k] = uint32(u())
	}
	kinds := []int{frameTimes, frameText, frameFields}
	if f.templated {
		kinds = []int{frameTimes, frameTemplates, frameIDs, frameColumns, frameFields}
	}
	size := frameBytes
	if !f.packed {
		size-- // all are zstd
	}
	if bad || len(b) != size*len(kinds) || lines == 0 || lines > MaxBytes {
		return nil, ErrDamaged
	}
	m.Lines = int(lines)
	for k, kind := range kinds {
		var ok bool
		if m.frames[kind], ok = parseFrame(b[size*k:][:size]); !ok {
			return nil, ErrDamaged
		}
	}
	if int64(m.Lines) > groupTimes*int64(m.frames[frameTimes].raw) || f.templated != m.Templated() {
		return nil, ErrDamaged
	}
	return m, nil
}

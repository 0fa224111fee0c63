package record

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Batch is what one append carries.
type Batch struct {
	Records   []Record
	Positions []Position
}

// ErrFormat says that bytes are not a batch.
var ErrFormat = errors.New("not a record batch")

const version = 1

// AppendBatch adds the written form of records and positions to dst. Records
// must have a stream.
func AppendBatch(dst []byte, records []Record, positions []Position) []byte {
	dst = append(dst, version)
	var streams []*Stream
	number := map[*Stream]uint64{}
	var last *Stream
	for i := range records {
		s := records[i].Stream
		if s == last {
			continue
		}
		if last = s; number[s] == 0 {
			streams = append(streams, s)
			number[s] = uint64(len(streams))
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(streams)))
	for _, s := range streams {
		dst = AppendStream(dst, s)
	}
	dst = binary.AppendUvarint(dst, uint64(len(positions)))
	for _, p := range positions {
		dst = appendString(dst, p.File)
		dst = binary.AppendUvarint(dst, p.Inode)
		dst = binary.LittleEndian.AppendUint64(dst, p.Print)
		dst = binary.AppendVarint(dst, p.Stdout)
		dst = binary.AppendVarint(dst, p.Stderr)
	}
	dst = binary.AppendUvarint(dst, uint64(len(records)))
	before, at := int64(0), uint64(0)
	last = nil
	for i := range records {
		r := &records[i]
		if r.Stream != last {
			last, at = r.Stream, number[r.Stream]-1
		}
		dst = binary.AppendUvarint(dst, at)
		dst = binary.AppendVarint(dst, r.Time-before)
		before = r.Time
		dst = append(dst, byte(r.Level))
		dst = binary.AppendUvarint(dst, uint64(len(r.Body)))
		dst = append(dst, r.Body...)
		dst = binary.AppendUvarint(dst, uint64(len(r.Fields)))
		for _, f := range r.Fields {
			dst = appendString(dst, f.Key)
			dst = appendString(dst, f.Value)
		}
	}
	return dst
}

// AppendStream adds the written form of a stream to dst.
func AppendStream(dst []byte, s *Stream) []byte {
	for _, v := range s.list() {
		dst = appendString(dst, *v)
	}
	return dst
}

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// DecodeStream reads what AppendStream wrote and returns the rest.
func DecodeStream(b []byte) (*Stream, []byte, error) {
	d := decoder{b: b}
	s := d.stream()
	if d.bad {
		return nil, nil, fmt.Errorf("decode stream: %w", ErrFormat)
	}
	return s, d.b, nil
}

// DecodeBatch reads what AppendBatch wrote. Bodies point into b.
func DecodeBatch(b []byte) (Batch, error) {
	if len(b) == 0 || b[0] != version {
		return Batch{}, fmt.Errorf("decode batch: %w", ErrFormat)
	}
	d := decoder{b: b[1:]}
	streams := make([]*Stream, d.count(8))
	for i := range streams {
		streams[i] = d.stream()
	}
	out := Batch{Positions: make([]Position, d.count(12))}
	for i := range out.Positions {
		p := &out.Positions[i]
		p.File = string(d.bytes())
		p.Inode = d.uvarint()
		if len(d.b) < 8 {
			d.bad = true
			break
		}
		p.Print = binary.LittleEndian.Uint64(d.b)
		d.b = d.b[8:]
		p.Stdout, p.Stderr = d.varint(), d.varint()
	}
	out.Records = make([]Record, d.count(5))
	before := int64(0)
	for i := range out.Records {
		r := &out.Records[i]
		k := d.uvarint()
		if k >= uint64(len(streams)) {
			d.bad = true
			break
		}
		r.Stream = streams[k]
		r.Time = before + d.varint()
		before = r.Time
		if len(d.b) == 0 {
			d.bad = true
			break
		}
		r.Level = Level(d.b[0])
		d.b = d.b[1:]
		r.Body = d.bytes()
		if n := d.count(2); n > 0 {
			r.Fields = make([]Field, n)
			for j := range r.Fields {
				r.Fields[j] = Field{Key: string(d.bytes()), Value: string(d.bytes())}
			}
		}
		if d.bad {
			break
		}
	}
	if d.bad || len(d.b) > 0 {
		return Batch{}, fmt.Errorf("decode batch: %w", ErrFormat)
	}
	return out, nil
}

// decoder reads from b and remembers when it could not.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads a number of things of at least size bytes each.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.b)/size) {
		d.bad, d.b = true, nil
		return 0
	}
	return int(n)
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

// stream reads labels into one piece of memory: there are many streams of few lines.
func (d *decoder) stream() *Stream {
	s := &Stream{}
	var room [256]byte
	var ends [8]int
	all := room[:0]
	for i := range ends {
		all = append(all, d.bytes()...)
		ends[i] = len(all)
	}
	text, start := string(all), 0
	for i, v := range s.list() {
		*v = text[start:ends[i]]
		start = ends[i]
	}
	return s
}

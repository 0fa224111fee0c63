package ingest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/klauspost/compress/gzip"
	"github.com/tinylib/msgp/msgp"

	"perch/logs/ingest/entry"
	"perch/logs/record"
)

var (
	errFormat = errors.New("not the Forward protocol")
	errLarge  = errors.New("message is too large")
)

// message is one message of the protocol, not yet taken apart.
type message struct {
	tag        string
	packed     []byte // entries, one after the other
	chunk      string // to acknowledge; empty when not asked for
	compressed bool
}

// decode reads the next message from b, which must hold it whole. rest is what
// follows. msgp.ErrShortBytes means that b does not hold it whole.
func decode(b []byte) (m message, rest []byte, err error) {
	n, b, err := msgp.ReadArrayHeaderBytes(b)
	if err != nil {
		return m, nil, err
	}
	if n < 2 || n > 4 {
		return m, nil, errFormat
	}
	tag, b, err := readText(b)
	if err != nil {
		return m, nil, err
	}
	m.tag = string(tag)
	left := n - 2
	switch msgp.NextType(b) {
	case msgp.BinType, msgp.StrType: // PackedForward
		if m.packed, b, err = readText(b); err != nil {
			return m, nil, err
		}
	case msgp.ArrayType: // Forward
		count, body, err := msgp.ReadArrayHeaderBytes(b)
		if err != nil {
			return m, nil, err
		}
		start := body
		for range count {
			if body, err = msgp.Skip(body); err != nil {
				return m, nil, err
			}
		}
		m.packed, b = start[:len(start)-len(body)], body
	default: // Message: time, record
		if left == 0 {
			return m, nil, errFormat
		}
		left--
		start := b
		for range 2 {
			if b, err = msgp.Skip(b); err != nil {
				return m, nil, err
			}
		}
		entry := start[:len(start)-len(b)]
		m.packed = append(append(make([]byte, 0, 1+len(entry)), 0x92), entry...)
	}
	if left > 1 {
		return m, nil, errFormat
	}
	if left == 1 {
		if b, err = m.options(b); err != nil {
			return m, nil, err
		}
	}
	return m, b, nil
}

func (m *message) options(b []byte) ([]byte, error) {
	if msgp.NextType(b) == msgp.NilType {
		return msgp.ReadNilBytes(b)
	}
	n, b, err := msgp.ReadMapHeaderBytes(b)
	if err != nil {
		return nil, err
	}
	for range n {
		key, after, err := readText(b)
		if err != nil {
			return nil, err
		}
		b = after
		switch k := string(key); k {
		case "chunk", "compressed":
			if t := msgp.NextType(b); t != msgp.StrType && t != msgp.BinType {
				if b, err = msgp.Skip(b); err != nil {
					return nil, err
				}
				continue
			}
			v, after, err := readText(b)
			if err != nil {
				return nil, err
			}
			b = after
			if k == "chunk" {
				m.chunk = string(v)
			} else {
				switch string(v) {
				case "gzip":
					m.compressed = true
				case "text", "":
				default:
					return nil, fmt.Errorf("%w: compression %q is not known", errFormat, v)
				}
			}
		default:
			if b, err = msgp.Skip(b); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

// readText reads a string or binary without copying.
func readText(b []byte) (v, rest []byte, err error) {
	switch msgp.NextType(b) {
	case msgp.StrType:
		return msgp.ReadStringZC(b)
	case msgp.BinType:
		return msgp.ReadBytesZC(b)
	case msgp.InvalidType:
		if len(b) == 0 {
			return nil, nil, msgp.ErrShortBytes
		}
	}
	return nil, nil, errFormat
}

// inflate unpacks gzip, also of several members, up to limit bytes. When they are
// more than few it asks before it goes on.
func inflate(b []byte, few, limit int64, ask func() error) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFormat, err)
	}
	var out bytes.Buffer
	for most := few; ; most = limit {
		if _, err := out.ReadFrom(io.LimitReader(z, most+1-int64(out.Len()))); err != nil {
			return nil, fmt.Errorf("%w: %w", errFormat, err)
		}
		switch n := int64(out.Len()); {
		case n > limit:
			return nil, fmt.Errorf("%w: more than %d bytes when unpacked", errLarge, limit)
		case n <= most:
			return out.Bytes(), nil
		}
		if err := ask(); err != nil {
			return nil, err
		}
	}
}

// The times, ns, by which Fluent Bit marks where a group of entries begins and ends.
const (
	groupBegin = -1e9
	groupEnd   = -2e9
)

// entries calls fn for each entry with its time, 0 for none, its metadata (nil if it has
// none) and its map. Entries that are something else are counted and left out;
// where the bytes stop being msgpack the rest counts as one.
func entries(b []byte, fn func(at int64, meta, fields []byte) error) (bad int, err error) {
	for len(b) > 0 {
		rest, err := msgp.Skip(b)
		if err != nil {
			return bad + 1, nil
		}
		at, meta, fields, ok := takeApart(b[:len(b)-len(rest)])
		b = rest
		if !ok {
			bad++
			continue
		}
		switch {
		case at == groupBegin || at == groupEnd:
			continue
		case at < 0: // a clock that is wrong
			at = 0
		}
		if err := fn(at, meta, fields); errors.Is(err, errFormat) {
			bad++
		} else if err != nil {
			return bad, err
		}
	}
	return bad, nil
}

// takeApart reads [time, map] or [[time, metadata], map] apart.
func takeApart(b []byte) (at int64, meta, fields []byte, ok bool) {
	n, b, err := msgp.ReadArrayHeaderBytes(b)
	if err != nil || n < 2 {
		return 0, nil, nil, false
	}
	if msgp.NextType(b) == msgp.ArrayType {
		k, inside, err := msgp.ReadArrayHeaderBytes(b)
		if err != nil || k < 1 {
			return 0, nil, nil, false
		}
		at, after, err := readTime(inside)
		if err != nil {
			return 0, nil, nil, false
		}
		if k > 1 && msgp.NextType(after) == msgp.MapType {
			end, err := msgp.Skip(after)
			if err != nil {
				return 0, nil, nil, false
			}
			meta = after[:len(after)-len(end)]
		}
		if b, err = msgp.Skip(b); err != nil {
			return 0, nil, nil, false
		}
		return at, meta, b, true
	}
	at, b, err = readTime(b)
	return at, nil, b, err == nil
}

// readTime reads EventTime, whole or broken seconds. 0 is no time, less is none
// either, or a mark.
func readTime(b []byte) (int64, []byte, error) {
	if len(b) == 0 {
		return 0, nil, errFormat
	}
	switch {
	case b[0] == 0xd7 && len(b) >= 10 && b[1] == 0:
		return seconds(b[2:]), b[10:], nil
	case b[0] == 0xc7 && len(b) >= 11 && b[1] == 8 && b[2] == 0:
		return seconds(b[3:]), b[11:], nil
	}
	switch msgp.NextType(b) {
	case msgp.Float64Type, msgp.Float32Type:
		f, rest, err := msgp.ReadFloat64Bytes(b)
		if err != nil || math.IsNaN(f) || math.Abs(f) > 9e9 {
			return 0, nil, errFormat
		}
		whole, part := math.Modf(f)
		return int64(whole)*1e9 + int64(part*1e9), rest, nil
	case msgp.IntType, msgp.UintType:
		i, rest, err := msgp.ReadInt64Bytes(b)
		if err != nil || i < -9e9 || i > 9e9 {
			return 0, nil, errFormat
		}
		return i * 1e9, rest, nil
	case msgp.NilType:
		rest, err := msgp.ReadNilBytes(b)
		return 0, rest, err
	}
	return 0, nil, errFormat
}

// seconds reads the eight bytes of an EventTime; its mark of a group is a
// negative number of seconds.
func seconds(b []byte) int64 {
	if s := int32(binary.BigEndian.Uint32(b)); s < 0 && s >= -2 {
		return int64(s) * 1e9
	}
	return int64(binary.BigEndian.Uint32(b))*1e9 + int64(binary.BigEndian.Uint32(b[4:]))
}

// fill takes an entry's map apart: the line becomes the body, the rest fields.
// When nothing is the line, the whole map is, as JSON. Both are cut with a marker
// where they are too long. It tells how many fields were more than entry.MaxFields
// and are left out.
func fill(r *record.Record, fields []byte) (left int, err error) {
	n, b, err := msgp.ReadMapHeaderBytes(fields)
	if err != nil {
		return 0, errFormat
	}
	best := len(entry.BodyKeys())
	at := -1
	room := roomBeside(r)
	for range n {
		key, rest, err := readKey(b, 0)
		if err != nil {
			return 0, errFormat
		}
		if b, err = msgp.Skip(rest); err != nil {
			return 0, errFormat
		}
		kind := msgp.NextType(rest)
		plain := kind == msgp.StrType || kind == msgp.BinType
		if plain {
			raw, _, err := readText(rest)
			if err != nil {
				return 0, errFormat
			}
			if rank := slices.IndexFunc(entry.BodyKeys()[:best], func(k string) bool { return string(key) == k }); rank >= 0 {
				if at >= 0 { // a worse one is only a field
					left += entry.Add(r, entry.BodyKeys()[best], room.text(r.Body))
				}
				best, at = rank, rank
				r.Body = trimEnd(raw)
				continue
			}
			rest = raw
		} else {
			rest = rest[:len(rest)-len(b)]
		}
		if len(r.Fields) >= entry.MaxFields {
			left++
			continue
		}
		value := ""
		if plain {
			value = room.text(rest)
		} else if value, err = room.json(rest); err != nil {
			return 0, errFormat
		}
		left += entry.Add(r, name(key), value)
	}
	if at < 0 {
		text, err := jsonOf(fields, record.MaxBody)
		if err != nil {
			return 0, errFormat
		}
		r.Body, r.Fields, left = text, nil, 0
		return 0, nil
	}
	entry.Cut(r)
	return left, nil
}

// trimEnd leaves out the end of line.
func trimEnd(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == '\r') {
		b = b[:len(b)-1]
	}
	return b
}

// fillMeta adds an entry's metadata as fields. They tell the level if the map does not.
func fillMeta(r *record.Record, meta []byte) (left int, err error) {
	n, b, err := msgp.ReadMapHeaderBytes(meta)
	if err != nil {
		return 0, errFormat
	}
	room := roomBeside(r)
	for range n {
		key, rest, err := readKey(b, 0)
		if err != nil {
			return 0, errFormat
		}
		if b, err = msgp.Skip(rest); err != nil {
			return 0, errFormat
		}
		value := ""
		if text, _, err := readText(rest); err == nil {
			value = room.text(text)
		} else if value, err = room.json(rest[:len(rest)-len(b)]); err != nil {
			return 0, errFormat
		}
		left += entry.Add(r, "metadata."+name(key), value)
		entry.Level(r, string(key), value)
	}
	return left, nil
}

package ingest

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/klauspost/compress/gzip"
	"github.com/tinylib/msgp/msgp"

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

// inflate unpacks gzip, also of several members, up to limit bytes.
func inflate(b []byte, limit int64) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFormat, err)
	}
	out, err := io.ReadAll(io.LimitReader(z, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFormat, err)
	}
	if int64(len(out)) > limit {
		return nil, fmt.Errorf("%w: more than %d bytes when unpacked", errLarge, limit)
	}
	return out, nil
}

// entries calls fn for each entry with its time and its map.
func entries(b []byte, fn func(at int64, fields []byte) error) error {
	for len(b) > 0 {
		n, body, err := msgp.ReadArrayHeaderBytes(b)
		if err != nil || n < 2 {
			return errFormat
		}
		at, body, err := readTime(body, 0)
		if err != nil {
			return errFormat
		}
		rest, err := msgp.Skip(body)
		if err != nil {
			return errFormat
		}
		if err := fn(at, body[:len(body)-len(rest)]); err != nil {
			return err
		}
		for range n - 2 {
			if rest, err = msgp.Skip(rest); err != nil {
				return errFormat
			}
		}
		b = rest
	}
	return nil
}

// readTime reads EventTime, whole or broken seconds, or [time, metadata]. 0 is
// no time.
func readTime(b []byte, depth int) (int64, []byte, error) {
	if len(b) == 0 || depth > 1 {
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
		if err != nil || i < 0 || i > 9e9 {
			return 0, nil, errFormat
		}
		return i * 1e9, rest, nil
	case msgp.NilType:
		rest, err := msgp.ReadNilBytes(b)
		return 0, rest, err
	case msgp.ArrayType:
		n, rest, err := msgp.ReadArrayHeaderBytes(b)
		if err != nil || n < 1 {
			return 0, nil, errFormat
		}
		at, rest, err := readTime(rest, depth+1)
		for i := uint32(1); i < n && err == nil; i++ {
			rest, err = msgp.Skip(rest)
		}
		return at, rest, err
	}
	return 0, nil, errFormat
}

func seconds(b []byte) int64 {
	return int64(binary.BigEndian.Uint32(b))*1e9 + int64(binary.BigEndian.Uint32(b[4:]))
}

// Keys that hold the line, best first.
func bodyKeys() []string { return []string{"log", "message", "msg", "MESSAGE"} }

const maxFields = 128 // of one entry

// fill takes an entry's map apart: the line becomes the body, the rest fields.
// When nothing is the line, the whole map is, as JSON.
func fill(r *record.Record, fields []byte) error {
	n, b, err := msgp.ReadMapHeaderBytes(fields)
	if err != nil {
		return errFormat
	}
	best := len(bodyKeys())
	at := -1
	for range n {
		key, rest, err := readText(b)
		if err != nil {
			return errFormat
		}
		var value string
		var raw []byte
		switch msgp.NextType(rest) {
		case msgp.StrType, msgp.BinType:
			if raw, b, err = readText(rest); err != nil {
				return errFormat
			}
			for rank, k := range bodyKeys()[:best] {
				if string(key) == k {
					if at >= 0 { // a worse one is only a field
						r.Fields = append(r.Fields, record.Field{Key: bodyKeys()[best], Value: string(r.Body)})
					}
					best, at = rank, rank
					r.Body = bytes.TrimRight(raw, "\r\n")
					raw = nil
					break
				}
			}
			if raw == nil {
				continue
			}
			value = string(raw)
		default:
			after, err := msgp.Skip(rest)
			if err != nil {
				return errFormat
			}
			if value, err = jsonOf(rest[:len(rest)-len(after)]); err != nil {
				return err
			}
			b = after
		}
		if len(r.Fields) < maxFields {
			r.Fields = append(r.Fields, record.Field{Key: string(key), Value: value})
		}
	}
	if at < 0 {
		text, err := jsonOf(fields)
		if err != nil {
			return err
		}
		r.Body, r.Fields = []byte(text), nil
	}
	return nil
}

// jsonOf writes a msgpack value as JSON; numbers and truth values plain.
func jsonOf(b []byte) (string, error) {
	out, rest, err := appendJSON(nil, b, 0)
	if err != nil || len(rest) > 0 {
		return "", errFormat
	}
	return string(out), nil
}

const maxDepth = 32

func appendJSON(dst, b []byte, depth int) (out, rest []byte, err error) {
	if depth > maxDepth {
		return nil, nil, errFormat
	}
	switch msgp.NextType(b) {
	case msgp.StrType, msgp.BinType:
		v, rest, err := readText(b)
		if err != nil {
			return nil, nil, err
		}
		if !utf8.Valid(v) && msgp.NextType(b) == msgp.BinType {
			v = []byte(base64.StdEncoding.EncodeToString(v))
		}
		return appendString(dst, v), rest, nil
	case msgp.MapType:
		n, b, err := msgp.ReadMapHeaderBytes(b)
		if err != nil {
			return nil, nil, err
		}
		dst = append(dst, '{')
		for i := range n {
			if i > 0 {
				dst = append(dst, ',')
			}
			key, after, err := readText(b)
			if err != nil {
				return nil, nil, err
			}
			dst = append(appendString(dst, key), ':')
			if dst, b, err = appendJSON(dst, after, depth+1); err != nil {
				return nil, nil, err
			}
		}
		return append(dst, '}'), b, nil
	case msgp.ArrayType:
		n, b, err := msgp.ReadArrayHeaderBytes(b)
		if err != nil {
			return nil, nil, err
		}
		dst = append(dst, '[')
		for i := range n {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, b, err = appendJSON(dst, b, depth+1); err != nil {
				return nil, nil, err
			}
		}
		return append(dst, ']'), b, nil
	case msgp.NilType:
		rest, err := msgp.ReadNilBytes(b)
		return append(dst, "null"...), rest, err
	case msgp.BoolType:
		v, rest, err := msgp.ReadBoolBytes(b)
		return strconv.AppendBool(dst, v), rest, err
	case msgp.IntType:
		v, rest, err := msgp.ReadInt64Bytes(b)
		return strconv.AppendInt(dst, v, 10), rest, err
	case msgp.UintType:
		v, rest, err := msgp.ReadUint64Bytes(b)
		return strconv.AppendUint(dst, v, 10), rest, err
	case msgp.Float64Type, msgp.Float32Type:
		v, rest, err := msgp.ReadFloat64Bytes(b)
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return append(dst, "null"...), rest, err
		}
		return strconv.AppendFloat(dst, v, 'g', -1, 64), rest, err
	}
	rest, err = msgp.Skip(b) // extensions have no JSON
	return append(dst, "null"...), rest, err
}

const hexDigits = "0123456789abcdef"

func appendString(dst, s []byte) []byte {
	dst = append(dst, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

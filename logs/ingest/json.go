package ingest

import (
	"encoding/base64"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"

	"perch/logs/ingest/entry"
	"perch/logs/record"
)

const (
	maxDepth = 32      // of values within each other; what is deeper is told, not written
	maxName  = 1 << 10 // bytes of a field's name, as record.CutFields has it
	// maxValues of an entry have so many bytes together. With names and what is common
	// to all entries they are what a record may have, so nothing is cut a second time.
	maxValues = record.MaxFields - (entry.MaxFields+2)*(maxName+64)
)

// fieldRoom is how many bytes values of an entry's fields may still have. What is
// beyond is cut before it is copied.
type fieldRoom int

// roomBeside is what the fields of r leave.
func roomBeside(r *record.Record) fieldRoom {
	left := maxValues
	for _, f := range r.Fields {
		left -= len(f.Value)
	}
	return fieldRoom(max(0, left))
}

// text is a field's value as it came.
func (f *fieldRoom) text(b []byte) string {
	n := min(len(b), int(*f))
	*f -= fieldRoom(n)
	if n == len(b) {
		return string(b)
	}
	return string(record.Marked(b[:n:n], int64(len(b)-n)))
}

// json is a field's value written as JSON.
func (f *fieldRoom) json(b []byte) (string, error) {
	text, err := jsonOf(b, int(*f))
	*f -= fieldRoom(min(len(text), int(*f)))
	return string(text), err
}

// readKey reads a map's key. One that is no text, as a number is, becomes its JSON.
func readKey(b []byte, depth int) (key, rest []byte, err error) {
	switch msgp.NextType(b) {
	case msgp.StrType, msgp.BinType:
		return readText(b)
	}
	if rest, err = msgp.Skip(b); err != nil {
		return nil, nil, err
	}
	w := jsonWriter{most: maxName / 2}
	if _, err := w.value(b, depth+1); err != nil {
		return nil, nil, err
	}
	return record.Marked(w.out, w.more), rest, nil
}

// name is a field's name, of a sensible length.
func name(key []byte) string {
	if len(key) <= maxName {
		return string(key)
	}
	return string(record.Marked(key[:maxName:maxName], int64(len(key)-maxName)))
}

// jsonOf writes a msgpack value as JSON; numbers and truth values plain. Beyond
// most bytes it says how many more there are.
func jsonOf(b []byte, most int) ([]byte, error) {
	w := jsonWriter{most: most}
	rest, err := w.value(b, 0)
	if err != nil || len(rest) > 0 {
		return nil, errFormat
	}
	return record.Marked(w.out, w.more), nil
}

// jsonWriter keeps most bytes of what is written and counts those that are more: a
// byte on the way may be six of JSON.
type jsonWriter struct {
	out  []byte
	most int
	more int64
}

func (w *jsonWriter) put(b []byte) {
	n := min(len(b), w.most-len(w.out))
	w.out = append(w.out, b[:n]...)
	w.more += int64(len(b) - n)
}

func (w *jsonWriter) puts(s string) {
	n := min(len(s), w.most-len(w.out))
	w.out = append(w.out, s[:n]...)
	w.more += int64(len(s) - n)
}

// value writes what b begins with and returns what follows.
func (w *jsonWriter) value(b []byte, depth int) (rest []byte, err error) {
	if depth > maxDepth {
		w.puts(`"…[too deep]"`)
		return msgp.Skip(b)
	}
	var room [32]byte
	switch msgp.NextType(b) {
	case msgp.StrType, msgp.BinType:
		v, rest, err := readText(b)
		switch {
		case err != nil:
		case msgp.NextType(b) == msgp.BinType && !utf8.Valid(v):
			w.base64(v)
		default:
			w.text(v)
		}
		return rest, err
	case msgp.MapType:
		n, b, err := msgp.ReadMapHeaderBytes(b)
		if err != nil {
			return nil, err
		}
		w.puts("{")
		for i := range n {
			if i > 0 {
				w.puts(",")
			}
			key, after, err := readKey(b, depth)
			if err != nil {
				return nil, err
			}
			w.text(key)
			w.puts(":")
			if b, err = w.value(after, depth+1); err != nil {
				return nil, err
			}
		}
		w.puts("}")
		return b, nil
	case msgp.ArrayType:
		n, b, err := msgp.ReadArrayHeaderBytes(b)
		if err != nil {
			return nil, err
		}
		w.puts("[")
		for i := range n {
			if i > 0 {
				w.puts(",")
			}
			if b, err = w.value(b, depth+1); err != nil {
				return nil, err
			}
		}
		w.puts("]")
		return b, nil
	case msgp.BoolType:
		v, rest, err := msgp.ReadBoolBytes(b)
		w.put(strconv.AppendBool(room[:0], v))
		return rest, err
	case msgp.IntType:
		v, rest, err := msgp.ReadInt64Bytes(b)
		w.put(strconv.AppendInt(room[:0], v, 10))
		return rest, err
	case msgp.UintType:
		v, rest, err := msgp.ReadUint64Bytes(b)
		w.put(strconv.AppendUint(room[:0], v, 10))
		return rest, err
	case msgp.Float64Type, msgp.Float32Type:
		v, rest, err := msgp.ReadFloat64Bytes(b)
		if math.IsNaN(v) || math.IsInf(v, 0) {
			w.puts("null")
			return rest, err
		}
		w.put(strconv.AppendFloat(room[:0], v, 'g', -1, 64))
		return rest, err
	}
	w.puts("null") // nil; extensions have no JSON
	return msgp.Skip(b)
}

const hexDigits = "0123456789abcdef"

func (w *jsonWriter) text(s []byte) {
	w.puts(`"`)
	start := 0
	for i, c := range s {
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		w.put(s[start:i])
		start = i + 1
		if c < 0x20 {
			w.put([]byte{'\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15]})
		} else {
			w.put([]byte{'\\', c})
		}
	}
	w.put(s[start:])
	w.puts(`"`)
}

// base64 writes bytes that are no text; those that have no room are only counted.
func (w *jsonWriter) base64(v []byte) {
	w.puts(`"`)
	head := v[:min(len(v), (w.most-len(w.out))/4*3+3)]
	w.put(base64.StdEncoding.AppendEncode(nil, head))
	w.more += int64(base64.StdEncoding.EncodedLen(len(v)) - base64.StdEncoding.EncodedLen(len(head)))
	w.puts(`"`)
}

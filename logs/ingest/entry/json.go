package entry

import (
	"bytes"
	"encoding/json"
	"strconv"

	"perch/logs/record"
)

// Read says what an entry held.
type Read struct {
	Timed bool // the sender gave a time
	Left  int  // fields beyond MaxFields
}

// FromJSON fills time, level, body and fields of r from an object. Objects
// within become fields with dots in their names, unless they are deeper than 8 or
// their own name is longer than 1 KiB. When nothing is the line, the
// whole object is. ok is false for what is no object; r is then unchanged.
func FromJSON(r *record.Record, doc []byte) (have Read, ok bool) {
	doc = bytes.Trim(doc, " \t\r\n") // what JSON takes for space
	if len(doc) == 0 || doc[0] != '{' || !json.Valid(doc) {
		return have, false
	}
	w := walker{r: r, best: len(BodyKeys())}
	w.object("", doc, 0)
	if w.body == nil {
		r.Body, r.Fields, w.left = doc, nil, 0
	} else {
		r.Body = bytes.TrimRight(w.body, "\r\n")
	}
	return Read{Timed: w.timed, Left: w.left}, true
}

type walker struct {
	r     *record.Record
	body  []byte
	best  int // rank of body among the names, len for none
	timed bool
	left  int
}

const (
	maxDepth  = 8       // deeper objects are values as they stand
	maxPrefix = 1 << 10 // bytes of an object's name; those of longer ones are too
)

// object goes through a valid object.
func (w *walker) object(prefix string, b []byte, depth int) {
	b = skipSpace(b[1:])
	for b[0] != '}' {
		n := extent(b)
		key := ""
		if depth == 0 || !w.full() {
			key = prefix + text(b[:n])
		}
		b = skipSpace(skipSpace(b[n:])[1:])
		n = extent(b)
		w.value(key, b[:n], depth)
		if b = skipSpace(b[n:]); b[0] == ',' {
			b = skipSpace(b[1:])
		}
	}
}

// full tells that members of objects within are only counted: they get no name.
func (w *walker) full() bool { return len(w.r.Fields) >= MaxFields }

func (w *walker) value(key string, v []byte, depth int) {
	if v[0] == '{' && depth < maxDepth && len(key) <= maxPrefix && !bytes.Equal(v, []byte("{}")) {
		w.object(key+".", v, depth+1)
		return
	}
	if depth > 0 && w.full() { // neither the line nor its time has such a name
		w.left++
		return
	}
	if timeKey(key) && !w.timed {
		if ns, ok := stamp(v); ok {
			w.r.Time, w.timed = ns, true
			return
		}
	}
	s := string(v)
	if v[0] == '"' {
		s = text(v)
		for rank, k := range BodyKeys()[:w.best] {
			if key != k {
				continue
			}
			if w.body != nil { // a worse one is only a field
				w.left += Add(w.r, BodyKeys()[w.best], string(w.body))
			}
			w.body, w.best = []byte(s), rank
			return
		}
	}
	w.left += Add(w.r, key, s)
}

func stamp(v []byte) (int64, bool) {
	if v[0] == '"' {
		s := text(v)
		if ns, ok := Clock(s); ok {
			return ns, true
		}
		v = []byte(s)
	}
	if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
		u := unit(float64(n))
		return n * u, u > 0
	}
	n, err := strconv.ParseFloat(string(v), 64)
	if err != nil {
		return 0, false
	}
	u := unit(n)
	return int64(n * float64(u)), u > 0
}

func skipSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t' || b[0] == '\n' || b[0] == '\r') {
		b = b[1:]
	}
	return b
}

// extent is the length of the value at the start of valid JSON.
func extent(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			for i++; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 { // ends what the value is in
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
		}
	}
	return len(b)
}

// text is a valid JSON string without quotes and escapes.
func text(b []byte) string {
	if in := b[1 : len(b)-1]; bytes.IndexByte(in, '\\') < 0 {
		return string(in) // also what is not UTF-8: it is kept as it stands
	}
	var s string
	if json.Unmarshal(b, &s) != nil {
		return string(b)
	}
	return s
}

// Pairs are the members of a JSON object in its own order, texts plain and other
// values as they stand. ok is false for what is no object.
func Pairs(doc []byte) (out []record.Field, ok bool) {
	if len(doc) == 0 || doc[0] != '{' || !json.Valid(doc) {
		return nil, false
	}
	for b := skipSpace(doc[1:]); b[0] != '}'; {
		n := extent(b)
		f := record.Field{Key: text(b[:n])}
		b = skipSpace(skipSpace(b[n:])[1:])
		n = extent(b)
		if f.Value = string(b[:n]); b[0] == '"' {
			f.Value = text(b[:n])
		}
		out = append(out, f)
		if b = skipSpace(b[n:]); b[0] == ',' {
			b = skipSpace(b[1:])
		}
	}
	return out, true
}

package query

import (
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"
)

func stringBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// pair is a field found in a line. Nested JSON keys are joined by dots.
type pair struct {
	Key   string
	Value string
}

const (
	maxFields    = 256 // of one line
	maxJSONDepth = 16
	maxName      = 1 << 10 // bytes of a name that is put together; longer ones are none
)

// AppendLineFields adds the fields a line says: those of a JSON object, else
// those of a well-known shape and then the key=value pairs anywhere in the rest.
// Those in dst take none of their room.
func AppendLineFields(dst []pair, body []byte) []pair {
	return append(dst, lineFields(dst[len(dst):], body)...)
}

func lineFields(dst []pair, body []byte) []pair {
	if out := appendJSONLine(dst, body); len(out) > 0 {
		return out
	}
	dst, rest := appendShape(dst, body)
	if len(rest) < len(body) { // a message that may be JSON itself
		if out := appendJSONLine(dst, rest); len(out) > len(dst) {
			return out
		}
	}
	return appendLogfmt(dst, rest)
}

func appendJSONLine(dst []pair, b []byte) []pair {
	i := 0
	for i < len(b) && isSpace(b[i]) {
		i++
	}
	if i < len(b) && b[i] == '{' {
		return appendJSONFields(dst, b[i:])
	}
	return dst
}

// appendJSONFields adds the leaves of a JSON object, or nothing when b is not
// one.
func appendJSONFields(dst []pair, b []byte) []pair {
	if len(b) == 0 {
		return dst
	}
	s := jsonScanner{b: b, out: dst}
	if s.object(0) {
		s.space()
		if s.at == len(b) {
			return s.out
		}
	}
	return dst
}

type jsonScanner struct {
	b    []byte
	at   int
	out  []pair
	keys [maxJSONDepth + 1]string // of the member that is read and of the objects around it
}

func (s *jsonScanner) space() {
	for s.at < len(s.b) && isSpace(s.b[s.at]) {
		s.at++
	}
}

func (s *jsonScanner) take(c byte) bool {
	if s.at < len(s.b) && s.b[s.at] == c {
		s.at++
		return true
	}
	return false
}

func (s *jsonScanner) object(depth int) bool {
	if depth > maxJSONDepth || !s.take('{') {
		return false
	}
	s.space()
	if s.take('}') {
		return true
	}
	for {
		s.space()
		key, ok := s.text()
		if !ok {
			return false
		}
		s.space()
		if !s.take(':') {
			return false
		}
		s.keys[depth] = key
		s.space()
		if !s.value(depth) {
			return false
		}
		s.space()
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

// add puts the member that is read at the end. Only now it gets its name: objects
// within may be many, fields are not.
func (s *jsonScanner) add(value string, depth int) {
	if len(s.out) < maxFields {
		s.out = append(s.out, pair{dotted(s.keys[:depth+1]...), value})
	}
}

// dotted is a name of several parts, "" when it would be too long: a field without
// a name takes its room among those of the line, and nobody can ask for it.
func dotted(parts ...string) string {
	for len(parts) > 1 && parts[0] == "" {
		parts = parts[1:]
	}
	size := len(parts) - 1
	for _, p := range parts {
		size += len(p)
	}
	if len(parts) > 1 && size > maxName {
		return ""
	}
	return strings.Join(parts, ".")
}

func (s *jsonScanner) value(depth int) bool {
	if s.at == len(s.b) {
		return false
	}
	switch s.b[s.at] {
	case '{':
		return s.object(depth + 1)
	case '"':
		v, ok := s.text()
		s.add(v, depth)
		return ok
	case '[':
		start := s.at
		if !s.array(depth + 1) {
			return false
		}
		s.add(string(s.b[start:s.at]), depth)
		return true
	}
	start := s.at
	for s.at < len(s.b) && (wordByte(s.b[s.at]) || s.b[s.at] == '.' || s.b[s.at] == '-' || s.b[s.at] == '+') {
		s.at++
	}
	if s.at == start {
		return false
	}
	s.add(string(s.b[start:s.at]), depth)
	return true
}

// array skips to the end of an array.
func (s *jsonScanner) array(depth int) bool {
	if depth > maxJSONDepth || !s.take('[') {
		return false
	}
	open := 1
	for s.at < len(s.b) {
		switch c := s.b[s.at]; c {
		case '"':
			if _, ok := s.text(); !ok {
				return false
			}
			continue
		case '[', '{':
			open++
		case ']', '}':
			open--
		}
		s.at++
		if open == 0 {
			return true
		}
	}
	return false
}

// text reads a JSON string.
func (s *jsonScanner) text() (string, bool) {
	if !s.take('"') {
		return "", false
	}
	start := s.at
	for s.at < len(s.b) {
		switch s.b[s.at] {
		case '"':
			s.at++
			return string(s.b[start : s.at-1]), true
		case '\\':
			return s.escaped(start)
		}
		s.at++
	}
	return "", false
}

func (s *jsonScanner) escaped(start int) (string, bool) {
	var out strings.Builder
	out.Write(s.b[start:s.at])
	for s.at < len(s.b) {
		c := s.b[s.at]
		s.at++
		switch c {
		case '"':
			return out.String(), true
		case '\\':
			if s.at == len(s.b) {
				return "", false
			}
			e := s.b[s.at]
			s.at++
			switch e {
			case 'n':
				out.WriteByte('\n')
			case 't':
				out.WriteByte('\t')
			case 'r':
				out.WriteByte('\r')
			case 'b':
				out.WriteByte('\b')
			case 'f':
				out.WriteByte('\f')
			case 'u':
				r, ok := s.hex()
				if !ok {
					return "", false
				}
				if r >= 0xd800 && r < 0xdc00 && s.at+6 <= len(s.b) && s.b[s.at] == '\\' && s.b[s.at+1] == 'u' {
					s.at += 2
					low, ok := s.hex()
					if !ok {
						return "", false
					}
					if low >= 0xdc00 && low < 0xe000 {
						r = (r-0xd800)<<10 | (low - 0xdc00) + 0x10000
					}
				}
				if !utf8.ValidRune(r) {
					r = utf8.RuneError
				}
				out.WriteRune(r)
			default:
				out.WriteByte(e)
			}
		default:
			out.WriteByte(c)
		}
	}
	return "", false
}

func (s *jsonScanner) hex() (rune, bool) {
	if s.at+4 > len(s.b) {
		return 0, false
	}
	v, err := strconv.ParseUint(string(s.b[s.at:s.at+4]), 16, 32)
	s.at += 4
	return rune(v), err == nil
}

// appendLogfmt adds key=value pairs that stand at the start of a token.
func appendLogfmt(dst []pair, b []byte) []pair {
	for i := 0; i < len(b) && len(dst) < maxFields; {
		for i < len(b) && (isSpace(b[i]) || b[i] == ',' || b[i] == '[' || b[i] == '{' || b[i] == '(') {
			i++
		}
		start := i
		for i < len(b) && keyByte(b[i]) {
			i++
		}
		if i == start || i == len(b) || b[i] != '=' || !letterByte(b[start]) {
			for i < len(b) && !isSpace(b[i]) {
				i++
			}
			continue
		}
		key := string(b[start:i])
		i++
		if i < len(b) && b[i] == '"' {
			s := jsonScanner{b: b, at: i}
			if v, ok := s.text(); ok {
				dst = append(dst, pair{key, v})
				i = s.at
				continue
			}
		}
		start = i
		for i < len(b) && !isSpace(b[i]) {
			i++
		}
		v := strings.TrimRight(string(b[start:i]), ",;)]}")
		dst = append(dst, pair{key, v})
	}
	return dst
}

func letterByte(c byte) bool { c |= 0x20; return c >= 'a' && c <= 'z' || c == '_' || c >= 0x80 }

func keyByte(c byte) bool {
	return wordByte(c) || c == '.' || c == '-' || c == '/' || c == '@'
}

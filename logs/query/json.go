package query

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"perch/logs/record"
)

// AppendJSON writes the line as one JSON object without a newline. Bytes that
// are not UTF-8 are shown as \xNN in the text and the fields.
func (l *Line) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"time":"`...)
	dst = time.Unix(0, l.Time).UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","id":"`...)
	dst = append(dst, l.ID()...)
	dst = append(dst, '"')
	s := l.Stream
	for _, f := range [...]struct{ key, value string }{
		{"namespace", s.Namespace}, {"pod", s.Pod}, {"container", s.Container}, {"uid", s.UID}, {"instance", s.Instance},
		{"node", s.Node}, {"stream", s.Output}, {"level", l.Level.String()}, {"kind", s.Kind},
	} {
		dst = append(dst, ',', '"')
		dst = append(dst, f.key...)
		dst = append(dst, '"', ':')
		dst = appendText(dst, stringBytes(f.value))
	}
	dst = append(dst, `,"line":`...)
	dst = appendText(dst, l.Body)
	if len(l.Fields) > 0 {
		dst = append(dst, `,"fields":`...)
		if json.Valid(l.Fields) { // such bytes are within texts only
			dst = appendEscaped(dst, l.Fields)
		} else {
			dst = append(dst, "{}"...)
		}
	}
	return append(dst, '}')
}

const hexDigits = "0123456789abcdef"

func appendText(dst, s []byte) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			switch {
			case c == '"' || c == '\\':
				dst = append(dst, '\\', c)
			case c == '\n':
				dst = append(dst, '\\', 'n')
			case c == '\t':
				dst = append(dst, '\\', 't')
			case c == '\r':
				dst = append(dst, '\\', 'r')
			case c < 0x20 || c == 0x7f:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			default:
				dst = append(dst, c)
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(s[i:])
		if r == utf8.RuneError && n == 1 {
			dst = append(dst, '\\', '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
		} else {
			dst = append(dst, s[i:i+n]...)
		}
		i += n
	}
	return append(dst, '"')
}

// appendEscaped writes JSON, with the bytes of its texts that are not UTF-8 escaped.
func appendEscaped(dst, b []byte) []byte {
	if utf8.Valid(b) {
		return append(dst, b...)
	}
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			dst = append(dst, '\\', '\\', 'x', hexDigits[b[0]>>4], hexDigits[b[0]&15])
		} else {
			dst = append(dst, b[:n]...)
		}
		b = b[n:]
	}
	return dst
}

// shown is text as appendText shows it in JSON: bytes that are not UTF-8 escaped.
func shown(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	var b strings.Builder
	for i, r := range text {
		if _, n := utf8.DecodeRuneInString(text[i:]); r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&b, `\x%02x`, text[i])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// lineJSON is the written form of a Line.
type lineJSON struct {
	Time      time.Time       `json:"time"`
	ID        string          `json:"id"`
	Namespace string          `json:"namespace"`
	Pod       string          `json:"pod"`
	Container string          `json:"container"`
	UID       string          `json:"uid"`
	Instance  string          `json:"instance"`
	Node      string          `json:"node"`
	Stream    string          `json:"stream"`
	Level     string          `json:"level"`
	Kind      string          `json:"kind"`
	Line      *string         `json:"line"`
	Fields    json.RawMessage `json:"fields"`
}

// ParseLine reads what AppendJSON wrote. ok is false for an object that is no
// line, as the last of an answer.
func ParseLine(b []byte) (l *Line, ok bool, err error) {
	var j lineJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, false, fmt.Errorf("read line of an answer: %w", err)
	}
	if j.Line == nil {
		return nil, false, nil
	}
	h, n, err := ParseID(j.ID)
	if err != nil {
		return nil, false, err
	}
	level, _ := record.ParseLevel(j.Level)
	return &Line{
		Cursor: Cursor{j.Time.UnixNano(), h, n}, Level: level, Body: []byte(*j.Line), Fields: j.Fields,
		Stream: &record.Stream{Namespace: j.Namespace, Pod: j.Pod, UID: j.UID, Container: j.Container, Instance: j.Instance, Node: j.Node, Output: j.Stream, Kind: j.Kind},
	}, true, nil
}

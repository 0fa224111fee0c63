package query

import (
	"bytes"
	"encoding/json"
	"maps"
	"testing"
	"time"
	"unicode/utf8"

	"perch/logs/block"
	"perch/logs/record"
)

// Lines go from node to node as JSON.
func FuzzParseLine(f *testing.F) {
	f.Add([]byte("a line"), []byte(`{"a":"b"}`), "web-1", int64(5), uint64(1)<<63)
	f.Add([]byte("caf\xe9 \x00 \n\t\u2028"), []byte(nil), "é\"\\", int64(-1), uint64(0))
	f.Add([]byte(`{"line":null}`), []byte(`{"a"`), "", int64(1)<<62, uint64(7))
	f.Fuzz(func(t *testing.T, body, fields []byte, pod string, at int64, number uint64) {
		_, _, _ = ParseLine(body) // whatever it is
		year := time.Unix(0, at).UTC().Year()
		if !utf8.Valid(body) || !utf8.ValidString(pod) || year < 0 || year > 9999 {
			return // shown escaped; no time of RFC 3339
		}
		want := Line{Cursor: Cursor{at, number ^ 0xff, number}, Stream: &record.Stream{Namespace: "shop", Pod: pod, Kind: record.KindLog}, Level: record.Warn, Body: body}
		if len(fields) > 0 && fields[0] == '{' && utf8.Valid(fields) && json.Valid(fields) {
			want.Fields = fields
		}
		text := want.AppendJSON(nil)
		have, ok, err := ParseLine(text)
		if err != nil || !ok || have.Cursor != want.Cursor || *have.Stream != *want.Stream || have.Level != want.Level || !bytes.Equal(have.Body, want.Body) {
			t.Fatalf("%s: have %+v %+v, want %+v %+v (%v)", text, have, have.Stream, want, want.Stream, err)
		}
		if !bytes.Equal(have.Fields, bytes.TrimSpace(want.Fields)) {
			t.Fatalf("have %s, want %s", have.Fields, want.Fields)
		}
	})
}

// One byte of one field leaves out nothing.
func TestFieldsThatAreNotUTF8AreShownAsTextIs(t *testing.T) {
	sent := block.AppendFields(nil, []record.Field{{Key: "user", Value: "42"}, {Key: "name", Value: "Jos\xe9 \"é\\"}, {Key: "k\xff", Value: "\x01\xf0\x9f"}})
	l := Line{Stream: &record.Stream{}, Body: []byte("caf\xe9"), Fields: sent}
	var have struct {
		Line   string
		Fields map[string]string
	}
	text := l.AppendJSON(nil)
	if err := json.Unmarshal(text, &have); err != nil || !utf8.Valid(text) {
		t.Fatalf("%q (%v)", text, err)
	}
	want := map[string]string{"user": "42", "name": `Jos\xe9 "é\`, `k\xff`: "\x01" + `\xf0\x9f`}
	if have.Line != `caf\xe9` || !maps.Equal(have.Fields, want) {
		t.Errorf("have %q %q, want %q", have.Line, have.Fields, want)
	}
	l.Fields = []byte(`{"a":"\xff`) // damage
	if text := l.AppendJSON(nil); !json.Valid(text) {
		t.Errorf("%q", text)
	}
}

func FuzzParameters(f *testing.F) {
	for _, text := range []string{"now", "now-1h", "now+99999w", "-", "now-", "1795339481", "1e11", "2026-11-20T14:02:00Z", "5.0000000000000001-7", "9223372036854775807.ffffffffffffffff-18446744073709551615", "1d", "NaN", "Inf"} {
		f.Add(text)
	}
	now := time.Unix(1e9, 0)
	f.Fuzz(func(t *testing.T, text string) {
		if at, err := ParseTime(text, now); err == nil {
			written := time.Unix(0, at).UTC().Format(time.RFC3339Nano)
			if again, err := ParseTime(written, now); err != nil || again != at {
				t.Fatalf("%q is %d, written %s and read %d (%v)", text, at, written, again, err)
			}
		}
		_, _ = parseSpan(text)
		if c, err := ParseCursor(text); err == nil {
			if again, err := ParseCursor(c.String()); err != nil || again != c {
				t.Fatalf("%q: have %v, want %v (%v)", text, again, c, err)
			}
		}
	})
}

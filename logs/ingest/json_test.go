package ingest

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/tinylib/msgp/msgp"

	"perch/logs/ingest/entry"
	"perch/logs/record"
)

// odd is a map with keys that are no text and values that are too deep to be written.
func odd() []byte {
	b := msgp.AppendMapHeader(nil, 5)
	b = msgp.AppendString(msgp.AppendString(b, "message"), "x")
	b = msgp.AppendInt(msgp.AppendMapHeader(msgp.AppendString(b, "codes"), 1), 200)
	b = msgp.AppendInt(b, 5)
	b = msgp.AppendString(b, "deep")
	for range 2 * maxDepth {
		b = msgp.AppendArrayHeader(b, 1)
	}
	b = msgp.AppendNil(b)
	b = msgp.AppendBool(msgp.AppendInt(b, -7), true)
	b = msgp.AppendString(msgp.AppendArrayHeader(b, 1), `a"b`) // a list as a key
	b = msgp.AppendMapHeader(b, 1)
	return msgp.AppendInt(msgp.AppendBool(b, true), 1)
}

func TestALineIsNotLostForWhatStandsBesideIt(t *testing.T) {
	m := &memory{}
	c := dial(t, start(t, m, nil, nil))
	var body []byte
	for range 2 { // no other entry is good
		body = append(append(body, 0x92, 9), odd()...)
	}
	meta := append(msgp.AppendInt(msgp.AppendArrayHeader(append(body, 0x92), 2), 9), odd()...)
	body = msgp.AppendString(msgp.AppendString(msgp.AppendMapHeader(meta, 1), "log"), "y")
	body = append(body, 0x92, 9, 0x81, 1, 2) // no line among it
	if _, err := c.Write(packed("c", "text", false, body)); err != nil {
		t.Fatal(err)
	}
	if have := ack(t, c); have != "c" {
		t.Fatal(have)
	}
	deep := strings.Repeat("[", maxDepth+1) + `"…[too deep]"` + strings.Repeat("]", maxDepth+1)
	fields := `[{codes {"200":5}} {deep ` + deep + `} {-7 true} {["a\"b"] {"true":1}}]`
	var have []string
	for _, r := range m.have() {
		have = append(have, string(r.Body)+" "+fmt.Sprint(r.Fields))
	}
	within := strings.NewReplacer("[{codes", "[{metadata.message x} {metadata.codes", "{deep", "{metadata.deep", "{-7", "{metadata.-7", `{["a`, `{metadata.["a`).Replace(fields)
	tag := " {tag t}]"
	want := []string{"x " + fields[:len(fields)-1] + tag, "x " + fields[:len(fields)-1] + tag, "y " + within[:len(within)-1] + tag, `{"1":2} [{tag t}]`}
	if strings.Join(have, "\n") != strings.Join(want, "\n") {
		t.Errorf("have\n%s\nwant\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
}

// A byte that came may be six of JSON: what will be cut is not written first.
func TestWhatIsCutIsNotWritten(t *testing.T) {
	const size = 16 << 20
	long := bytes.Repeat([]byte{1}, size)
	pair := func(b []byte, key string, value []byte) []byte {
		return msgp.AppendStringFromBytes(msgp.AppendString(b, key), value)
	}
	nested := func(b []byte, key string) []byte {
		return pair(msgp.AppendMapHeader(msgp.AppendString(b, key), 1), "v", long)
	}
	many := pair(msgp.AppendMapHeader(nil, 200), "log", []byte("x"))
	for i := range 199 {
		many = pair(many, fmt.Sprint("k", i), long[:size/199])
	}
	for _, c := range []struct {
		what string
		b    []byte
		body int // bytes
		end  string
		last string // field's end
	}{
		{"no line", pair(msgp.AppendMapHeader(nil, 1), "x", long), 0, fmt.Sprintf(" …[cut: %d bytes more]", 6*size+8-record.MaxBody), ""},
		{"bytes that are no text", msgp.AppendBytes(msgp.AppendString(msgp.AppendMapHeader(nil, 1), "x"), bytes.Repeat([]byte{0xff}, 3<<20)), 0, fmt.Sprintf(" …[cut: %d bytes more]", 4<<20+8-record.MaxBody), ""},
		{"a long field", pair(pair(msgp.AppendMapHeader(nil, 2), "log", []byte("x")), "y", long), 1, "x", fmt.Sprintf(" …[cut: %d bytes more]", size-maxValues)},
		{"one within", nested(pair(msgp.AppendMapHeader(nil, 2), "log", []byte("x")), "y"), 1, "x", fmt.Sprintf(" …[cut: %d bytes more]", 6*size+8-maxValues)},
		{"two lines", pair(pair(msgp.AppendMapHeader(nil, 2), "msg", long), "log", []byte("x")), 1, "x", fmt.Sprintf(" …[cut: %d bytes more]", size-maxValues)},
		{"a long name", pair(pair(msgp.AppendMapHeader(nil, 2), "log", []byte("x")), string(long), []byte("v")), 1, "x", "v"},
		{"many", many, 1, "x", fmt.Sprintf(" …[cut: %d bytes more]", size/199)},
	} {
		var r record.Record
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := fill(&r, c.b); err != nil {
			t.Fatal(c.what, err)
		}
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
			t.Errorf("%s: %d bytes were taken", c.what, used)
		}
		last := ""
		if n := len(r.Fields); n > 0 {
			last = r.Fields[n-1].Value
		}
		if c.body == 0 {
			c.body = record.MaxBody + len(c.end)
		}
		if len(r.Body) != c.body || !strings.HasSuffix(string(r.Body), c.end) || !strings.HasSuffix(last, c.last) || len(r.Fields) > entry.MaxFields {
			t.Errorf("%s: a line of %d bytes, …%q, %d fields, …%q", c.what, len(r.Body), r.Body[max(0, len(r.Body)-40):], len(r.Fields), last[max(0, len(last)-40):])
		}
		all := 0
		for _, f := range r.Fields {
			all += len(f.Key) + len(f.Value)
		}
		if all > record.MaxFields {
			t.Errorf("%s: fields of %d bytes would be cut again", c.what, all)
		}
	}
}

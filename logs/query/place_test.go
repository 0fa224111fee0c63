package query

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"perch/logs/block"
	"perch/logs/record"
)

// placeLines are lines whose fields are found in ways of their own.
var placeLines = []string{
	`{"level":"info","status":200,"took_ms":12.5,"path":"/api/v1/x/77","n":{"a":1,"b9":[1,{"c":2}]},"msg":"k=9"}`,
	`{"a":"x\u00e9y","b":"\"9","c9":1,"é1":"z","d":"tab\there"}`,
	`  {"a" : 1e5 , "b" : null}`, `{"a":12,"a":13}`, `{"a":[1,2}`, `{} a=1`, `{"1":2}`,
	`ts=2026-11-20T10:00:00Z level=warn caller=x.go:12 msg="a b=3 c" attempt=3 p99=12ms 9x=7 a=1`,
	`p99="a b=4" b=5`, `x9="1",k=2 k=3`, `(a=1) [b=22] {c=3; d=4`, `a=`, `a="unfinished 12 b=1`, `a="x\n1 b=2" b=3`,
	`10.42.1.7 - bob [20/Nov/2026:10:00:03 +0000] "POST /api/v1/x HTTP/1.1" 201 512 "-" "curl/8.5" rt=0.123`,
	`10.42.1.7 - - [20/Nov/2026:10:00:03 +0000] "GET / HTTP/1.1" 304 - {"a":7}`, `a b c [1234567890] "x" 200 12`, `a b c [12] "x9 y" 200 12 a=1`,
	`a b c [1234567890] "x\" 5" 20 12`, `a b c [1234567890] "" 200 1.5 a=1`,
	`E1120 10:11:12.123456    1234 a.go:4] "text" k="v" n=5`, `E1120 10:11:12.123456 1234 a.go:4] msg n=5`,
	`2026/11/20 10:00:03 [error] 31#32: *45 text, client: 10.0.0.1, server: x`,
	`<34>1 2026-11-20T10:00:00Z host app 12 ID47 [x@1 k="v 2"] msg a=1`, `Nov 20 10:00:07 host app[12]: text a=5`, `Nov  2 10:00:07 host app: text a=5`,
	"a=1\nb=2 status=500", "\xfe a=12", "\xff=3 a\xfe9=2 b=1", `\9 a=12`, `status=x12 user=u9`, `{"x5\uabcd":7,"b":1}`,
}

// varied is line with other variables.
func varied(line []byte, rnd *rand.Rand) []byte {
	var out []byte
	for i := 0; i < len(line); {
		start, digit := i, false
		for i < len(line) && wordByte(line[i]) {
			digit = digit || line[i] >= '0' && line[i] <= '9'
			i++
		}
		if start == i {
			out = append(out, line[i])
			i++
			continue
		}
		if !digit || rnd.IntN(3) == 0 {
			out = append(out, line[start:i]...)
			continue
		}
		word := slices.Clone(line[start:i])
		for k, c := range word { // mostly of the same form
			if c >= '0' && c <= '9' && rnd.IntN(2) == 0 {
				word[k] = byte('0' + rnd.IntN(10))
			}
		}
		switch rnd.IntN(8) {
		case 0:
			word = append(word, []string{"7", "e5", "x", "\xfe", "_", "é"}[rnd.IntN(6)]...)
		case 1:
			word = append([]byte{"E5f\xff_"[rnd.IntN(5)]}, word...)
		case 2:
			word = word[:1+rnd.IntN(len(word))]
			word[0] = byte('0' + rnd.IntN(10))
		}
		out = append(out, word...)
	}
	return out
}

// escaped finds escapes of what safeWords takes for never escaped.
var escaped = regexp.MustCompile(`\\(u00[2-7]|[^"\\/nbtrfu])`)

// FuzzPlace checks that fields of lines are found in the columns of their block as
// they are in the lines.
func FuzzPlace(f *testing.F) {
	for i, l := range placeLines {
		f.Add([]byte(l), uint64(i))
	}
	for i, l := range append(linesOf(f, "testdata/lines.txt"), linesOf(f, "testdata/shapes.lines.txt")...) {
		f.Add(l.Body, uint64(i))
	}
	for i, n := range []int{300, 500, 900, 1010, 1030} { // names with variables, about as long as they may be
		f.Add([]byte(`{"a":1,"`+strings.Repeat("k1_", n/3)+`":{"b":{"c1":2}},"status":5}`), uint64(i))
	}
	codec, err := block.NewCodec()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(codec.Close)
	f.Fuzz(func(t *testing.T, line []byte, seed uint64) {
		if len(line) > 2000 {
			return
		}
		rnd := rand.New(rand.NewPCG(seed, 1))
		l := &block.Lines{}
		var queries []string
		given := rnd.IntN(3) == 0
		names := map[string]int{"tag": 0, "n.status": 0, "status": 0, "a": 0, "k": 0}
		for i := range 40 {
			body := line
			if i%4 > 0 {
				body = varied(line, rnd)
			}
			if escaped.Match(body) {
				continue
			}
			var sent []record.Field
			switch {
			case rnd.IntN(2) == 0:
				sent = []record.Field{{Key: "tag", Value: "x9"}}
			case given && rnd.IntN(4) == 0:
				sent = []record.Field{{Key: "a", Value: "12"}, {Key: "n.status", Value: "7"}}
			}
			l.Add(&record.Record{Time: int64(i), Body: body, Fields: sent})
			for _, p := range AppendLineFields(nil, body) {
				if names[p.Key]++; names[p.Key] < 3 {
					queries = append(queries, fmt.Sprintf("%s:%s", p.Key, phrase(p.Value)), p.Key+":>=5 or "+p.Key+":~^[1-4a-k]")
				}
			}
		}
		for name := range names {
			queries = append(queries, name+":*")
		}
		if l.Len() == 0 {
			return
		}
		file, _, _, err := block.Open(filepath.Join(t.TempDir(), "blocks.dat"), codec, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		m := &block.Meta{Stream: &record.Stream{Pod: "p"}}
		if err := file.Append(m, codec.Encode(nil, m, l)); err != nil || !m.Templated() {
			return
		}
		a := &asked{over: t.Context().Err}
		for _, text := range queries {
			if q, err := Parse(text); err == nil {
				sameLines(t, a, q, file, m, l)
			}
		}
		sameFields(t, a, m, l, names)
	})
}

// sameFields checks what a reader finds in the block that a is turned to against its lines.
func sameFields(t *testing.T, a *asked, m *block.Meta, l *block.Lines, names map[string]int) {
	t.Helper()
	var rows []uint32
	for i := range l.Len() {
		rows = append(rows, uint32(i))
	}
	for name := range names {
		if _, label := m.Stream.Label(name); label || name == "level" || senders(&a.parts, name) {
			continue // a reader is not asked
		}
		r := fieldReader{name: name}
		whole, err := r.start(&a.parts, rows)
		if err != nil {
			t.Fatal(err)
		}
		for i, row := range rows {
			var c candidate
			c.reset(m.Stream, record.Unknown, l.Body(i), nil, l.FieldsOf(i))
			want, has := c.value(name)
			v, ok, placed := r.read(row)
			if placed && (v != want || ok != has) || !placed && whole {
				t.Fatalf("%s of %q is %q, %v, %v, want %q, %v", name, l.Body(i), v, ok, placed, want, has)
			}
		}
	}
}

func TestFieldsAreFoundInTemplates(t *testing.T) {
	for _, c := range []struct {
		name, line, field string
		how               placeKind
		value             string // with holes
	}{
		{"a number of JSON", `{"level":"info","status":200}`, "status", varying, "0"},
		{"a text of JSON", `{"path":"/api/v1/x/9"}`, "path", varying, "/api/0/x/1"},
		{"a text of JSON that is the same in all lines", `{"level":"info","n":1}`, "level", fixed, "info"},
		{"a name that is not there", `{"level":"info","n":1}`, "status", absent, ""},
		{"names that are variables, but not this one", `{"p99":5,"status":200}`, "status", varying, "2"},
		{"a name that may be a variable", `{"p99":5,"status":200}`, "p50", unplaced, ""},
		{"a name that is a variable and an escape", `{"x5\uabcd":7}`, "x5ꯍ", unplaced, ""},
		{"an escape that may go on in a variable", `{"a":"\u00e9","b":1}`, "b", unplaced, ""},
		{"key=value", `ts=2026-11-20 status=500`, "status", varying, "3"},
		{"key=value after a name that is a variable", `p99=12 status=500`, "status", varying, "2"},
		{"a quoted value after a name that may be none", `p99="a b=5" b=7`, "b", unplaced, ""},
		{"an access log", `10.42.1.7 - - [20/Nov/2026:10:00:03 +0000] "POST /x HTTP/1.1" 201 512`, "method", fixed, "POST"},
		{"what may be klog", `E1120 10:11:12.123456 1 a.go:4] n=5`, "n", unplaced, ""},
		{"what may be syslog", `Nov 20 10:00:07 host app: text a=5`, "a", unplaced, ""},
	} {
		var template []byte
		for i := 0; i < len(c.line); {
			start, digit := i, false
			for ; i < len(c.line) && wordByte(c.line[i]); i++ {
				digit = digit || c.line[i] <= '9'
			}
			switch {
			case start == i:
				template = append(template, c.line[i])
				i++
			case digit:
				template = append(template, block.Hole)
			default:
				template = append(template, c.line[start:i]...)
			}
		}
		p := locate(c.field, template)
		var value []byte
		for rest := p.value; ; {
			before, hole, after := nextMark(rest)
			value = append(value, before...)
			if hole < 0 {
				break
			}
			value, rest = fmt.Appendf(value, "%d", hole), after
		}
		if p.how != c.how || string(value) != c.value {
			t.Errorf("%s: %s of %q: %d %q, want %d %q", c.name, c.field, template, p.how, value, c.how, c.value)
		}
	}
}

package entry

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"perch/logs/record"
)

func TestObjectsBecomeRecords(t *testing.T) {
	for _, c := range []struct {
		name, doc  string
		body       string
		at         int64
		level      record.Level
		fields     string
		timed, not bool
	}{
		{name: "the line, its time and level", doc: `{"time":"2026-11-20T10:00:00.5Z","msg":"hi","level":"error","n":5}`, body: "hi", at: 1795168800500000000, level: record.Error, fields: "level=error n=5", timed: true},
		{name: "pino's number is a level", doc: `{"level":50,"msg":"boom"}`, body: "boom", level: record.Error, fields: "level=50"},
		{name: "syslog's number is none of them", doc: `{"level":3,"severity":"5","msg":"x"}`, body: "x", fields: "level=3 severity=5"},
		{name: "nor are those of others", doc: `{"severity":17,"lvl":400,"msg":"x"}`, body: "x", fields: "severity=17 lvl=400"},
		{name: "the better name wins, the other is a field", doc: `{"msg":"worse","log":"better\n","ok":true}`, body: "better", fields: "msg=worse ok=true"},
		{name: "objects within become dotted names", doc: `{"message":"m","kubernetes":{"pod":{"name":"p"},"labels":{}},"tags":["a","b"]}`, body: "m", fields: `kubernetes.pod.name=p kubernetes.labels={} tags=["a","b"]`},
		{name: "escapes are undone", doc: ` {"msg" : "a\"b\\\u00e4\n" , "k" : "\t" } `, body: "a\"b\\ä", fields: "k=\t"},
		{name: "milliseconds are told by their size", doc: `{"@timestamp":1700000000123,"msg":"x"}`, body: "x", at: 1700000000123000000, timed: true},
		{name: "nanoseconds stay exact", doc: `{"ts":"1700000000123456789","msg":"x"}`, body: "x", at: 1700000000123456789, timed: true},
		{name: "without a line the whole object is the line", doc: `{"a":1,"b":"c"}`, body: `{"a":1,"b":"c"}`},
		{name: "a time that is none is a field", doc: `{"time":"soon","msg":"x"}`, body: "x", fields: "time=soon"},
		{name: "no object", doc: `[1]`, not: true},
		{name: "broken", doc: `{"a":`, not: true},
		{name: "empty object", doc: `{}`, body: "{}"},
	} {
		r := record.Record{}
		have, ok := FromJSON(&r, []byte(c.doc))
		var fields []string
		for _, f := range r.Fields {
			fields = append(fields, f.Key+"="+f.Value)
		}
		if ok == c.not || string(r.Body) != c.body || r.Time != c.at || r.Level != c.level || strings.Join(fields, " ") != c.fields || have.Timed != c.timed {
			t.Errorf("%s: ok %v body %q at %d level %s fields %q timed %v", c.name, ok, r.Body, r.Time, r.Level, fields, have.Timed)
		}
	}
}

func TestFieldsBeyondTheCapAreCounted(t *testing.T) {
	var b strings.Builder
	for i := range MaxFields + 7 {
		fmt.Fprintf(&b, `"k%d":%d,`, i, i)
	}
	r := record.Record{}
	have, ok := FromJSON(&r, []byte("{"+b.String()+`"msg":"x"}`))
	if !ok || have.Left != 7 || len(r.Fields) != MaxFields || string(r.Body) != "x" {
		t.Errorf("left %d, have %d, body %q", have.Left, len(r.Fields), r.Body)
	}
}

// Names of objects stand before those of their members: what that takes has a limit.
func TestNamesAreNotRepeatedWithoutEnd(t *testing.T) {
	members := strings.Repeat(`"a":1,`, 2000)
	members = members[:len(members)-1]
	wide := strings.Repeat(`"":{"":1},`, 2000)
	for _, c := range []struct {
		what, doc string
		fields    int
		left      int
		value     string // of the first field
	}{
		{"a long name", `{"` + strings.Repeat("x", 1<<20) + `":{` + members + `},"msg":"x"}`, 1, 0, "{" + members + "}"},
		{"a shorter one", `{"` + strings.Repeat("x", maxPrefix) + `":{` + members + `},"msg":"x"}`, MaxFields, 2000 - MaxFields, "1"},
		{"several", strings.Repeat(`{"`+strings.Repeat("x", 500)+`":`, 6) + `{` + members + `}` + strings.Repeat("}", 5) + `,"msg":"x"}`, 1, 0, strings.Repeat(`{"`+strings.Repeat("x", 500)+`":`, 3) + `{` + members + `}` + strings.Repeat("}", 3)},
		{"objects within", `{"` + strings.Repeat("x", maxPrefix) + `":{` + wide[:len(wide)-1] + `},"msg":"x"}`, 0, 0, ""},
	} {
		var r record.Record
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		have, ok := FromJSON(&r, []byte(c.doc))
		runtime.ReadMemStats(&after)
		if used := int(after.TotalAlloc - before.TotalAlloc); used > 4*len(c.doc)+MaxFields*4*maxPrefix {
			t.Errorf("%s: %d bytes were taken for %d", c.what, used, len(c.doc))
		}
		if c.fields == 0 {
			continue
		}
		if !ok || string(r.Body) != "x" || len(r.Fields) != c.fields || have.Left != c.left || r.Fields[0].Value != c.value {
			t.Errorf("%s: %v, %q, %d fields, %d left, first %.100q", c.what, ok, r.Body, len(r.Fields), have.Left, r.Fields[0].Value)
		}
	}
}

func FuzzFromJSON(f *testing.F) {
	f.Add([]byte(`{"time":"2026-11-20T10:00:00Z","msg":"hi","a":{"b":[1,"x"]},"n":-1e5}`))
	f.Add([]byte(`{"a":"\"","b":{}}`))
	f.Add([]byte(`{"` + strings.Repeat("x", maxPrefix) + `":{"a":{"b":1,"b":2}},"msg":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := record.Record{}
		_, ok := FromJSON(&r, b)
		var want map[string]json.RawMessage
		if is := json.Unmarshal(b, &want) == nil && want != nil; is != ok {
			t.Fatalf("an object %v, taken %v", is, ok)
		}
		if !ok {
			return
		}
		if len(r.Fields) == 0 {
			return
		}
		for k, v := range want { // each plain value is somewhere
			if len(want) > MaxFields || v[0] == '{' || timeKey(k) || slices.Contains(BodyKeys(), k) {
				continue
			}
			if strings.ContainsRune(k, '\ufffd') {
				continue
			}
			if !slices.ContainsFunc(r.Fields, func(f record.Field) bool { return f.Key == k }) && len(r.Fields) < MaxFields {
				t.Fatalf("%q is lost", k)
			}
		}
	})
}

package discovery

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"perch/metrics/target"
)

func TestWhatIsAnAnswer(t *testing.T) {
	more := map[string]string{"__meta_url": "u"}
	for text, want := range map[string]string{
		`[]`: "",
		` [{"targets":["a:1","b"],"labels":{"x":"y","__meta_url":"mine"}},{"targets":[]},{"targets":["c"]}] `: "a:1,b x=y;c ",
		`[{"labels":{"x":"y"}}]`:                   "",
		`[{"targets":["a"],"source":"elsewhere"}]`: "a ",
		``:                                      "!no JSON list",
		`{}`:                                    "!no JSON list",
		`"x"`:                                   "!no JSON list",
		`<html>`:                                "!no JSON list",
		`[`:                                     "!not complete",
		`[{"targets":["a"]}`:                    "!not complete",
		`[{"targets":["a"]`:                     "!group 0: it is not complete",
		`[{"targets":["a"]},]`:                  "!group 1: it is no JSON",
		`[{"targets":["a"]}] []`:                "!goes on",
		`[{"targets":["a"]}] x`:                 "!goes on",
		`[null]`:                                "!group 0 is null",
		`[["a"]]`:                               "!group 0:  is a array",
		`[{"targets":"a"}]`:                     "!targets is a string",
		`[{"targets":[1234567]}]`:               "!is a number, want string",
		`[{"targets":[null]}]`:                  "!target that is null",
		`[{"targets":["a"],"labels":{"":"b"}}]`: "!label without name",
		`[{"targets":["a"],"labels":{"b":null}}]`:   "!label without name or value",
		`[{"targets":["a"],"labels":{"b":{}}}]`:     "!is a object",
		`[{"targets":["a"],"labels":["topsecret"]}`: "!labels is a array",
	} {
		got, err := read([]byte(text), more, 10)
		text2 := ""
		for _, g := range got.groups {
			if g.Labels["__meta_url"] != "u" {
				t.Errorf("%s: labels %v", text, g.Labels)
			}
			text2 += ";" + strings.Join(g.Targets, ",") + " "
			if x := g.Labels["x"]; x != "" {
				text2 += "x=" + x
			}
		}
		if err != nil {
			text2 = "!" + err.Error()
		}
		text2 = strings.TrimPrefix(text2, ";")
		if reason, broken := strings.CutPrefix(want, "!"); broken && (err == nil || !strings.Contains(text2, reason) || strings.Contains(text2, "topsecret")) || !broken && text2 != want {
			t.Errorf("%s: %q, want %q", text, text2, want)
		}
	}
}

func TestAnAnswerHasLimits(t *testing.T) {
	many := strings.Repeat(`{"targets":["a","b"]},`, 7)
	got, err := read([]byte("["+strings.TrimSuffix(many, ",")+"]"), nil, 5)
	if err != nil || len(got.groups) != 3 || len(got.groups[2].Targets) != 1 || got.note != "the first 5 of 14 targets count" {
		t.Errorf("%+v, %v", got, err)
	}
	empty := strings.Repeat(`{},`, mostGroups+1)
	if _, err := read([]byte("["+strings.TrimSuffix(empty, ",")+"]"), nil, 5); err == nil || !strings.Contains(err.Error(), fmt.Sprint(mostGroups)) {
		t.Errorf("too many groups: %v", err)
	}
	small, _ := read([]byte(`[{"targets":["a"]}]`), nil, 5)
	large, _ := read([]byte(`[{"targets":["a"],"labels":{"x":"`+strings.Repeat("y", 1000)+`"}}]`), nil, 5)
	if small.bytes <= 0 || large.bytes < small.bytes+1000 {
		t.Errorf("%d and %d bytes", small.bytes, large.bytes)
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{`[]`, `[{"targets":["a:1"],"labels":{"x":"y"}}]`, `[{"targets":["a"]},null]`, `[[[[[`, "[{\"targets\":[\"\xff\"]}]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := read(body, map[string]string{"__meta_url": "u"}, 3)
		if err != nil {
			if len(got.groups) > 0 {
				t.Errorf("%v beside %v", err, got)
			}
			return
		}
		// What was read is all of a list that others read, too.
		var all []target.Group
		if err := json.Unmarshal(body, &all); err != nil {
			t.Fatalf("read %q, which is none: %v", body, err)
		}
		n := 0
		for _, g := range got.groups {
			n += len(g.Targets)
			if g.Labels["__meta_url"] != "u" || g.Labels[""] != "" {
				t.Errorf("labels %v", g.Labels)
			}
		}
		if n > 3 || got.bytes < int64(n) {
			t.Errorf("%d targets, %d bytes", n, got.bytes)
		}
		again, err := read(body, map[string]string{"__meta_url": "u"}, 3)
		if err != nil || !reflect.DeepEqual(got, again) {
			t.Errorf("another time %v, %v", again, err)
		}
	})
}

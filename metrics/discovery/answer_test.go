package discovery

import (
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
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
		`[null]`:                                "!group 0: it is null",
		`[["a"]]`:                               "!the answer's group 0: it is an array, want an object",
		`[{"targets":"a"}]`:                     "!group 0: targets is a string, want an array",
		`[{"targets":[1234567]}]`:               "!a target is a number, want a string",
		`[{"targets":[null]}]`:                  "!a target is null, want a string",
		`[{"targets":["a"],"labels":{"":"b"}}]`: "!label without a name",
		`[{"targets":["a"],"labels":{"b":null}}]`:   "!a label's value is null, want a string",
		`[{"targets":["a"],"labels":{"b":{}}}]`:     "!a label's value is an object, want a string",
		`[{"targets":["a"],"labels":["topsecret"]}`: "!group 0: labels is an array, want an object",
		`[{"targets":["a"],"labels":{"b":true}}]`:   "!a label's value is a boolean, want a string",
		`["topsecret"]`: "!group 0: it is a string, want an object",
		`[{"targets":["a"],"labels":{"b":"c",}}]`:                                  "!it is no JSON",
		`[{"targets":["a",]}]`:                                                     "!it is no JSON",
		`[{"targets":["a"] "labels":{}}]`:                                          "!it is no JSON",
		`[{"targets":["a"],"targets":["b"]}]`:                                      "!it has targets twice",
		`[{"labels":{},"Labels":{}}]`:                                              "!it has labels twice",
		`[{"targets":null,"labels":null}]`:                                         "",
		`[{"TARGETS":["a"],"x":{"y":[1]}}]`:                                        "a ",
		`[{"x":` + strings.Repeat("[", 1000000):                                    "!group 0: it is no JSON",
		`[{"targets":["` + strings.Repeat("a", 1024) + `"]}]`:                      strings.Repeat("a", 1024) + " ",
		`[{"targets":["` + strings.Repeat("a", 1025) + `"]}]`:                      "!a target is longer than 1024 bytes",
		`[{"targets":["a"],"labels":{` + pairs(64) + `}}]`:                         "a ",
		`[{"targets":["a"],"labels":{` + pairs(65) + `}}]`:                         "!it has more than 64 labels",
		`[{"labels":{` + strings.Repeat(`"a":"",`, 1000) + `"b":""}}]`:             "!it has more than 64 labels",
		`[{"labels":{"a":"` + strings.Repeat("b", 16<<10+1) + `"}}]`:               "!a label's name or value is longer than 16384 bytes",
		`[{"labels":{"` + strings.Repeat("b", 16<<10+1) + `":"a"}}]`:               "!a label's name or value is longer than 16384 bytes",
		`[{"targets":["a"],"labels":{"x":"` + strings.Repeat("b", 16<<10) + `"}}]`: "a x=" + strings.Repeat("b", 16<<10),
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
			t.Errorf("%.200s: %.200q, want %.200q", text, text2, want)
		}
	}
}

// pairs are labels.
func pairs(n int) string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf(`"l%d":""`, i))
	}
	return strings.Join(out, ",")
}

// TestAnAnswerIsReadNoFurtherThanItsLimits: 2 MiB may name a great many labels and
// targets.
func TestAnAnswerIsReadNoFurtherThanItsLimits(t *testing.T) {
	var names, targets strings.Builder
	for i := 0; names.Len() < 2<<20; i++ {
		fmt.Fprintf(&names, `"%x":"",`, i)
	}
	targets.WriteString(strings.Repeat(`"",`, (2<<20)/3))
	for what, body := range map[string]string{
		"more than 64 labels":     `[{"targets":["a"],"labels":{` + names.String() + `"a":""}}]`,
		"more than 20000 targets": `[{"targets":[` + targets.String() + `"a"]}]`,
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := read([]byte(body), nil, 2000)
		runtime.ReadMemStats(&after)
		// The text is there twice, more or less, and what is read of it.
		if used := after.TotalAlloc - before.TotalAlloc; err == nil || !strings.Contains(err.Error(), what) || used > 12<<20 {
			t.Errorf("%v, want %s; %d bytes", err, what, used)
		}
	}
}

// TestAnotherOrderIsNoNews: of groups, and of targets in them.
func TestAnotherOrderIsNoNews(t *testing.T) {
	a, _ := read([]byte(`[{"targets":["c","a"],"labels":{"x":"1","y":"2"}},{"targets":["b"]},{"targets":["b"],"labels":{"z":"1"}}]`), nil, 3)
	b, _ := read([]byte(`[{"targets":["b"],"labels":{"z":"1"}},{"targets":["a","c"],"labels":{"y":"2","x":"1"}},{"targets":["b"]}]`), nil, 3)
	if !reflect.DeepEqual(a, b) || len(a.groups) != 2 || a.note != "the first 3 of 4 targets count" {
		t.Errorf("%+v and %+v", a, b)
	}
}

// TestAnAnswerDoesNotSetAHastyPace: __scrape_interval__ of a target goes before that
// of its object.
func TestAnAnswerDoesNotSetAHastyPace(t *testing.T) {
	for labels, want := range map[string]string{
		`"__scrape_interval__":"1s","__scrape_timeout__":"500ms"`: "map[__scrape_interval__:1s __scrape_timeout__:500ms]",
		`"__scrape_interval__":"1ms","__scrape_timeout__":"1ms"`:  "map[x:y]",
		`"__scrape_interval__":"0"`:                               "map[x:y]",
		`"__scrape_interval__":"soon","__scrape_timeout__":"1ms"`: "map[x:y]",
		`"__scrape_timeout__":"1s"`:                               "map[__scrape_timeout__:1s]",
	} {
		got, err := read([]byte(`[{"targets":["a"],"labels":{`+labels+`}}]`), nil, 5)
		hasty := want == "map[x:y]"
		if hasty {
			want = "map[]"
		}
		if err != nil || len(got.groups) != 1 || fmt.Sprint(got.groups[0].Labels) != want || strings.Contains(got.note, "1 groups ask for scrapes more often than every 1s") != hasty {
			t.Errorf("%s: %+v, %v", labels, got, err)
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
	// Each target gets all labels of its group, and those that all get.
	wide, _ := read([]byte(`[{"targets":["a","b","c","d"],"labels":{"x":"`+strings.Repeat("y", 1000)+`"}}]`), map[string]string{"__meta_url": strings.Repeat("u", 500)}, 3)
	if wide.bytes < 4500 || wide.bytes > 5500 {
		t.Errorf("three targets with 1500 bytes of labels cost %d", wide.bytes)
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{`[]`, `[{"targets":["a:1"],"labels":{"x":"y"}}]`, `[{"targets":["a"]},null]`, `[[[[[`, "[{\"targets\":[\"\xff\"]}]", `[{"targets":["b","a"],"labels":null,"x":[{}]},{"targets":null}]`, `[{"labels":{"a":"1","a":"2"},"targets":["a"],}]`, `[{"targets" ["a"]}]`} {
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

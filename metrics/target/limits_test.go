package target

import (
	"fmt"
	"strings"
	"testing"
)

func TestANamespaceLeavesRoomForTheTargetsOfOthers(t *testing.T) {
	static := func(namespace string, n int) Object {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("192.0.2.1:%d", 1000+i))
		}
		return object(t, ScrapeConfig, namespace, fmt.Sprintf("{staticConfigs: [{targets: [%s]}]}", strings.Join(list, ", ")))
	}
	all := []Object{static("a", 9), static("b", 5), static("c", 5)}
	for _, c := range []struct {
		limit, ofOne, ofNode int
		want                 [3]int
		why                  string
	}{
		{want: [3]int{9, 5, 5}},
		{limit: 12, want: [3]int{9, 3, 0}, why: "all objects together have more than 12 targets"},
		{limit: 12, ofOne: 6, want: [3]int{6, 5, 1}, why: `objects of namespace "a" have more than 6 targets`},
		{ofOne: 6, ofNode: 4, want: [3]int{4, 4, 4}, why: `objects of namespace "c" have more than 4 targets on node n0`},
	} {
		jobs, left := Plan(World{Home: "n0", Limit: c.limit, OfOne: c.ofOne, OfNode: c.ofNode}, all)
		var got [3]int
		for _, j := range jobs {
			got[strings.Index("abc", strings.Split(j.From, "/")[1])] = len(j.Targets)
		}
		out := 0
		for _, d := range left {
			out++
			if c.why != "" && strings.Contains(d.Reason, c.why) {
				c.why = ""
			}
		}
		if got != c.want || out != 19-got[0]-got[1]-got[2] || c.why != "" {
			t.Errorf("%d of all, %d of one, %d on a node: %v targets, %d left out, not told: %s", c.limit, c.ofOne, c.ofNode, got, out, c.why)
		}
	}
}

func TestATargetDoesNotGrowWithoutEnd(t *testing.T) {
	long := strings.Repeat("x", 20<<10)
	double := strings.Repeat(`{sourceLabels: [__a], targetLabel: __a, replacement: "$1$1"}, `, 4)
	for name, c := range map[string]struct{ spec, why string }{
		"a label that doubles":   {`{staticConfigs: [{targets: ["192.0.2.1:1"], labels: {__a: ` + strings.Repeat("x", 100<<10) + `}}], relabelings: [` + double + `]}`, "relabelings make labels of"},
		"a long label":           {`{staticConfigs: [{targets: ["192.0.2.1:1"], labels: {a: ` + long + `}}]}`, "it has labels of"},
		"a long label not kept":  {`{staticConfigs: [{targets: ["192.0.2.1:1"], labels: {__a: ` + long + `}}]}`, ""},
		"a pace without a pause": {`{staticConfigs: [{targets: ["192.0.2.1:1"], labels: {__scrape_interval__: 1ms}}]}`, "want 1s or more"},
		"a pace that is none":    {`{staticConfigs: [{targets: ["192.0.2.1:1"], labels: {__scrape_interval__: often}}]}`, "want 1s or more"},
		"a pace":                 {`{staticConfigs: [{targets: ["192.0.2.1:1"], labels: {__scrape_interval__: 1s}}]}`, ""},
		"a heavy replacement":    {`{staticConfigs: [{targets: ["192.0.2.1:1"]}], relabelings: [{sourceLabels: [a], targetLabel: a, replacement: "` + strings.Repeat("$1", 33) + `"}]}`, "spec.relabelings[0].replacement has more than 32 references"},
		"a long replacement":     {`{staticConfigs: [{targets: ["192.0.2.1:1"]}], metricRelabelings: [{sourceLabels: [a], targetLabel: a, replacement: "` + strings.Repeat("x", 2000) + `"}]}`, "replacement has 2000 bytes"},
		"many source labels":     {`{staticConfigs: [{targets: ["192.0.2.1:1"]}], relabelings: [{sourceLabels: [` + strings.Repeat("a, ", 65) + `], targetLabel: a}]}`, "65 of them"},
	} {
		jobs, left := Plan(World{Home: "n0"}, []Object{object(t, ScrapeConfig, "red", c.spec)})
		told := ""
		for _, d := range left {
			told += d.Reason
		}
		if (len(jobs) == 1) != (c.why == "") || !strings.Contains(told, c.why) {
			t.Errorf("%s: %d jobs, %.300q", name, len(jobs), told)
		}
	}
}

func TestHowMuchRelabelingsMayRepeat(t *testing.T) {
	step := func(target, replacement, regex string, sources ...string) relabeling {
		r := relabeling{SourceLabels: sources, TargetLabel: target, Regex: regex}
		if replacement != "" {
			r.Replacement = &replacement
		}
		return r
	}
	double := step("a", "$1$1", "", "a")
	for name, c := range map[string]struct {
		list []relabeling
		want int
	}{
		"none":                              {nil, 1},
		"labels put together":               {[]relabeling{step("id", "", "", "namespace", "pod", "container"), step("x", "", "", "id", "node")}, 1},
		"two groups":                        {[]relabeling{step("x", "$1:$2", "(.*);(.*)", "a", "b")}, 1},
		"named groups":                      {[]relabeling{step("x", "${one}:${two}", "(?P<one>.*);(?P<two>.*)", "a", "b")}, 1},
		"a label with one of its own":       {[]relabeling{step("id", "", "", "namespace", "pod"), step("x", "", "", "id", "pod")}, 2},
		"one group twice":                   {[]relabeling{double}, 2},
		"that twice":                        {[]relabeling{double, double}, 4},
		"by a name between":                 {[]relabeling{step("b", "$1$1", "", "a"), step("a", "", "", "b"), step("b", "${1}${1}", "", "a")}, 4},
		"a label with itself":               {[]relabeling{step("a", "", "", "a", "a"), step("a", "", "", "a", "a")}, 4},
		"groups in groups":                  {[]relabeling{step("a", "$1$2$3", "(((.*)))", "a")}, 3},
		"all of it and a group":             {[]relabeling{step("a", "$0$1", "(.*)", "a")}, 2},
		"in turns":                          {[]relabeling{step("a", "", "", "a", "b"), step("b", "", "", "a", "b"), step("a", "", "", "a", "b"), step("b", "", "", "a", "b")}, 5},
		"by a name that nobody can foresee": {[]relabeling{double, {Action: "LabelMap", Regex: "a(.*)"}, step("c", "$1$1", "", "b")}, 4},
		"a step that only drops":            {[]relabeling{double, {Action: "drop", SourceLabels: []string{"a", "a", "a"}, Regex: "x"}}, 2},
	} {
		if got := growth(c.list); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	five := strings.TrimSuffix(strings.Repeat(`{sourceLabels: [a], targetLabel: a, replacement: "$1$1"}, `, 5), ", ")
	if wrong, _ := object(t, ServiceMonitor, "red", `{selector: {}, endpoints: [{port: a, metricRelabelings: [`+five+`]}]}`).Check(); len(wrong) != 1 || !strings.Contains(wrong[0], "more than 16 times") {
		t.Errorf("five steps that double: %v", wrong)
	}
	for own, want := range map[string]string{"": "7864320B", "1MB": "1MB", "15MB": "7864320B"} {
		w := wireSettings{metricRelabelings: []relabeling{double}, limits: limitSpec{BodySizeLimit: own}}
		if text, err := w.ready(func(Ref) (string, error) { return "", errAbsent }); err != nil || !strings.Contains(string(text), "body_size_limit: "+want+"\n") {
			t.Errorf("%s: %v in\n%s", want, err, text)
		}
	}
}

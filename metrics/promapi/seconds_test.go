package promapi

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
)

func TestTheRingIsReadBySelectorsThatAskForIt(t *testing.T) {
	var asked []string
	ms := at.UnixMilli()
	seconds := func(_ context.Context, m []*labels.Matcher, start, end int64) ([]Second, []string) {
		asked = append(asked, fmt.Sprint(m, ms-start, ms-end))
		var out []Second
		for _, s := range []Second{
			{Labels: labels.FromStrings("__name__", "use", "namespace", "red", "pod", "a")}, // in the store, too
			{Labels: labels.FromStrings("__name__", "use", "namespace", "red", "pod", "gone"), End: ms - 4000},
			{Labels: labels.FromStrings("__name__", "use", "namespace", "blue", "pod", "c")},
		} {
			if slices.ContainsFunc(m, func(m *labels.Matcher) bool { return !m.Matches(s.Labels.Get(m.Name)) }) {
				continue
			}
			for k := range int64(6) {
				s.T, s.V = append(s.T, ms-10_000+k*1000), append(s.V, float64(100+k))
			}
			out = append(out, s)
		}
		return out, []string{"n7"}
	}
	api, _ := newAPI(t, Parts{Seconds: seconds})
	red := Access{Namespaces: []string{"red"}}
	from, to := fmt.Sprint(float64(ms-11_000)/1000), fmt.Sprint(float64(ms)/1000)
	code, body := get(t, api, red, "/api/v1/query_range", "query", `use{ring="1s"}`, "start", from, "end", to, "step", "1s")
	for _, want := range []string{
		// The store's value until the ring begins, then second by second, then the store's newest.
		`{"metric":{"__name__":"use","namespace":"red","pod":"a"},"values":[[` + fmt.Sprint((ms-11_000)/1000) + `,"13"],[` + fmt.Sprint((ms-10_000)/1000) + `,"100"],[` + fmt.Sprint((ms-9_000)/1000) + `,"101"]`,
		`,"105"],[` + fmt.Sprint(ms/1000) + `,"14"]]}`,
		// What ended is not drawn on.
		`"pod":"gone"},"values":[[` + fmt.Sprint((ms-10_000)/1000) + `,"100"]`, `[` + fmt.Sprint((ms-5_000)/1000) + `,"105"]]}`,
		"no seconds from n7",
	} {
		if code != 200 || !strings.Contains(body, want) {
			t.Errorf("%d: no %s in\n%s", code, want, body)
		}
	}
	if strings.Contains(body, "blue") || strings.Contains(body, "ring") {
		t.Errorf("more than may be seen, or the matcher: %s", body)
	}
	if len(asked) != 1 || strings.Contains(asked[0], "ring") || !strings.Contains(asked[0], `namespace="red"`) {
		t.Errorf("nodes were asked %q", asked)
	}
	if _, body := get(t, api, red, "/api/v1/query", "query", `use`, "time", to); len(asked) != 1 || strings.Contains(body, "n7") {
		t.Errorf("nobody asked for the ring: %q %s", asked, body)
	}
	api, _ = newAPI(t, Parts{})
	if code, body := get(t, api, red, "/api/v1/query", "query", `use{ring="1s"}`, "time", to); code != 200 || !strings.Contains(body, `"14"`) {
		t.Errorf("without a ring the store answers: %d %s", code, body)
	}
}

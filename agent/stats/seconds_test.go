package stats

import (
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

func TestTheRingAnswersSelectors(t *testing.T) {
	dir := mount(t)
	s := newStats(t, dir, nil)
	for sec := range int64(30) {
		s.Round(time.Unix(1500+sec, 0))
	}
	ask := func(start, end string, ms ...Matcher) (int, []SecondsSeries) {
		t.Helper()
		match, err := json.Marshal(ms)
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		s.SecondsHandler().ServeHTTP(w, httptest.NewRequest("GET", "/?"+url.Values{"start": {start}, "end": {end}, "match": {string(match)}}.Encode(), nil))
		var out []SecondsSeries
		if w.Code == 200 {
			if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
				t.Fatal(err)
			}
		}
		return w.Code, out
	}
	name := Matcher{"__name__", "=", "container_cpu_usage_seconds_total"}
	_, got := ask("1510000", "1519500", name, Matcher{"container", "=~", "we.*"}, Matcher{"namespace", "!=", "blue"})
	if len(got) != 1 || len(got[0].T) != 10 || got[0].T[0] != 1510000 || got[0].T[9] != 1519000 || got[0].V[0] != 2 || got[0].End != 0 {
		t.Fatalf("%+v", got)
	}
	want := find(nil, "", "")
	for _, x := range s.tracked[s.PathOf("burstable", "U1", "c1")].series {
		if x.family.name == "container_cpu_usage_seconds_total" {
			want = append(want, Sample{Labels: x.labels})
		}
	}
	if len(want) != 1 || !labels.Equal(want[0].Labels, labels.FromMap(got[0].Labels)) {
		t.Errorf("labels %v are not those of the stored series", got[0].Labels)
	}
	if _, got := ask("0", "9999999999999", Matcher{"pod", "=", "web-1"}, Matcher{"container", "=", "web"}); len(got) != len(ringTable()) {
		t.Errorf("%d series of a container", len(got))
	}
	if _, got := ask("1510000", "1519500", Matcher{"__name__", "=", "container_threads"}, Matcher{"container", "=", "web"}); len(got) != 1 || !slices.Equal(got[0].T, []int64{1510000, 1515000}) {
		t.Errorf("threads have points as often as they are read: %+v", got)
	}
	if code, _ := ask("0", "1", Matcher{"pod", "=~", "("}); code != 400 {
		t.Errorf("a broken expression: %d", code)
	}
	if code, _ := ask("soon", "1"); code != 400 {
		t.Errorf("a broken time: %d", code)
	}
	producers := Producers()
	for _, r := range ringTable() {
		if p, ok := producers[r.name]; !ok || p != Fast {
			t.Errorf("%s is no series of the fast reader", r.name)
		}
	}

	path := s.PathOf("burstable", "U1", "c1")
	s.Ended(path, Exit{})
	if err := os.RemoveAll(dir + path); err != nil {
		t.Fatal(err)
	}
	s.Round(time.Now().Truncate(5 * time.Second).Add(5 * time.Second))
	_, got = ask("0", "9999999999999", name, Matcher{"container", "=", "web"})
	if len(got) != 1 || got[0].End <= slices.Max(got[0].T) {
		t.Errorf("an ended container is known, and that it ended: %+v", got)
	}
}

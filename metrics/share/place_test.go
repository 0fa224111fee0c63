package share

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

func series(i int) labels.Labels {
	return labels.FromStrings("__name__", fmt.Sprint("m_", i%40), "pod", fmt.Sprint("p-", i))
}

func places(t testing.TB, names ...string) *Places {
	t.Helper()
	p, err := NewPlaces(names)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSeriesAreSpreadEvenlyOverTheStores(t *testing.T) {
	const n = 20_000
	for _, names := range [][]string{{"a"}, {"a", "b"}, {"a", "b", "c"}, {"a", "b", "c", "d", "e"}} {
		p := places(t, names...)
		have := map[string]int{}
		for i := range n {
			have[p.Of(series(i))]++
		}
		for _, s := range names {
			fair := float64(n) / float64(len(names))
			if got := float64(have[s]); got < 0.7*fair || got > 1.3*fair {
				t.Errorf("%s of %d stores has %.0f series, a fair share is %.0f", s, len(names), got, fair)
			}
		}
		if len(have) != len(names) {
			t.Errorf("series are in %v of %v", have, names)
		}
	}
}

func TestPlacesDoNotDependOnOrderAndMoveLittleWhenAStoreComes(t *testing.T) {
	const n = 10_000
	before, same, after := places(t, "a", "b", "c"), places(t, "c", "a", "b"), places(t, "a", "b", "c", "d")
	moved := 0
	for i := range n {
		old, now := before.Of(series(i)), after.Of(series(i))
		if old != same.Of(series(i)) {
			t.Fatalf("series %d is in %v or %v", i, old, same.Of(series(i)))
		}
		if old != now {
			if now != "d" {
				t.Fatalf("series %d moved from %v to %v", i, old, now)
			}
			moved++
		}
	}
	if moved == 0 || moved > n*35/100 {
		t.Errorf("%d of %d copies moved to the fourth store", moved, n)
	}
}

func TestNoStoreIsNoPlace(t *testing.T) {
	if _, err := NewPlaces(nil); err == nil {
		t.Error("no store was accepted")
	}
}

func TestWhoIsAwayKeepsItsPlaceForAWhile(t *testing.T) {
	now := time.Unix(10_000, 0)
	b, c := Store{"b", "b:1"}, Store{"c", "c:1"}
	ago := func(s Store, d time.Duration) Seen { return Seen{s, now.Add(-d)} }
	for _, tc := range []struct {
		about  string
		have   []Seen
		there  []Store
		want   string
		reason string
	}{
		{"nobody is nobody", nil, nil, "", ""},
		{"who comes is in", nil, []Store{c, b}, "b c", "c is new, b is new"},
		{"who is there stays", []Seen{ago(b, time.Second)}, []Store{b}, "b", ""},
		{"who is away a moment stays", []Seen{ago(b, time.Hour)}, nil, "b", ""},
		{"after a restart all that were stay", []Seen{ago(c, time.Minute), ago(b, time.Minute)}, nil, "b c", ""},
		{"who is away too long goes", []Seen{ago(c, 0), ago(b, 4*time.Hour)}, []Store{c}, "c", "b was not there for 4h0m0s"},
		{"the last one too", []Seen{ago(b, 4*time.Hour)}, nil, "", "b was not there for 4h0m0s"},
		{"one comes while one is away", []Seen{ago(b, time.Hour)}, []Store{c}, "b c", "c is new"},
	} {
		got, reason := Decide(tc.have, tc.there, now, 75*time.Minute)
		if names := strings.Join(namesOf(got), " "); names != tc.want || reason != tc.reason {
			t.Errorf("%s: got %v because %q, want %s because %q", tc.about, names, reason, tc.want, tc.reason)
		}
	}
	if got, _ := Decide([]Seen{ago(b, time.Hour)}, []Store{{"b", "b:2"}}, now, 75*time.Minute); got[0].Addr != "b:2" || !got[0].At.Equal(now) {
		t.Errorf("a store that moved is %+v", got)
	}
}

func TestWhatAServerLacks(t *testing.T) {
	now := time.UnixMilli(100_000_000)
	ms := now.UnixMilli()
	hour := time.Hour.Milliseconds()
	for _, tc := range []struct {
		about    string
		newest   int64
		repaired bool
		want     Gap
	}{
		{"nothing, when it opened what it wrote", ms - 1000, false, NoGap()},
		{"everything, when it is empty", math.MinInt64, false, Gap{math.MinInt64, ms}},
		{"everything, when damage left nothing", math.MinInt64, true, Gap{math.MinInt64, ms}},
		{"the end, when it was damaged", ms - hour, true, Gap{ms - hour - backlog.Milliseconds(), ms}},
	} {
		if got := GapOf(tc.newest, tc.repaired, now); got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.about, got, tc.want)
		}
	}
	g := NoGap().with(Gap{10, 20})
	for _, tc := range []struct {
		about            string
		mint, maxt       int64
		wantFrom, wantTo int64
		some             bool
	}{
		{"before it", 1, 9, 0, 0, false},
		{"after it", 21, 30, 0, 0, false},
		{"across it", 1, 30, 10, 20, true},
		{"into its end", 20, 30, 20, 20, true},
	} {
		from, to, some := g.within(tc.mint, tc.maxt)
		if some != tc.some || some && (from != tc.wantFrom || to != tc.wantTo) {
			t.Errorf("a time %s: got %d to %d, %v", tc.about, from, to, some)
		}
	}
	if _, _, some := NoGap().within(math.MinInt64, math.MaxInt64); some {
		t.Error("no gap is one")
	}
	for _, tc := range []struct {
		about string
		gap   Gap
		want  Gap
		why   string
	}{
		{"nothing is nothing", NoGap(), NoGap(), ""},
		{"its end may still be somewhere", Gap{math.MinInt64, ms - hour}, Gap{math.MinInt64, ms - hour}, ""},
		{"all of it is too old", Gap{math.MinInt64, ms - hour - 1}, NoGap(), "no store keeps samples of before 1970-01-02T02:46:40Z"},
		{"the clock was set back", Gap{ms - hour, ms + 2*hour}, Gap{ms - hour, ms + 2*hour}, ""},
	} {
		if got, why := tc.gap.left(now, time.Hour); got != tc.want || why != tc.why {
			t.Errorf("%s: got %v because %q", tc.about, got, why)
		}
	}
	for _, tc := range []struct {
		about string
		view  View
		want  bool
	}{
		{"never heard of", View{Away: true}, true},
		{"older", View{Known: true, Oldest: 5}, true},
		{"older and away", View{Away: true, Known: true, Oldest: 5}, true},
		{"younger", View{Known: true, Oldest: 11}, false},
		{"empty", View{Known: true, Oldest: math.MaxInt64}, false},
	} {
		if tc.view.has(10) != tc.want {
			t.Errorf("a store that is %s may have it: %v", tc.about, !tc.want)
		}
	}
}

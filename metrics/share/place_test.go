package share

import (
	"fmt"
	"slices"
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

func TestSeriesAreSpreadEvenlyOverTwoOfTheStores(t *testing.T) {
	const n = 20_000
	for _, names := range [][]string{{"a", "b"}, {"a", "b", "c"}, {"a", "b", "c", "d", "e"}} {
		p := places(t, names...)
		have := map[string]int{}
		for i := range n {
			of := p.Of(series(i))
			if of[0] == of[1] || !slices.Contains(names, of[0]) || !slices.Contains(names, of[1]) {
				t.Fatalf("series %d is in %v of %v", i, of, names)
			}
			have[of[0]]++
			have[of[1]]++
		}
		for _, s := range names {
			fair := float64(n) * Replication / float64(len(names))
			if got := float64(have[s]); got < 0.7*fair || got > 1.3*fair {
				t.Errorf("%s of %d stores has %.0f series, a fair share is %.0f", s, len(names), got, fair)
			}
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
		for _, s := range now {
			if !slices.Contains(old[:], s) {
				if s != "d" {
					t.Fatalf("series %d moved from %v to %v", i, old, now)
				}
				moved++
			}
		}
	}
	if moved == 0 || moved > 2*n*35/100 {
		t.Errorf("%d of %d copies moved to the fourth store", moved, 2*n)
	}
}

func TestOneStoreIsNoPlaceToShare(t *testing.T) {
	if _, err := NewPlaces([]string{"a"}); err == nil {
		t.Error("one store was accepted")
	}
}

func TestWhoIsAwayKeepsItsPlaceForAWhile(t *testing.T) {
	now := time.Unix(10_000, 0)
	server, b, c := Store{"a", "a:1", true}, Store{"b", "b:1", false}, Store{"c", "c:1", false}
	ago := func(s Store, d time.Duration) Seen { return Seen{s, now.Add(-d)} }
	for _, tc := range []struct {
		about  string
		have   []Seen
		there  []Store
		want   string
		reason string
	}{
		{"nobody is nobody", nil, nil, "", ""},
		{"who comes is in", nil, []Store{b, server}, "a b", "b is new, a is new"},
		{"who is there stays", []Seen{ago(server, time.Second), ago(b, time.Second)}, []Store{server, b}, "a b", ""},
		{"who is away a moment stays", []Seen{ago(server, time.Second), ago(b, time.Hour)}, []Store{server}, "a b", ""},
		{"after a restart all that were stay", []Seen{ago(server, time.Minute), ago(b, time.Minute)}, nil, "a b", ""},
		{"who is away too long goes", []Seen{ago(server, 0), ago(b, 4*time.Hour)}, []Store{server}, "a", "b was not there for 4h0m0s"},
		{"the server does not go", []Seen{ago(server, 9*time.Hour), ago(b, 0)}, []Store{b}, "a b", ""},
		{"unless there is another", []Seen{ago(server, 9*time.Hour), ago(b, 0)}, []Store{b, {"z", "z:1", true}}, "b z", "z is new, a was not there for 9h0m0s"},
		{"one comes while one is away", []Seen{ago(server, 0), ago(b, time.Hour)}, []Store{server, c}, "a b c", "c is new"},
	} {
		got, reason := Decide(tc.have, tc.there, now, 3*time.Hour)
		var names []string
		for _, s := range got {
			names = append(names, s.Name)
		}
		if strings.Join(names, " ") != tc.want || reason != tc.reason {
			t.Errorf("%s: got %v because %q, want %s because %q", tc.about, names, reason, tc.want, tc.reason)
		}
	}
	if got, _ := Decide([]Seen{ago(b, time.Hour)}, []Store{{"b", "b:2", false}}, now, 3*time.Hour); got[0].Addr != "b:2" || !got[0].At.Equal(now) {
		t.Errorf("a store that moved is %+v", got)
	}
	if n := shared([]Store{b, c}); n != nil {
		t.Errorf("without a server %v share", n)
	}
	if n := shared([]Store{server}); n != nil {
		t.Errorf("the server shares with %v", n)
	}
}

func TestAnAnswerIsIncompleteWhenBothPlacesCanBeAway(t *testing.T) {
	now := time.Unix(10_000, 0)
	fresh := map[string]time.Time{"x": now, "y": now}
	late := map[string]time.Time{"x": now.Add(-time.Hour), "y": now}
	for _, tc := range []struct {
		about  string
		stores []View
		want   string
	}{
		{"all are well", []View{{"a", false, fresh}, {"b", false, fresh}, {"c", false, fresh}}, ""},
		{"one is away", []View{{"a", false, fresh}, {"b", true, nil}, {"c", false, fresh}}, ""},
		{"one of two is away", []View{{"a", false, fresh}, {"b", true, nil}}, ""},
		{"two are away", []View{{"a", false, fresh}, {"b", true, nil}, {"c", true, fresh}}, "x y"},
		{"one is away and another lacks the backlog of a node", []View{{"a", false, fresh}, {"b", true, nil}, {"c", false, late}}, "x"},
		{"a node is silent everywhere", []View{{"a", false, late}, {"b", false, late}, {"c", false, late}}, "x"},
	} {
		if got := strings.Join(Incomplete(tc.stores, []string{"y", "x"}, now, 45*time.Second), " "); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.about, got, tc.want)
		}
	}
}

package replica

import (
	"testing"
	"time"
)

func TestAFollowerThatIsAloneIsNotPassedOver(t *testing.T) {
	now := time.Now()
	x, only := sore{}, []Member{{Node: "a"}}
	for range 3 {
		x = x.after(now, true, time.Minute)
		now = now.Add(time.Minute)
	}
	if x.until.IsZero() || len(able(now, only, map[string]sore{"a": x})) != 1 {
		t.Errorf("%+v", x)
	}
	if got := able(now, []Member{{Node: "a"}, {Node: "b"}}, map[string]sore{"a": x}); len(got) != 1 || got[0].Node != "b" {
		t.Errorf("%+v", got)
	}
	if x = x.after(now, false, time.Minute); x != (sore{}) {
		t.Errorf("it takes lines again: %+v", x)
	}
}

func TestDecidePlace(t *testing.T) {
	now := time.Now()
	a, b, c := &Member{Node: "a"}, &Member{Node: "b"}, &Member{Node: "c"}
	list := func(ms ...*Member) (out []Member) {
		for _, m := range ms {
			out = append(out, *m)
		}
		return out
	}
	long, justNow := now.Add(-time.Hour), now.Add(-time.Second)
	for _, x := range []struct {
		name  string
		have  placement
		want  []Member
		since time.Time
		out   placement
	}{
		{"the first follower is taken at once", placement{}, list(a, b), justNow, placement{next: a}},
		{"alone nothing happens", placement{}, nil, long, placement{}},
		{"where it is, it stays", placement{at: a}, list(a, b), long, placement{at: a}},
		{"a follower that is not healthy is replaced at once", placement{at: a}, list(b, c), justNow, placement{at: a, next: b}},
		{"a healthy one only after a while", placement{at: a}, list(b, a), justNow, placement{at: a}},
		{"then it moves", placement{at: a}, list(b, a), long, placement{at: a, next: b}},
		{"the old one is back before the new one has all", placement{at: a, next: b}, list(a, b), long, placement{at: a}},
		{"the new one dies too", placement{at: a, next: b}, list(c), justNow, placement{at: a, next: c}},
		{"what comes up is not moved at once", placement{at: a, next: b}, list(c, b), justNow, placement{at: a, next: b}},
		{"but later it is", placement{at: a, next: b}, list(c, b), long, placement{at: a, next: c}},
		{"nobody healthy changes nothing", placement{at: a, next: b}, nil, long, placement{at: a, next: b}},
	} {
		t.Run(x.name, func(t *testing.T) {
			out, reason := decidePlace(now, x.have, x.want, x.since, time.Minute)
			eq := func(p, q *Member) bool { return p == nil && q == nil || p != nil && q != nil && *p == *q }
			if !eq(out.at, x.out.at) || !eq(out.next, x.out.next) || reason == "" {
				t.Errorf("at %v, next %v: %s", out.at, out.next, reason)
			}
		})
	}
}

func TestDecideRoom(t *testing.T) {
	x, y := &held{owner: "x"}, &held{owner: "y"}
	for _, c := range []struct {
		name string
		uses []use
		n    int64
		of   *held
		part string
		ok   bool
	}{
		{"there is room", []use{{x, 50, map[string]int64{"1": 50}}}, 50, nil, "", true},
		{"the oldest of all goes", []use{{x, 60, map[string]int64{"2": 20, "3": 20, "4": 20}}, {y, 40, map[string]int64{"1": 10, "5": 10, "6": 20}}}, 1, y, "1", true},
		{"two of each stay", []use{{x, 60, map[string]int64{"2": 20, "3": 40}}, {y, 40, map[string]int64{"1": 10, "5": 30}}}, 1, nil, "", false},
		{"what is being written stays", []use{{x, 100, nil}}, 1, nil, "", false},
	} {
		v, ok := decideRoom(c.uses, c.n, 100)
		if ok != c.ok || v.of != c.of || v.part != c.part {
			t.Errorf("%s: %+v %v", c.name, v, ok)
		}
	}
}

func TestDecideAge(t *testing.T) {
	now := time.Date(2026, 5, 10, 0, 0, 0, 0, time.UTC)
	parts := map[string]string{"parts/20260501T000000.000Z/blocks.dat": "", "parts/20260502T000000.000Z/blocks.dat": "", "parts/20260505T000000.000Z/blocks.dat": "", "wal/1.wal": ""}
	day := 24 * time.Hour
	for _, c := range []struct {
		name   string
		m      meta
		reason string
		upto   string
	}{
		{"an owner that lives shortens its copy itself", meta{Committed: true, At: now, Keep: day, Versions: parts}, "", ""},
		{"one that is gone loses what ended before", meta{Committed: true, At: now.Add(-5 * day), Keep: 7 * day, Versions: parts}, "", "20260501T000000.000Z"},
		{"and in the end all", meta{Committed: true, At: now.Add(-8 * day), Keep: 7 * day, Versions: parts}, "age", ""},
		{"kept for ever", meta{Committed: true, At: now.Add(-800 * day), Versions: parts}, "", ""},
		{"what never could be read goes after a day", meta{Touched: now.Add(-25 * time.Hour)}, "incomplete", ""},
		{"not before", meta{Touched: now.Add(-time.Hour)}, "", ""},
	} {
		if reason, upto := decideAge(now, c.m); reason != c.reason || upto != c.upto {
			t.Errorf("%s: %q %q", c.name, reason, upto)
		}
	}
}

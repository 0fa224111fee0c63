package supervisor

import (
	"strings"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	p := DefaultPatience()
	for _, c := range []struct {
		what   string
		v      Vitals
		want   Verdict
		reason string
	}{
		{"it spoke", Vitals{}, Lives, ""},
		{"it was slow once", Vitals{Silent: 3}, Lives, ""},
		{"20 s without a word are a doubt", Vitals{Silent: 4}, Doubts, "said nothing for 20s"},
		{"85 s without a word are a doubt", Vitals{Silent: 17, Idle: 17}, Doubts, "said nothing for 1m25s"},
		{"90 s are its end when it does nothing either", Vitals{Silent: 18, Idle: 18}, Ends, "said and did nothing for 1m30s"},
		{"and when a signal stopped it", Vitals{Silent: 18, Idle: 18, Stopped: true}, Ends, "stopped by a signal for 1m30s"},
		{"but not while it works or waits for a disk now and then", Vitals{Silent: 59, Idle: 17}, Doubts, "said nothing for 4m55s"},
		{"nor while a debugger holds it", Vitals{Silent: 1000, Idle: 1000, Traced: true}, Lives, "debugger"},
		{"5 min are the end of one that works", Vitals{Silent: 60}, Ends, "said nothing for 5m0s"},
		{"a part that does not answer is a doubt", Vitals{Stuck: 59, Part: "store"}, Doubts, "store has not answered for 4m55s"},
		{"and its end after 5 min", Vitals{Stuck: 60, Part: "store"}, Ends, "store has not answered for 5m0s"},
	} {
		got, reason := Judge(c.v, p)
		if got != c.want || !strings.Contains(reason, c.reason) {
			t.Errorf("%s: %s (%s), want %s (%s)", c.what, got, reason, c.want, c.reason)
		}
	}
}

// A minute of a test's outage by SIGSTOP, or of a machine that swaps, ends nothing.
func TestDefaultPatienceIsLongerThanAMinute(t *testing.T) {
	p := DefaultPatience()
	if time.Duration(p.Idle)*p.Look <= 75*time.Second || p.Look != Beat {
		t.Errorf("%+v", p)
	}
}

func TestLooksAreCountedAndAWordEndsTheCount(t *testing.T) {
	var l life
	step := func(word bool, part string, seconds float64) Vitals {
		if word {
			l.hear(part)
		}
		return l.look(process{seconds: seconds})
	}
	for i, c := range []struct {
		word    bool
		part    string
		seconds float64
		want    Vitals
	}{
		{true, "", 1, Vitals{}},
		{false, "", 1, Vitals{Silent: 1, Idle: 1}},
		{false, "", 1, Vitals{Silent: 2, Idle: 2}},
		{false, "", 2, Vitals{Silent: 3}}, // it did something
		{false, "", 2, Vitals{Silent: 4, Idle: 1}},
		{true, "store", 2, Vitals{Stuck: 1, Part: "store"}},
		{true, "store", 2, Vitals{Stuck: 2, Part: "store"}},
		{false, "", 2, Vitals{Silent: 1, Idle: 1, Stuck: 2, Part: "store"}},
		{true, "", 2, Vitals{}},
	} {
		if got := step(c.word, c.part, c.seconds); got != c.want {
			t.Errorf("look %d: %+v, want %+v", i, got, c.want)
		}
	}
}

func TestStat(t *testing.T) {
	const line = "42 (perch) role) T 1 42 42 0 -1 4194560 900 0 3 0 250 50 0 0 20 0 12 0 100 0 0"
	if got := parseStat(line); got != (process{seconds: 3, stopped: true}) {
		t.Errorf("got %+v", got)
	}
	for text, want := range map[string]process{"": {}, "42 (a) t 1": {}, ")": {}, strings.Replace(line, " T ", " t ", 1): {seconds: 3, traced: true}} {
		if got := parseStat(text); got != want {
			t.Errorf("%q: got %+v", text, got)
		}
	}
}

func FuzzStat(f *testing.F) {
	f.Add("42 (perch) role) D 1 42 42 0 -1 4194560 900 0 3 0 250 50 0 0 20")
	f.Fuzz(func(t *testing.T, text string) { parseStat(text) })
}

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
		return l.look(process{seconds: seconds}, 0)
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

func TestACrowdedMachineIsGivenTime(t *testing.T) {
	var l life
	looks := 0
	for p := DefaultPatience(); ; looks++ {
		l.hear("metrics")
		if verdict, _ := Judge(l.look(process{seconds: float64(looks), crowded: true}, p.Crowd), p); verdict == Ends {
			break
		}
	}
	if after := time.Duration(looks) * DefaultPatience().Look; after < 25*time.Minute || after > 31*time.Minute {
		t.Errorf("a part that does not answer on a crowded machine ends its role after %s", after)
	}
	for text, want := range map[string]bool{
		"": false, "some avg10=0.00 avg60=x": false,
		"some avg10=96.88 avg60=12.00 avg300=97.62 total=20550313069\nfull avg10=0.00 avg60=96.86 avg300=0.00 total=0\n": false,
		"some avg10=0.00 avg60=50.00 avg300=0.00 total=1\n":                                                              true,
	} {
		if got := crowded(text); got != want {
			t.Errorf("crowded(%q) is %v", text, got)
		}
	}
}

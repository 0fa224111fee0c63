package rule

import (
	"reflect"
	"testing"
	"time"
)

func TestWhenAnAlertWouldHaveFired(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(minutes ...int) (out []time.Time) {
		for _, m := range minutes {
			out = append(out, start.Add(time.Duration(m)*time.Minute))
		}
		return out
	}
	span := func(from, to int, open bool) Span {
		return Span{start.Add(time.Duration(from) * time.Minute), start.Add(time.Duration(to) * time.Minute), open}
	}
	one := Timing{Step: time.Minute, EvaluatedTo: at(100)[0]}
	with := func(hold, keep time.Duration) Timing {
		t := one
		t.For, t.KeepFiring = hold, keep
		return t
	}
	for _, test := range []struct {
		name   string
		truths []time.Time
		timing Timing
		want   []Span
	}{
		{"never true", nil, one, nil},
		{"true once fires until the next evaluation", at(5), one, []Span{span(5, 6, false)}},
		{"two runs are two alerts", at(5, 6, 7, 20), one, []Span{span(5, 8, false), span(20, 21, false)}},
		{"shorter than for never fires", at(5, 6, 7), with(3*time.Minute, 0), nil},
		{"as long as for fires at its end", at(5, 6, 7, 8), with(3*time.Minute, 0), []Span{span(8, 9, false)}},
		{"a gap starts for anew", at(5, 6, 8, 9, 10, 11), with(3*time.Minute, 0), []Span{span(11, 12, false)}},
		{"keep_firing_for bridges gaps", at(5, 8, 11, 30), with(0, 4*time.Minute), []Span{span(5, 15, false), span(30, 34, false)}},
		{"still true at the end is open", at(98, 99, 100), one, []Span{span(98, 100, true)}},
		{"order does not matter", at(7, 5, 6), one, []Span{span(5, 8, false)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Fired(test.truths, test.timing); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %v\nwant %v", got, test.want)
			}
		})
	}
}

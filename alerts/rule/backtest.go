package rule

import (
	"slices"
	"time"
)

// Timing of an alert.
type Timing struct {
	Step        time.Duration // between two evaluations
	For         time.Duration // true this long before it fires
	KeepFiring  time.Duration // fires this long after it was last true
	EvaluatedTo time.Time     // end of the past that was looked at
}

// Span is one time that an alert would have fired.
type Span struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`   // first evaluation at which it no longer fired
	Open bool      `json:"open"` // it still did at the end
}

// Fired tells when an alert with one set of labels would have fired, from the
// times at which its expression was true. A time that is missing is one at
// which it was not true; half a step of lateness is forgiven.
func Fired(truths []time.Time, t Timing) []Span {
	truths = slices.SortedFunc(slices.Values(truths), time.Time.Compare)
	var out []Span
	gap := t.Step + t.Step/2
	var began, last time.Time // of the run of truths
	firing := false
	end := func(at time.Time) { // when what fires since out's last entry ends
		until := last.Add(max(t.Step, t.KeepFiring))
		out[len(out)-1].To = until
		if until.After(at) {
			out[len(out)-1].To, out[len(out)-1].Open = at, true
		}
	}
	for i, at := range truths {
		if i > 0 && at.Sub(last) > gap {
			if firing && at.Sub(last) > max(gap, t.KeepFiring) {
				end(at)
				firing = false
			}
			if !firing {
				began = at
			}
		}
		if i == 0 {
			began = at
		}
		last = at
		if !firing && at.Sub(began) >= t.For {
			out = append(out, Span{From: at})
			firing = true
		}
	}
	if firing {
		end(t.EvaluatedTo)
	}
	return out
}

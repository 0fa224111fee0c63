package autoscale

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// samples acts as the node and the store: cpu seconds of one pod, read at whole
// multiples of five seconds, stored a little later; rate is PromQL's without
// extrapolation.
type samples struct {
	used  func(time.Time) float64 // cpu seconds since ever
	every time.Duration
	late  time.Duration
}

func (s samples) rate(at time.Time, window time.Duration) (float64, bool) {
	var times []time.Time
	for t := at.Truncate(s.every); t.After(at.Add(-window)); t = t.Add(-s.every) {
		if !t.Add(s.late).After(at) {
			times = append(times, t)
		}
	}
	if len(times) < 2 {
		return 0, false
	}
	newest, oldest := times[0], times[len(times)-1]
	return (s.used(newest) - s.used(oldest)) / newest.Sub(oldest).Seconds(), true
}

// firstGrowth runs the loop over one pod with a request of half a core and a
// target of 50 % and tells when it first asks for more than one replica.
func firstGrowth(t *testing.T, cfg Config, s samples, limit time.Duration) (at time.Duration) {
	t.Helper()
	began := time.Now()
	goal := Goal{Resource: "cpu", Utilization: 50}
	pod := Pod{Name: "a", Started: began.Add(-time.Hour), ReadyKnown: true, Ready: true, ReadyChanged: began.Add(-time.Hour), Request: 500}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for {
		now := time.Now()
		usage := map[string]float64{}
		if v, ok := s.rate(now, cfg.Timing.Window); ok {
			usage["a"] = v * 1000
		}
		p := Propose(now, goal, 1, []Pod{pod}, usage, Tolerance{cfg.Tolerance, cfg.Tolerance}, cfg.Timing)
		if p.Err == nil && p.Replicas > 1 {
			return now.Sub(began)
		}
		select {
		case <-ctx.Done():
			return 0
		case <-time.After(cfg.untilNext(now)):
		}
	}
}

func TestARushIsSeenWithinTenSecondsWheneverItBegins(t *testing.T) {
	worst := time.Duration(0)
	for phase := range 20 {
		synctest.Test(t, func(t *testing.T) {
			<-time.After(time.Until(time.Now().Truncate(5 * time.Second).Add(20*time.Second + time.Duration(phase)*250*time.Millisecond)))
			rush := time.Now()
			used := func(at time.Time) float64 { // idle, then four times the target
				return 0.05*at.Sub(rush.Add(-time.Hour)).Seconds() + max(0, at.Sub(rush).Seconds())*0.95
			}
			took := firstGrowth(t, Default(), samples{used, 5 * time.Second, 300 * time.Millisecond}, time.Minute)
			if took == 0 || took > 10*time.Second {
				t.Errorf("a rush %d ms after a sample was seen after %s", phase*250, took)
			}
			worst = max(worst, took)
		})
	}
	t.Logf("slowest %s", worst)
}

func TestNoiseOfOneSampleIsNotChased(t *testing.T) {
	// At the target on average; one five-second step uses 30 % more, the next less.
	used := func(at time.Time) float64 {
		steps := at.Unix() / 5
		return 0.25*float64(steps)*5 + 0.075*5*float64(steps%2)
	}
	for window, chased := range map[time.Duration]bool{Default().Timing.Window: false, 10 * time.Second: true} {
		t.Run(fmt.Sprint(window), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := Default()
				cfg.Timing.Window = window
				if at := firstGrowth(t, cfg, samples{used, 5 * time.Second, 300 * time.Millisecond}, 10*time.Minute); (at != 0) != chased {
					t.Errorf("with a window of %s replicas grew after %s", window, at)
				}
			})
		})
	}
}

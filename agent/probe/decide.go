package probe

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Kind is what a probe is for.
type Kind string

// The kinds, as metrics and events name them.
const (
	Startup   Kind = "Startup"
	Liveness  Kind = "Liveness"
	Readiness Kind = "Readiness"
)

// state is what one probe of one container instance has found.
type state struct {
	kind    Kind
	ok      bool // the result that counts
	decided bool // ok was found, not assumed
	last    bool // the last outcome
	run     int  // how often it came in a row
	hold    bool // a restart was asked for; nothing counts until it happened
}

// begin is what is assumed before the first result: not started, not ready,
// but alive.
func begin(kind Kind, seed bool) state {
	return state{kind: kind, ok: kind == Liveness || seed, decided: seed}
}

// after is the state after one more outcome. It says whether what counts has
// changed.
func (s state) after(ok bool, p *corev1.Probe) (state, bool) {
	if s.hold {
		return s, false
	}
	if s.run > 0 && s.last == ok {
		s.run++
	} else {
		s.last, s.run = ok, 1
	}
	if s.run < int(threshold(ok, p)) {
		return s, false
	}
	changed := !s.decided || s.ok != ok
	s.ok, s.decided = ok, true
	if !ok && s.kind != Readiness {
		s.hold, s.run = true, 0
	}
	return s, changed
}

func threshold(ok bool, p *corev1.Probe) int32 {
	if ok {
		return max(1, p.SuccessThreshold)
	}
	if p.FailureThreshold <= 0 {
		return 3
	}
	return p.FailureThreshold
}

// due says whether a probe is to run now: after its initial delay, and liveness
// and readiness only once the container has started.
func due(kind Kind, p *corev1.Probe, started, ending bool, running time.Duration) bool {
	if running < time.Duration(p.InitialDelaySeconds)*time.Second {
		return false
	}
	switch kind {
	case Startup:
		return !started && !ending
	case Liveness:
		return started && !ending
	}
	return started
}

func period(p *corev1.Probe) time.Duration {
	if p.PeriodSeconds <= 0 {
		return 10 * time.Second
	}
	return time.Duration(p.PeriodSeconds) * time.Second
}

func timeout(p *corev1.Probe) time.Duration {
	if p.TimeoutSeconds <= 0 {
		return time.Second
	}
	return time.Duration(p.TimeoutSeconds) * time.Second
}

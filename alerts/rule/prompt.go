package rule

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/rules"
)

// settle is how long a change waits for others that come with it.
const settle = 50 * time.Millisecond

// pause is the least time between two prompt evaluations; after a slow one it
// is pauseShare times as long as that took, so that a storm of changes costs a
// bounded share of a core.
const (
	pause      = 500 * time.Millisecond
	pauseShare = 4
)

// prompt evaluates the groups that read the state of objects as soon as that
// state changes. Between ticks only; the ticks go on as they are.
type prompt struct {
	changed chan struct{} // capacity 1: more changes before the next look are one
	first   chan time.Time
	state   map[string]bool // keys of the groups that read state; owned by Run

	seconds prometheus.Histogram
	setBack prometheus.Counter
	skipped prometheus.Counter

	mu    sync.Mutex
	gates map[string]*gate
	told  time.Time // when it was last logged that the clock was set back
}

// gate lets one evaluation of a group in at a time, and none that is older than
// the last.
type gate struct {
	mu   sync.Mutex
	last time.Time
}

func newPrompt(reg prometheus.Registerer) *prompt {
	p := &prompt{changed: make(chan struct{}, 1), first: make(chan time.Time, 1), gates: map[string]*gate{},
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "perch_rule_prompt_seconds",
			Help:    "Time from a change of an object to the end of the evaluation it caused.",
			Buckets: []float64{0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4}})}
	p.setBack = prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_rule_clock_set_back_total", Help: "Times that a group was evaluated at an earlier time than before because the clock had been set back."})
	p.skipped = prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_rule_prompt_skipped_total", Help: "Groups of namespaces that a change of an object did not evaluate at once, because they are slow or many: their tick does."})
	reg.MustRegister(p.seconds, p.setBack, p.skipped)
	return p
}

// Changed says that the state of an object changed now: groups that read such
// state are evaluated at once. It never blocks.
func (r *Rules) Changed() {
	select {
	case r.prompt.first <- time.Now():
	default: // an earlier one waits: its time is the one that counts
	}
	select {
	case r.prompt.changed <- struct{}{}:
	default:
	}
}

// now evaluates after a change and tells how long to leave the next one.
func (r *Rules) now(ctx context.Context) time.Duration {
	select {
	case <-ctx.Done():
		return 0
	case <-time.After(settle):
	}
	select {
	case <-r.prompt.changed: // came while settling: in what follows
	default:
	}
	began := time.Now()
	first := began
	select {
	case first = <-r.prompt.first:
	default:
	}
	if err := r.refresh(ctx); err != nil {
		if ctx.Err() == nil {
			r.log.Warn("state of objects was not sampled, the next tick will", "err", err)
		}
		return pause
	}
	at := time.Now()
	wide, own := r.readers()
	for _, g := range wide {
		r.evaluate(ctx, g, at)
	}
	for begin := time.Now(); len(own) > 0 && time.Since(begin) < ownAll; own = own[1:] {
		if own[0].GetEvaluationTime() >= ownSlow || !r.evaluateIfFree(ctx, own[0], at) {
			r.prompt.skipped.Inc()
		}
	}
	r.prompt.skipped.Add(float64(len(own)))
	r.prompt.seconds.Observe(time.Since(first).Seconds())
	return max(pause, pauseShare*time.Since(began))
}

// After a change groups of namespaces come after those of the cluster, which must not
// wait for them: one that took ownSlow the last time waits for its tick, as those do that
// are left when ownAll is over.
const (
	ownSlow = 500 * time.Millisecond
	ownAll  = 2 * time.Second
)

// readers are the groups that read the state of objects: the cluster's and those of
// namespaces.
func (r *Rules) readers() (wide, own []*rules.Group) {
	r.mu.Lock()
	homes := r.homes
	r.mu.Unlock()
	for _, g := range r.manager.RuleGroups() {
		switch {
		case !r.prompt.state[rules.GroupKey(g.File(), g.Name())]:
		case homes[g.File()] == "":
			wide = append(wide, g)
		default:
			own = append(own, g)
		}
	}
	return wide, own
}

func (p *prompt) gate(g *rules.Group) *gate {
	key := rules.GroupKey(g.File(), g.Name())
	p.mu.Lock()
	defer p.mu.Unlock()
	turn := p.gates[key]
	if turn == nil {
		turn = &gate{}
		p.gates[key] = turn
	}
	return turn
}

// evaluate is one evaluation of a group, by its tick or after a change.
func (r *Rules) evaluate(ctx context.Context, g *rules.Group, at time.Time) {
	turn := r.prompt.gate(g)
	turn.mu.Lock()
	defer turn.mu.Unlock()
	r.evaluateIn(ctx, turn, g, at)
}

// evaluateIfFree is evaluate, unless the group is evaluated now.
func (r *Rules) evaluateIfFree(ctx context.Context, g *rules.Group, at time.Time) bool {
	turn := r.prompt.gate(g)
	if !turn.mu.TryLock() {
		return false
	}
	defer turn.mu.Unlock()
	r.evaluateIn(ctx, turn, g, at)
	return true
}

// evaluateIn is called with the gate's mu held.
func (r *Rules) evaluateIn(ctx context.Context, turn *gate, g *rules.Group, at time.Time) {
	if ahead := turn.last.Sub(time.Now().Round(0)); ahead > intervalsAhead*g.Interval() { // by the clock, not by the time passed
		r.clockSetBack(g, ahead)
		setBack(g, at, turn.last.Sub(at)+time.Millisecond) // the last evaluation was before this one
	} else if !at.After(turn.last) {
		return // a newer evaluation has been: this one's samples would be out of order
	}
	turn.last = at
	r.mu.Lock()
	home, known := r.homes[g.File()]
	r.mu.Unlock()
	if !known {
		return // its source went this moment: nobody knows any more what it may see
	}
	ctx = r.within(ctx, home)
	rules.DefaultEvalIterationFunc(context.WithValue(ctx, groupKey{}, g), g, at)
	if err := r.beginnings(ctx, g, at); err != nil {
		r.log.Warn("alerts begin anew after the restart", "group", g.Name(), "err", err)
	}
}

// intervalsAhead is how far the last evaluation of a group may lie in the future for
// the next to wait until then. Further, the clock was set back: waiting would leave
// the group's alerts as they are for as long.
const intervalsAhead = 3

// setBackAgain is how long after a log line that the clock was set back another is the
// next time, not the next group.
const setBackAgain = 10 * time.Minute

func (r *Rules) clockSetBack(g *rules.Group, ahead time.Duration) {
	r.prompt.setBack.Inc()
	r.prompt.mu.Lock()
	defer r.prompt.mu.Unlock()
	if !r.prompt.told.IsZero() && time.Since(r.prompt.told) < setBackAgain {
		return
	}
	r.prompt.told = time.Now()
	r.log.Warn("the clock was set back, rules are evaluated by the time it shows now", "group", g.Name(), "by", ahead.Round(time.Second))
}

// setBack moves what alerts of a group remember into the time that the clock shows now:
// what lies ahead of it is as long ago as it was. Else the end of an alert would not be
// told until the clock is there again, and one that waits would wait as much longer.
func setBack(g *rules.Group, now time.Time, ahead time.Duration) {
	past := func(t *time.Time) {
		if t.After(now) {
			*t = t.Add(-ahead)
		}
	}
	for _, x := range g.Rules() {
		a, ok := x.(*rules.AlertingRule)
		if !ok {
			continue
		}
		a.ForEachActiveAlert(func(x *rules.Alert) {
			untold := x.ResolvedAt.After(x.LastSentAt)
			for _, t := range []*time.Time{&x.ActiveAt, &x.FiredAt, &x.ResolvedAt, &x.LastSentAt, &x.KeepFiringSince} {
				past(t)
			}
			if x.State == rules.StateFiring && now.Sub(x.ActiveAt) < a.HoldDuration() { // it has waited, and goes on
				x.ActiveAt = now.Add(-a.HoldDuration())
			}
			if untold && !x.ResolvedAt.After(x.LastSentAt) {
				x.ResolvedAt = now
			}
		})
	}
}

// keep forgets the gates of groups that are gone.
func (p *prompt) keep(groups []*rules.Group) {
	present := map[string]bool{}
	for _, g := range groups {
		present[rules.GroupKey(g.File(), g.Name())] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.gates {
		if !present[key] {
			delete(p.gates, key)
		}
	}
}

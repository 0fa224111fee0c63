package supervisor

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Beat is how often a role says that it lives, and how often the supervisor
// looks whether it did.
const Beat = 5 * time.Second

// Pulse says for a role that it lives, as long as its checks return.
type Pulse struct {
	notify Notifier
	every  time.Duration

	mu     sync.Mutex
	checks []check
	at     string // the check under way, or ""
}

type check struct {
	name string
	ask  func(context.Context) error
}

// NewPulse makes the heart of a role; every is Beat.
func NewPulse(n Notifier, every time.Duration) *Pulse { return &Pulse{notify: n, every: every} }

// Check adds a question that a part answers as long as it works; it must be
// cheap. What it answers does not matter, an error is an answer too: only
// silence, or context.DeadlineExceeded, means that the part is stuck.
func (p *Pulse) Check(name string, ask func(context.Context) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checks = append(p.checks, check{name, ask})
}

// rest is how many beats there are to one round of checks, so that these cost
// next to nothing.
const rest = 3

// Run beats until ctx ends. A round of checks that has not ended by the next
// beat names the part it waits for.
func (p *Pulse) Run(ctx context.Context) error {
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	var round chan string // answers with the name of the part that is stuck, or ""
	stuck := ""
	for beat := 0; ; beat++ {
		select {
		case stuck = <-round:
			round = nil
		default:
			if round != nil {
				stuck = p.where()
			}
		}
		if round == nil && (beat%rest == 0 || stuck != "") {
			round = make(chan string, 1)
			go p.round(ctx, round)
		}
		p.say(stuck)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (p *Pulse) say(stuck string) {
	if stuck == "" {
		_ = p.notify.tell("alive", nil) // the supervisor hears the next one
		return
	}
	_ = p.notify.tell("stuck "+stuck, nil) // as above
}

func (p *Pulse) where() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at
}

// round asks all checks, one after the other.
func (p *Pulse) round(ctx context.Context, done chan<- string) {
	p.mu.Lock()
	checks := p.checks[:len(p.checks):len(p.checks)]
	p.mu.Unlock()
	stuck := ""
	for _, c := range checks {
		p.enter(c.name)
		if err := c.ask(ctx); errors.Is(err, context.DeadlineExceeded) && stuck == "" {
			stuck = c.name
		}
	}
	p.enter("")
	done <- stuck
}

func (p *Pulse) enter(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = name
}

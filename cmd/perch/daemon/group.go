package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/pprof"
	"slices"
	"time"
)

// Group runs the parts of one process and stops them in reverse order, the way
// deferred calls run: started later means stopped earlier.
type Group struct {
	grace  time.Duration // to stop one part
	stops  []stop
	failed chan error // capacity 1: the first part that ended by itself
}

type stop struct {
	name string
	fn   func(context.Context) error
}

var errEndedEarly = errors.New("returned before it was stopped")

// NewGroup gives every part up to grace to stop.
func NewGroup(grace time.Duration) *Group {
	return &Group{grace: grace, failed: make(chan error, 1)}
}

// Go runs a part until the group stops it. A part that ends earlier ends the group.
func (g *Group) Go(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go pprof.Do(ctx, pprof.Labels("part", name), func(ctx context.Context) {
		err := run(ctx)
		if ctx.Err() == nil { // nobody asked it to end
			select {
			case g.failed <- fmt.Errorf("%s ended: %w", name, cmp.Or(err, errEndedEarly)):
				err = nil // told
			default: // another part failed first; this one is told when stopped
			}
		}
		done <- err
	})
	g.OnStop(name, func(limit context.Context) error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-limit.Done():
			return limit.Err()
		}
	})
}

// OnStop adds a step to the shutdown; the last added runs first.
func (g *Group) OnStop(name string, fn func(context.Context) error) {
	g.stops = append(g.stops, stop{name, fn})
}

// Wait blocks until ctx ends or a part fails, then stops all parts.
func (g *Group) Wait(ctx context.Context) error {
	var cause error
	select {
	case <-ctx.Done():
	case cause = <-g.failed:
	}
	return errors.Join(cause, g.Stop())
}

// Stop ends all parts, last started first. It also undoes a half-done build.
func (g *Group) Stop() error {
	var errs error
	for _, s := range slices.Backward(g.stops) {
		limit, cancel := context.WithTimeout(context.Background(), g.grace)
		if err := s.fn(limit); err != nil && !errors.Is(err, context.Canceled) {
			errs = errors.Join(errs, fmt.Errorf("stop %s: %w", s.name, err))
		}
		cancel()
	}
	g.stops = nil
	return errs
}

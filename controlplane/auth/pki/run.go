package pki

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// keepEvery is far below a third of any certificate's life that we issue.
const keepEvery = time.Hour

// Keep renews the named pairs when they are due, until ctx ends. Servers and
// clients read the files again by themselves. A failed renewal is told and tried
// again an hour later; the old pair has a third of its life left then.
func (a *Authority) Keep(ctx context.Context, wants map[string]Request, log *slog.Logger) error {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		if err := a.EnsureAll(time.Now(), wants); err != nil {
			log.Error("certificates not renewed", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// EnsureAll is Ensure for several names.
func (a *Authority) EnsureAll(now time.Time, wants map[string]Request) error {
	var errs error
	for _, name := range slices.Sorted(maps.Keys(wants)) {
		if _, err := a.Ensure(now, name, wants[name]); err != nil {
			errs = errors.Join(errs, fmt.Errorf("ensure certificate %s: %w", name, err))
		}
	}
	return errs
}

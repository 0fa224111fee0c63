package daemon

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// checkLimit is how long a part may take to answer a check before the round
// goes on; the supervisor's patience is longer by far.
const checkLimit = 20 * time.Second

// check asks a part every few seconds whether it works, for the supervisor.
func (r role) check(part string, ask func(context.Context) error) {
	r.pulse.Check(part, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, checkLimit)
		defer cancel()
		err := ask(ctx)
		if ctx.Err() != nil { // however the part calls it
			return ctx.Err()
		}
		return err
	})
}

// checkSocket asks a door of this role.
func (r role) checkSocket(part, role, path string) {
	client := unixClient(r.cfg.Socket(role))
	r.check(part, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+role+path, http.NoBody)
		if err != nil {
			return fmt.Errorf("check %s: %w", part, err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("check %s: %w", part, err)
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	})
}

// startPulse lets the supervisor see that this role lives. The first check
// reads all its metrics, whose owners hold locks that a part in trouble keeps.
func (r role) startPulse() {
	r.check("metrics", func(context.Context) error {
		_, err := r.reg.Gather()
		return err
	})
	r.group.Go("pulse", r.pulse.Run)
}

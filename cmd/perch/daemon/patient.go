package daemon

import (
	"context"
	"log/slog"
	"time"
)

// startLimit is how long a role waits for the API to answer it before its
// watches start, and say themselves why they do not work.
const startLimit = 30 * time.Second

// untilAnswered asks until there is no error, ctx ends or limit is over. While
// a cluster starts, the API, the caller's rights and the shipped kinds come one
// after the other; a watch that begins before that fails loudly and tries again
// late.
func untilAnswered(ctx context.Context, limit time.Duration, log *slog.Logger, ask func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			log.Warn("watches start although the API does not answer as it should", "err", err)
			return
		case <-tick.C:
		}
	}
}

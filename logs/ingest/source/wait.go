package source

import (
	"context"
	"time"
)

// Keep tries until the store takes what a sender gave, counting each refusal,
// or until ctx ends: then it returns the store's last error. Meanwhile the
// sender waits for its answer.
func Keep(ctx context.Context, refused interface{ Inc() }, try func() error) error {
	for wait := 50 * time.Millisecond; ; wait = min(wait*2, 2*time.Second) {
		err := try()
		if err == nil {
			return nil
		}
		refused.Inc()
		if Rest(ctx, wait) != nil {
			return err
		}
	}
}

// Rest waits; the error says that ctx ended before.
func Rest(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

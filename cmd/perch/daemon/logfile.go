package daemon

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	logLimit = 16 << 20         // bytes of D/log/<role>.log before it is rotated
	logCheck = 15 * time.Second // how often its size is looked at
)

// keepLog rotates this process's stderr, which the supervisor opened as
// D/log/<role>.log: one old file is kept. Everything a role or its libraries
// print lands there.
func keepLog(path string) func(context.Context) error {
	return func(ctx context.Context) error {
		tick := time.NewTicker(logCheck)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			st, err := os.Stat(path)
			if err != nil || st.Size() < logLimit {
				continue // no file: this process logs elsewhere
			}
			if err := rotate(path); err != nil {
				return err
			}
		}
	}
}

func rotate(path string) error {
	if err := os.Rename(path, path+".1"); err != nil {
		return fmt.Errorf("rotate log %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("rotate log %s: %w", path, err)
	}
	defer f.Close()
	for _, fd := range []int{1, 2} {
		if err := unix.Dup3(int(f.Fd()), fd, 0); err != nil {
			return fmt.Errorf("rotate log %s: %w", path, err)
		}
	}
	return nil
}

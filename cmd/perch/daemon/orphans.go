package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// orphanGrace is how long roles without a supervisor may take to end.
const orphanGrace = 20 * time.Second

// endOrphans waits until no role of a data directory runs. A supervisor that was
// killed leaves its roles, which the kernel has asked to end; until they have,
// they write. Those that do not end within grace are killed.
func endOrphans(ctx context.Context, dir string, grace time.Duration) error {
	left, err := orphansOf("/proc", dir)
	if err != nil || len(left) == 0 {
		return err
	}
	for _, pid := range left {
		_ = syscall.Kill(pid, syscall.SIGTERM) // it may be gone already
		_ = syscall.Kill(pid, syscall.SIGCONT) // a stopped one acts on nothing else
	}
	began, killed := time.Now(), false
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("end roles: processes %v are left: %w", left, ctx.Err())
		case <-tick.C:
		}
		if left, err = orphansOf("/proc", dir); err != nil || len(left) == 0 {
			return err
		}
		switch since := time.Since(began); {
		case since > 2*grace:
			return fmt.Errorf("end roles: processes %v are left", left)
		case since > grace && !killed:
			killed = true
			for _, pid := range left {
				_ = syscall.Kill(pid, syscall.SIGKILL) // as above
			}
		}
	}
}

// orphansOf finds the processes that the supervisor of a data directory started.
func orphansOf(proc, dir string) (out []int, _ error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join(proc, e.Name(), "cmdline"))
		if err != nil {
			continue // it is gone
		}
		args := strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00") // none of one that has ended
		if len(args) >= 5 && args[1] == "role" && slices.Equal(args[3:5], []string{"--data-dir", dir}) {
			out = append(out, pid)
		}
	}
	return out, nil
}

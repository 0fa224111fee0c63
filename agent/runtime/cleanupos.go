package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// readProcesses reads the process table. Processes that end meanwhile are left
// out.
func readProcesses(proc string) ([]process, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	var out []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(proc, e.Name(), "stat"))
		if err != nil {
			continue
		}
		p, ok := parseStat(string(stat))
		if !ok {
			continue
		}
		p.pid = pid
		p.exe, _ = os.Readlink(filepath.Join(proc, e.Name(), "exe"))
		if text, err := os.ReadFile(filepath.Join(proc, e.Name(), "cmdline")); err == nil {
			p.args = strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
		}
		out = append(out, p)
	}
	return out, nil
}

// parseStat reads parent and state from /proc/PID/stat. The name between the
// brackets may hold anything, brackets too.
func parseStat(stat string) (process, bool) {
	i := strings.LastIndex(stat, ")")
	if i < 0 {
		return process{}, false
	}
	f := strings.Fields(stat[i+1:])
	if len(f) < 2 {
		return process{}, false
	}
	parent, err := strconv.Atoi(f[1])
	return process{parent: parent, zombie: f[0] == "Z" || f[0] == "X"}, err == nil
}

// removeCgroups removes a cgroup and all below it in every hierarchy. Processes
// that were killed leave their cgroup a little later, so it tries for 5 s. With
// kill, it ends those that are still there.
func removeCgroups(ctx context.Context, root string, kill bool) (int, error) {
	clean := filepath.Clean("/" + root)
	if clean == "/" {
		return 0, errors.New("remove cgroups: will not remove the root")
	}
	// On v2 there is one tree; on v1 and hybrid each controller has its own one
	// level down. Looking there on v2 would find others' groups of that name.
	tops := []string{"/sys/fs/cgroup" + clean}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		if tops, err = filepath.Glob("/sys/fs/cgroup/*" + clean); err != nil {
			return 0, fmt.Errorf("remove cgroups %s: %w", clean, err)
		}
	}
	limit := time.NewTimer(5 * time.Second)
	defer limit.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	n := 0
	for {
		var left []string
		for _, top := range tops {
			var dirs []string
			_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			slices.Reverse(dirs) // children first
			for _, d := range dirs {
				switch err := os.Remove(d); {
				case err == nil:
					n++
				case !errors.Is(err, os.ErrNotExist):
					left = append(left, d)
				}
			}
		}
		if len(left) == 0 {
			return n, nil
		}
		if kill {
			killIn(left)
		}
		select {
		case <-ctx.Done():
			return n, fmt.Errorf("remove cgroups %s: %w", clean, ctx.Err())
		case <-limit.C:
			return n, fmt.Errorf("remove cgroups %s: %d are still in use, first %s", clean, len(left), left[0])
		case <-tick.C:
		}
	}
}

// killIn kills the processes of these cgroups, never this one.
func killIn(cgroups []string) {
	for _, dir := range cgroups {
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			continue // gone meanwhile
		}
		for _, f := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 1 && pid != os.Getpid() {
				_ = unix.Kill(pid, unix.SIGKILL) // it may be gone already
			}
		}
	}
}

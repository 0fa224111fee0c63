package cgrouptree

import (
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

// hierarchy is one mounted cgroup file system.
type hierarchy struct {
	dir     string
	unified bool // v2
	only    bool // v2 with all controllers, not the controller-less one of hybrid machines
}

func (h hierarchy) has(file string) bool {
	_, err := os.Stat(filepath.Join(h.dir, file))
	return err == nil
}

// mounted finds the hierarchies below mount.
func mounted(mount string) ([]hierarchy, error) {
	if magic(mount) == unix.CGROUP2_SUPER_MAGIC {
		return []hierarchy{{dir: mount, unified: true, only: true}}, nil
	}
	entries, err := os.ReadDir(mount)
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	var out []hierarchy
	for _, e := range entries {
		dir := filepath.Join(mount, e.Name())
		if !e.IsDir() { // cpu → cpu,cpuacct and the like
			continue
		}
		switch magic(dir) {
		case unix.CGROUP_SUPER_MAGIC:
			out = append(out, hierarchy{dir: dir})
		case unix.CGROUP2_SUPER_MAGIC:
			out = append(out, hierarchy{dir: dir, unified: true})
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("find cgroups: nothing is mounted below %s", mount)
	}
	return out, nil
}

func magic(path string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return 0
	}
	return int64(st.Type)
}

// Top is the directory of a cgroup in the first of the hierarchies below mount.
func Top(mount, group string) (string, error) {
	all, err := mounted(mount)
	if err != nil {
		return "", err
	}
	return filepath.Join(all[0].dir, group), nil
}

// MakeLeaf creates a cgroup for processes, in every hierarchy below mount, and
// returns its directories. With v2 nothing may be made below it.
func MakeLeaf(mount, group string) ([]string, error) {
	all, err := mounted(mount)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, h := range all {
		if err := h.make(group, true); err != nil {
			return nil, err
		}
		out = append(out, filepath.Join(h.dir, group))
	}
	return out, nil
}

// make creates a group and its parents with what children need. A leaf is for
// processes: with v2 it cannot hand controllers on and have processes.
func (h hierarchy) make(group string, leaf bool) error {
	at := h.dir
	words := strings.Split(strings.Trim(group, "/"), "/")
	for _, name := range words {
		if h.only {
			if err := h.delegate(at); err != nil {
				return err
			}
		}
		parent := at
		at = filepath.Join(at, name)
		err := os.Mkdir(at, 0o755)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("create cgroup %s: %w", at, err)
		}
		if !h.unified { // what was there may be another process' and not filled yet
			if err := inheritSets(parent, at); err != nil {
				return err
			}
		}
	}
	if h.only && !leaf {
		return h.delegate(at)
	}
	return nil
}

// needed are the controllers without which limits would be words.
var needed = []string{"cpu", "memory", "pids"}

// delegate lets children have controllers, one by one: only the needed ones
// must be there.
func (h hierarchy) delegate(dir string) error {
	available, err := words(dir, "cgroup.controllers")
	if err != nil {
		return err
	}
	for _, c := range needed {
		if !slices.Contains(available, c) {
			return fmt.Errorf("cgroup %s has no %s controller: what started perch must delegate it", dir, c)
		}
	}
	enabled, err := words(dir, "cgroup.subtree_control")
	if err != nil {
		return err
	}
	if dir == h.dir && !slices.Contains(enabled, "memory") {
		// Before anything is switched on: with controllers for threads only, a
		// cgroup with processes becomes one whose children take none.
		if err := moveOut(dir); err != nil {
			return err
		}
	}
	for _, c := range available {
		if slices.Contains(enabled, c) {
			continue
		}
		err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
		if err != nil && slices.Contains(needed, c) {
			return fmt.Errorf("delegate cgroup controller %s in %s: %w", c, dir, err)
		}
	}
	return nil
}

func words(dir, file string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return nil, fmt.Errorf("read controllers: %w", err)
	}
	return strings.Fields(string(text)), nil
}

// moveOut moves the processes of the topmost cgroup into a leaf named init. The
// machine's own root never needs it. What a container sees as the root is a
// cgroup as any other: while its processes, perch among them, are in it, it
// cannot hand controllers on.
func moveOut(top string) error {
	if _, err := os.Stat(filepath.Join(top, "cgroup.type")); errors.Is(err, fs.ErrNotExist) {
		return nil // the machine's own
	}
	leaf := filepath.Join(top, "init")
	for range 10 { // a process that forks leaves its child behind
		pids, err := words(top, "cgroup.procs")
		if err != nil || len(pids) == 0 {
			return err
		}
		if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("create cgroup %s: %w", leaf, err)
		}
		for _, pid := range pids {
			if pid == "0" {
				return fmt.Errorf("cgroup %s has processes of another pid namespace: give perch's container a cgroup namespace of its own", top)
			}
			err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte(pid), 0)
			if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
				return fmt.Errorf("move process %s to cgroup %s: %w", pid, leaf, err)
			}
		}
	}
	return nil
}

// inheritSets copies what a new v1 cpuset lacks and without which nothing may
// run in it.
func inheritSets(parent, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another controller
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if strings.TrimSpace(string(have)) != "" {
			continue
		}
		from, err := os.ReadFile(filepath.Join(parent, name))
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), from, 0); err != nil {
			return fmt.Errorf("write %s of %s: %w", name, dir, err)
		}
	}
	return nil
}

// write writes the settings whose files this hierarchy has.
func (h hierarchy) write(group string, all []setting) error {
	dir := filepath.Join(h.dir, group)
	for _, s := range all {
		file := filepath.Join(dir, s.file)
		have, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		if strings.TrimSpace(string(have)) == s.value {
			continue
		}
		if err := os.WriteFile(file, []byte(s.value), 0); err != nil {
			return fmt.Errorf("write %q to %s: %w", s.value, file, err)
		}
	}
	return nil
}

// removeGroup removes a group from its leaves up. Processes that have been
// killed may need a moment to leave.
func removeGroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read cgroup %s: %w", dir, err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	for tries := 0; ; tries++ {
		err := unix.Rmdir(dir)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT):
			return nil
		case !errors.Is(err, unix.EBUSY) || tries == 10:
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
		time.Sleep(time.Duration(tries+1) * 2 * time.Millisecond)
	}
}

// killAll kills the processes of a group and of those below, and tells how many
// there were.
func killAll(dir string) (n int) {
	pids, err := words(dir, "cgroup.procs")
	if err != nil {
		return 0 // the group is gone
	}
	for _, text := range pids {
		if pid, err := strconv.Atoi(text); err == nil && pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
			n++
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return n
	}
	for _, e := range entries {
		if e.IsDir() {
			n += killAll(filepath.Join(dir, e.Name()))
		}
	}
	return n
}

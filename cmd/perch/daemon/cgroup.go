package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const cgroupMount = "/sys/fs/cgroup"

// hierarchies are the mounted cgroup trees that perch uses: one with version 2,
// one for each controller with version 1 (and the unified tree beside them,
// where pressure is measured).
func hierarchies() []string {
	if _, err := os.Stat(filepath.Join(cgroupMount, "cgroup.controllers")); err == nil {
		return []string{cgroupMount}
	}
	entries, err := os.ReadDir(cgroupMount)
	if err != nil {
		return nil // preflight has said what is missing
	}
	var out []string
	for _, e := range entries {
		dir := filepath.Join(cgroupMount, e.Name())
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			out = append(out, dir)
		}
	}
	return out
}

// topCgroup is where a cluster's name is on the machine: one directory of the
// first tree.
func topCgroup(root string) string { return filepath.Join(append(hierarchies(), cgroupMount)[0], root) }

// makeCgroup creates root/system/<leaf> in every hierarchy and returns its
// directories.
func makeCgroup(root, leaf string) (dirs []string, _ error) {
	path := filepath.Join(root, "system", leaf)
	for _, tree := range hierarchies() {
		dir := filepath.Join(tree, path)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make cgroup %s: %w", dir, err)
		}
		if tree == cgroupMount {
			if err := delegate(tree, path); err != nil {
				return nil, err
			}
		}
		if strings.HasSuffix(tree, "/cpuset") {
			if err := inheritCpuset(tree, path); err != nil {
				return nil, err
			}
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// enterCgroup moves this process into root/system/<role>, a leaf, with a memory
// limit in bytes.
func enterCgroup(root, role string, memory int64) error {
	dirs, err := makeCgroup(root, role)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		for _, file := range []string{"memory.max", "memory.limit_in_bytes"} {
			name := filepath.Join(dir, file)
			if _, err := os.Stat(name); err == nil {
				if err := os.WriteFile(name, []byte(strconv.FormatInt(memory, 10)), 0o644); err != nil {
					return fmt.Errorf("limit memory of role %s: %w", role, err)
				}
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return fmt.Errorf("enter cgroup %s: %w", dir, err)
		}
	}
	return nil
}

// delegate switches the controllers on from the top of a version 2 tree down
// to the parent of path.
func delegate(tree, path string) error {
	dir := tree
	for _, part := range strings.Split(strings.Trim(filepath.Dir(path), "/"), "/") {
		have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
		if err != nil {
			return fmt.Errorf("read controllers of %s: %w", dir, err)
		}
		for _, c := range strings.Fields(string(have)) {
			// One by one: a controller that cannot be delegated leaves the others on.
			if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644); err != nil && (c == "memory" || c == "cpu" || c == "pids") {
				return fmt.Errorf("delegate cgroup controller %s in %s: %w", c, dir, err)
			}
		}
		dir = filepath.Join(dir, part)
	}
	return nil
}

// inheritCpuset copies cpus and mems downwards; a version 1 cpuset without
// them takes no process.
func inheritCpuset(tree, path string) error {
	dir := tree
	for _, part := range strings.Split(strings.Trim(path, "/"), "/") {
		child := filepath.Join(dir, part)
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			have, err := os.ReadFile(filepath.Join(child, file))
			if err != nil {
				return fmt.Errorf("read cpuset of %s: %w", child, err)
			}
			if strings.TrimSpace(string(have)) != "" {
				continue
			}
			parent, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				return fmt.Errorf("read cpuset of %s: %w", dir, err)
			}
			if err := os.WriteFile(filepath.Join(child, file), parent, 0o644); err != nil {
				return fmt.Errorf("set cpuset of %s: %w", child, err)
			}
		}
		dir = child
	}
	return nil
}

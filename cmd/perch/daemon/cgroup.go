package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"perch/agent/cgrouptree"
)

const cgroupMount = "/sys/fs/cgroup"

// topCgroup is where a cluster's name is on the machine: one directory of the
// first tree.
func topCgroup(root string) string {
	top, err := cgrouptree.Top(cgroupMount, root)
	if err != nil {
		return filepath.Join(cgroupMount, root) // preflight has said what is missing
	}
	return top
}

// makeCgroup creates root/system/<leaf> in every hierarchy and returns its
// directories.
func makeCgroup(root, leaf string) (dirs []string, _ error) {
	return cgrouptree.MakeLeaf(cgroupMount, filepath.Join(root, "system", leaf))
}

// enterCgroup moves this process into root/system/<role>, a leaf, with a memory
// limit in bytes.
func enterCgroup(root, role string, memory int64) error {
	dirs, err := makeCgroup(root, role)
	if err != nil {
		return err
	}
	limited := false
	for _, dir := range dirs {
		for _, file := range []string{"memory.max", "memory.limit_in_bytes"} {
			name := filepath.Join(dir, file)
			if _, err := os.Stat(name); err == nil {
				if err := os.WriteFile(name, []byte(strconv.FormatInt(memory, 10)), 0o644); err != nil {
					return fmt.Errorf("limit memory of role %s: %w", role, err)
				}
				limited = true
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return fmt.Errorf("enter cgroup %s: %w", dir, err)
		}
	}
	if !limited {
		return fmt.Errorf("limit memory of role %s: no cgroup of %v has a memory limit", role, dirs)
	}
	return nil
}

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Layout is how controllers are mounted.
type Layout int

// The layouts.
const (
	Separate Layout = iota // v1
	Hybrid                 // v1, pressure in a v2 tree
	Unified                // v2
)

func (l Layout) String() string { return [...]string{"separate", "hybrid", "unified"}[l] }

// Tree is the place where cgroups are mounted.
type Tree struct {
	Root   string // /sys/fs/cgroup
	Layout Layout
	dirs   map[string]string // controller → directory of its hierarchy
}

// Detect finds out the layout below root.
func Detect(root string) (Tree, error) {
	if exists(filepath.Join(root, "cgroup.controllers")) {
		return Tree{Root: root, Layout: Unified}, nil
	}
	t := Tree{Root: root, Layout: Separate, dirs: map[string]string{}}
	for controller, names := range map[string][]string{
		"cpu":     {"cpu", "cpu,cpuacct"},
		"cpuacct": {"cpuacct", "cpu,cpuacct"},
		"memory":  {"memory"},
		"pids":    {"pids"},
		"blkio":   {"blkio"},
	} {
		for _, n := range names {
			if dir := filepath.Join(root, n); exists(dir) {
				t.dirs[controller] = dir
				break
			}
		}
	}
	if len(t.dirs) == 0 {
		return Tree{}, fmt.Errorf("detect cgroups in %s: no controller is mounted there", root)
	}
	if dir := filepath.Join(root, "unified"); exists(filepath.Join(dir, "cgroup.controllers")) {
		t.Layout, t.dirs["unified"] = Hybrid, dir
	}
	return t, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Dir is the directory of a cgroup for walking, watching and its start time.
func (t Tree) Dir(path string) string {
	if t.Layout == Unified {
		return filepath.Join(t.Root, path)
	}
	for _, c := range []string{"memory", "cpu", "pids"} {
		if d := t.dirs[c]; d != "" {
			return filepath.Join(d, path)
		}
	}
	return filepath.Join(t.dirs["cpuacct"], path)
}

// Children lists the paths of the cgroups directly below path, [] when path
// does not exist.
func (t Tree) Children(path string) ([]string, error) {
	entries, err := os.ReadDir(t.Dir(path))
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENODEV):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("list cgroups below %s: %w", path, err)
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, filepath.Join(path, e.Name()))
		}
	}
	return out, nil
}

// Links changes when a cgroup is made or removed directly below path, unless as
// many are made as are removed; 0 says nothing. It is one call, without a list.
func (t Tree) Links(path string) uint64 {
	var st unix.Stat_t
	if unix.Stat(t.Dir(path), &st) != nil || st.Nlink < 2 {
		return 0 // gone, or no count of directories is kept
	}
	return uint64(st.Nlink)
}

// Created is when the cgroup was made, the zero time when it is gone.
func (t Tree) Created(path string) time.Time {
	info, err := os.Stat(t.Dir(path))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime() // kernfs keeps the time of creation until a child is added
}

// Limits are what a cgroup was allowed, as the kernel reports it.
type Limits struct {
	CPUShares      uint64 // v1 scale; a v2 weight is converted
	CPUQuota       int64  // µs per period, -1 = none
	CPUPeriod      uint64 // µs
	Memory         uint64 // bytes, 0 = none
	MemorySwap     uint64 // bytes, memory and swap on v1, swap alone on v2; 0 = none
	MemoryReserved uint64 // bytes, 0 = none
	Pids           uint64 // 0 = none
}

// Limits reads what changes rarely, by path. Missing files leave zeros.
func (t Tree) Limits(path string) Limits {
	l := Limits{CPUQuota: -1}
	if t.Layout == Unified {
		dir := filepath.Join(t.Root, path)
		quota, period, _ := strings.Cut(text(dir, "cpu.max"), " ")
		l.CPUPeriod = limit(period)
		if q := limit(quota); q > 0 {
			l.CPUQuota = int64(q)
		}
		l.CPUShares = shares(limit(text(dir, "cpu.weight")))
		l.Memory = limit(text(dir, "memory.max"))
		l.MemorySwap = limit(text(dir, "memory.swap.max"))
		l.MemoryReserved = limit(text(dir, "memory.low"))
		l.Pids = limit(text(dir, "pids.max"))
		return l
	}
	cpu, memory := filepath.Join(t.dirs["cpu"], path), filepath.Join(t.dirs["memory"], path)
	l.CPUShares = limit(text(cpu, "cpu.shares"))
	l.CPUPeriod = limit(text(cpu, "cpu.cfs_period_us"))
	if q := limit(text(cpu, "cpu.cfs_quota_us")); q > 0 {
		l.CPUQuota = int64(q)
	}
	l.Memory = limit(text(memory, "memory.limit_in_bytes"))
	l.MemorySwap = limit(text(memory, "memory.memsw.limit_in_bytes"))
	l.MemoryReserved = limit(text(memory, "memory.soft_limit_in_bytes"))
	l.Pids = limit(text(filepath.Join(t.dirs["pids"], path), "pids.max"))
	return l
}

// text is the content of a small file, "" when it is not there. The system is
// called directly: an os.File would be registered for polling first, which
// costs more than the read.
func text(dir, name string) string {
	fd, err := unix.Open(dir+"/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var buf [64]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(buf[:n]))
}

// unlimited is v1's word for no memory limit: the largest page-aligned int64.
const unlimited = 1 << 62

// limit reads a number; "max", -1, absurdly large and garbage mean no limit.
func limit(s string) uint64 {
	if len(s) == 0 || s[0] == '-' {
		return 0
	}
	n := number([]byte(s))
	if n >= unlimited {
		return 0
	}
	return n
}

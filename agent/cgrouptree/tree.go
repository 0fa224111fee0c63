package cgrouptree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"perch/agent/pod"
)

// Tree is the part of the machine's cgroups that belongs to pods.
type Tree struct {
	root        string // "/perch-x"
	hierarchies []hierarchy
	tasks       string // a pod may have

	mu     sync.Mutex                  // guards shares, and changes of one directory at a time
	shares map[string]map[string]int64 // class → uid → CPU shares
}

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

var classes = []string{"guaranteed", "burstable", "besteffort"}

// Open finds the hierarchies below mount, usually /sys/fs/cgroup. root is the
// cgroup that all of this node's groups are below.
func Open(mount, root string) (*Tree, error) {
	if !filepath.IsAbs(root) || filepath.Clean(root) == "/" {
		return nil, fmt.Errorf("open cgroups of pods: root %q: want a path below /", root)
	}
	pids, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if err != nil {
		return nil, fmt.Errorf("open cgroups of pods: %w", err)
	}
	t := &Tree{root: filepath.Clean(root), tasks: mostTasks(string(pids)), shares: map[string]map[string]int64{}}
	if magic(mount) == unix.CGROUP2_SUPER_MAGIC {
		t.hierarchies = []hierarchy{{dir: mount, unified: true, only: true}}
		return t, nil
	}
	entries, err := os.ReadDir(mount)
	if err != nil {
		return nil, fmt.Errorf("open cgroups of pods: %w", err)
	}
	for _, e := range entries {
		dir := filepath.Join(mount, e.Name())
		if !e.IsDir() { // cpu → cpu,cpuacct and the like
			continue
		}
		switch magic(dir) {
		case unix.CGROUP_SUPER_MAGIC:
			t.hierarchies = append(t.hierarchies, hierarchy{dir: dir})
		case unix.CGROUP2_SUPER_MAGIC:
			t.hierarchies = append(t.hierarchies, hierarchy{dir: dir, unified: true})
		}
	}
	if len(t.hierarchies) == 0 {
		return nil, fmt.Errorf("open cgroups of pods: nothing is mounted below %s", mount)
	}
	return t, nil
}

func magic(path string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return 0
	}
	return int64(st.Type)
}

func classDir(class corev1.PodQOSClass) string { return strings.ToLower(string(class)) }

// Make creates the group of a pod, or brings the limits of an existing one up to
// date. It returns the parent for the groups of containers.
func (t *Tree) Make(class corev1.PodQOSClass, uid string, limits pod.Limits) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	group := filepath.Join(t.root, classDir(class), "pod"+uid)
	for _, h := range t.hierarchies {
		if err := h.make(group); err != nil {
			return "", err
		}
		if err := h.write(group, append(settings(h.only, limits), setting{"pids.max", t.tasks})); err != nil {
			return "", err
		}
	}
	if t.shares[classDir(class)] == nil {
		t.shares[classDir(class)] = map[string]int64{}
	}
	if t.shares[classDir(class)][uid] != limits.CPUShares {
		t.shares[classDir(class)][uid] = limits.CPUShares
		return group, t.weigh(classDir(class))
	}
	return group, nil
}

// weigh gives a class the shares of its pods together.
func (t *Tree) weigh(class string) error {
	sum := int64(2)
	if class != "besteffort" {
		for _, n := range t.shares[class] {
			sum += n
		}
	}
	for _, h := range t.hierarchies {
		if err := h.write(filepath.Join(t.root, class), settings(h.only, pod.Limits{CPUShares: min(sum, 262144)})); err != nil {
			return err
		}
	}
	return nil
}

// make creates a group and its parents with what children need.
func (h hierarchy) make(group string) error {
	at := h.dir
	if h.only {
		h.delegate(at)
	}
	words := strings.Split(strings.TrimPrefix(group, "/"), "/")
	for i, name := range words {
		parent := at
		at = filepath.Join(at, name)
		err := os.Mkdir(at, 0o755)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("create cgroup %s: %w", at, err)
		}
		if err == nil && !h.unified {
			if err := inheritSets(parent, at); err != nil {
				return err
			}
		}
		if h.only && i < len(words) {
			h.delegate(at)
		}
	}
	return nil
}

// delegate lets children have controllers, one by one: a machine need not have
// all of them. What is missing shows when a limit is written.
func (h hierarchy) delegate(dir string) {
	available, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	enabled, _ := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control")) // empty if unreadable
	for _, c := range strings.Fields(string(available)) {
		if !strings.Contains(" "+strings.TrimSpace(string(enabled))+" ", " "+c+" ") {
			_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
		}
	}
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

type setting struct{ file, value string }

// mostTasks is how many processes and threads a pod may have: no pod may use up
// the machine's process ids, and 16384 suffice for any that is not a fork bomb.
func mostTasks(pidMax string) string {
	n, err := strconv.Atoi(strings.TrimSpace(pidMax))
	if err != nil || n/4 > 16384 {
		n = 4 * 16384
	}
	return strconv.Itoa(n / 4)
}

// settings are the files of a group and what they should contain.
func settings(unified bool, l pod.Limits) []setting {
	quota, memory := "-1", "-1"
	if unified {
		quota, memory = "max", "max"
	}
	if l.CPUQuota > 0 {
		quota = strconv.FormatInt(l.CPUQuota, 10)
	}
	if l.Memory > 0 {
		memory = strconv.FormatInt(l.Memory&^4095, 10) // pages, as the kernel shows it
	}
	period := l.CPUPeriod
	if period == 0 {
		period = 100_000
	}
	if unified {
		return []setting{
			{"cpu.weight", strconv.FormatInt(Weight(l.CPUShares), 10)},
			{"cpu.max", fmt.Sprintf("%s %d", quota, period)},
			{"memory.max", memory},
		}
	}
	s := []setting{
		{"cpu.shares", strconv.FormatInt(max(2, l.CPUShares), 10)},
		{"cpu.cfs_period_us", strconv.FormatInt(period, 10)},
		{"cpu.cfs_quota_us", quota},
	}
	if l.Memory > 0 {
		s = append(s, setting{"memory.limit_in_bytes", memory})
	}
	return s
}

// Weight turns v1 shares (2…262144) into a v2 weight (1…10000).
func Weight(shares int64) int64 {
	shares = max(2, min(shares, 262144))
	return 1 + (shares-2)*9999/262142
}

// Remove removes the groups of a pod and of its containers everywhere. A pod
// without groups is no error; a group that still has processes is.
func (t *Tree) Remove(uid string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs error
	for _, class := range classes {
		for _, h := range t.hierarchies {
			errs = errors.Join(errs, removeGroup(filepath.Join(h.dir, t.root, class, "pod"+uid)))
		}
		if _, had := t.shares[class][uid]; had {
			delete(t.shares[class], uid)
			errs = errors.Join(errs, t.weigh(class))
		}
	}
	return errs
}

// RemoveAll removes the whole tree, for a node that is down for good. Nothing
// may run in it.
func (t *Tree) RemoveAll() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs error
	for _, h := range t.hierarchies {
		errs = errors.Join(errs, removeGroup(filepath.Join(h.dir, t.root)))
	}
	t.shares = map[string]map[string]int64{}
	return errs
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

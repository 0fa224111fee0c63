package cgrouptree

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/cgroups"
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
	if t.hierarchies, err = mounted(mount); err != nil {
		return nil, fmt.Errorf("open cgroups of pods: %w", err)
	}
	return t, nil
}

// ForContainers are settings that every container's own cgroup shall have, by
// file; empty with v1, where there is nothing like them.
func (t *Tree) ForContainers() map[string]string {
	if !t.hierarchies[0].only {
		return nil
	}
	// Out of memory ends all of a container's processes, as with v1 under
	// Kubernetes: half a container is worse than a restart.
	return map[string]string{"memory.oom.group": "1"}
}

func classDir(class corev1.PodQOSClass) string { return strings.ToLower(string(class)) }

// Make creates the group of a pod, or brings the limits of an existing one up to
// date. It returns the parent for the groups of containers.
func (t *Tree) Make(class corev1.PodQOSClass, uid string, limits pod.Limits) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	group := filepath.Join(t.root, classDir(class), "pod"+uid)
	for _, h := range t.hierarchies {
		if err := h.make(group, false); err != nil {
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

// Weight turns v1 shares (2…262144) into a v2 weight (1…10000) the way runc
// does it for containers: 1024 shares are the kernel's default of 100.
func Weight(shares int64) int64 {
	return int64(cgroups.ConvertCPUSharesToCgroupV2Value(uint64(max(2, shares))))
}

// Remove removes the groups of a pod and of its containers everywhere. A pod
// that has none is no error. The runtime must be done with the pod: processes
// that are left, of a start that was broken off, are killed.
func (t *Tree) Remove(uid string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs error
	for _, class := range classes {
		for _, h := range t.hierarchies {
			dir := filepath.Join(h.dir, t.root, class, "pod"+uid)
			err := removeGroup(dir)
			if errors.Is(err, unix.EBUSY) && killAll(dir) > 0 {
				err = removeGroup(dir)
			}
			errs = errors.Join(errs, err)
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

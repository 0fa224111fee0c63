package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// userHZ is the unit of times in /proc/PID/stat on every Linux with Go.
const userHZ = 100

// cpuOf is the user and system time of a process since it began, its ended
// threads included, its children not.
func cpuOf(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0, fmt.Errorf("read CPU time of %d: short line", pid)
	}
	var ticks int64
	for _, s := range f[11:13] { // utime, stime
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read CPU time of %d: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / userHZ, nil
}

// pssOf is the proportional set size of a process in bytes.
func pssOf(pid int) (int64, error) { return smaps(pid, "Pss:") }

// smaps is one sum of /proc/PID/smaps_rollup in bytes.
func smaps(pid int, key string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	for l := range strings.Lines(string(text)) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == key {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read memory of %d: %w", pid, err)
			}
			return kb << 10, nil
		}
	}
	return 0, fmt.Errorf("read memory of %d: no %s", pid, key)
}

// mapped is how much of a process's memory are pages of files below a
// directory, in bytes.
func mapped(pid int, dir string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	var sum int64
	inside := false
	for l := range strings.Lines(string(text)) {
		f := strings.Fields(l)
		switch {
		case len(f) >= 5 && strings.Contains(f[0], "-"): // ADDRESSES RIGHTS OFFSET DEVICE INODE [FILE]
			inside = len(f) > 5 && strings.HasPrefix(f[5], dir)
		case inside && len(f) == 3 && f[0] == "Pss:":
			kb, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read memory of %d: %w", pid, err)
			}
			sum += kb << 10
		}
	}
	return sum, nil
}

// shims are the shim processes of a data directory.
func shims(dir string) []int {
	var out []int
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is right
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // ended meanwhile
		}
		name, _, _ := bytes.Cut(text, []byte{0})
		if strings.HasPrefix(string(name), dir+"/") && strings.Contains(filepath.Base(string(name)), "shim") {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
				out = append(out, pid)
			}
		}
	}
	return out
}

// cgroupCPU is what everything in a cgroup has used since it was made: shims,
// runc and network plugins that ended long ago, and containers, are in it.
func cgroupCPU(name string) (time.Duration, error) {
	for _, dir := range []string{"/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup/cpu,cpuacct"} {
		if text, err := os.ReadFile(filepath.Join(dir, name, "cpuacct.usage")); err == nil {
			n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
			return time.Duration(n), err
		}
	}
	text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", name, "cpu.stat"))
	if err != nil {
		return 0, fmt.Errorf("read CPU time of cgroup: %w", err)
	}
	for l := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(l, "usage_usec "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			return time.Duration(n) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("read CPU time of cgroup %s: no usage_usec", name)
}

// usage is CPU time by process name; shims are one entry.
type usage map[string]time.Duration

func (u usage) since(before usage) usage {
	out := usage{}
	for name, d := range u {
		out[name] = d - before[name]
	}
	return out
}

func (u usage) total() (sum time.Duration) {
	for _, d := range u {
		sum += d
	}
	return sum
}

// names lists who used how much, most first.
func (u usage) names() string {
	var out []string
	for _, k := range u.most() {
		out = append(out, fmt.Sprintf("%s %.2f", k, u[k].Seconds()))
	}
	return strings.Join(out, ", ")
}

// each is the same for one of n.
func (u usage) each(n int) string {
	var out []string
	for _, k := range u.most() {
		out = append(out, k+" "+ms(u[k]/time.Duration(n)))
	}
	return strings.Join(out, ", ")
}

func (u usage) most() []string {
	return slices.SortedFunc(maps.Keys(u), func(a, b string) int { return cmp.Compare(u[b], u[a]) })
}

func kill(pid int) error {
	if pid <= 1 {
		return fmt.Errorf("pid %d is no role", pid)
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

package cgrouptree

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"perch/agent/pod"
)

func TestWeightCoversTheWholeScale(t *testing.T) {
	for shares, want := range map[int64]int64{0: 1, 2: 1, 102: 17, 1024: 100, 262144: 10000, 1 << 30: 10000} {
		if got := Weight(shares); got != want {
			t.Errorf("Weight(%d) = %d, want %d", shares, got, want)
		}
	}
}

func TestSettings(t *testing.T) {
	cases := []struct {
		name    string
		unified bool
		limits  pod.Limits
		want    string
	}{
		{"v1 without limits", false, pod.Limits{CPUShares: 2}, "[{cpu.shares 2} {cpu.cfs_period_us 100000} {cpu.cfs_quota_us -1}]"},
		{"v1 with limits", false, pod.Limits{CPUShares: 512, CPUQuota: 50000, CPUPeriod: 100000, Memory: 1 << 20}, "[{cpu.shares 512} {cpu.cfs_period_us 100000} {cpu.cfs_quota_us 50000} {memory.limit_in_bytes 1048576}]"},
		{"v2 without limits", true, pod.Limits{CPUShares: 2}, "[{cpu.weight 1} {cpu.max max 100000} {memory.max max}]"},
		{"v2 with limits", true, pod.Limits{CPUShares: 1024, CPUQuota: 50000, Memory: 1<<20 + 5}, "[{cpu.weight 100} {cpu.max 50000 100000} {memory.max 1048576}]"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := fmt.Sprint(settings(c.unified, c.limits)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestAPodMayNotUseUpTheMachinesProcesses(t *testing.T) {
	for pidMax, want := range map[string]string{"32768\n": "8192", "4194304\n": "16384", "strange": "16384"} {
		if got := mostTasks(pidMax); got != want {
			t.Errorf("of %q: %s, want %s", pidMax, got, want)
		}
	}
}

// On the real kernel: every hierarchy gets the group, with its limits, and loses
// it again.
func TestTreeOfThisMachine(t *testing.T) {
	root := fmt.Sprintf("/perch-test-%d", os.Getpid())
	tree, err := Open("/sys/fs/cgroup", root)
	if err != nil || os.Getuid() != 0 {
		t.Skipf("needs root and mounted cgroups: %v", err) // issue 2: CI runs as root
	}
	t.Cleanup(func() {
		if err := tree.RemoveAll(); err != nil {
			t.Error(err)
		}
		for _, h := range tree.hierarchies {
			if h.has(root) {
				t.Errorf("%s%s is still there", h.dir, root)
			}
		}
	})
	parent, err := tree.Make(corev1.PodQOSBurstable, "u1", pod.Limits{CPUShares: 512, CPUQuota: 50000, CPUPeriod: 100000, Memory: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if want := root + "/burstable/podu1"; parent != want {
		t.Errorf("parent %s, want %s", parent, want)
	}
	limits := 0
	for _, h := range tree.hierarchies {
		dir := filepath.Join(h.dir, parent)
		for file, want := range map[string]string{
			"pids.max": tree.tasks, "memory.limit_in_bytes": "67108864", "memory.max": "67108864", "cpu.cfs_quota_us": "50000", "cpu.max": "50000 100000", "cpu.shares": "512",
		} {
			have, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				continue
			}
			limits++
			if got := strings.TrimSpace(string(have)); got != want {
				t.Errorf("%s of %s = %s, want %s", file, dir, got, want)
			}
		}
		if !h.has(parent) {
			t.Errorf("%s has no group %s", h.dir, parent)
		}
	}
	if limits < 3 {
		t.Errorf("only %d limits found", limits)
	}
	if _, err := tree.Make(corev1.PodQOSBurstable, "u1", pod.Limits{CPUShares: 512, Memory: 64 << 20}); err != nil {
		t.Errorf("making it again: %v", err)
	}
	// A process whose start was broken off, which the runtime does not know.
	lost := exec.Command("sleep", "60")
	if err := lost.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lost.Process.Kill() }) // it has ended if all is well
	ended := make(chan error, 1)
	go func() { ended <- lost.Wait() }()
	for _, h := range tree.hierarchies {
		dir := filepath.Join(h.dir, root, "burstable", "podu1", "lost")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"cpuset.mems", "cpuset.cpus"} { // empty in a new group of v1
			if v, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file)); err == nil && !h.only {
				_ = os.WriteFile(filepath.Join(dir, file), v, 0)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(lost.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := tree.Remove("u1"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("a process that was left was not killed")
	}
	if err := tree.Remove("u1"); err != nil {
		t.Errorf("removing it again: %v", err)
	}
}

func TestALeafTakesProcessesAndALimitOfMemory(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root") // issue 2: CI runs as root
	}
	const mount = "/sys/fs/cgroup"
	root := fmt.Sprintf("/perch-test-leaf-%d", os.Getpid())
	t.Cleanup(func() {
		all, err := mounted(mount)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range all {
			if err := removeGroup(filepath.Join(h.dir, root)); err != nil {
				t.Error(err)
			}
		}
	})
	for _, leaf := range []string{"a", "b"} { // the second is made while the first has a process
		dirs, err := MakeLeaf(mount, root+"/system/"+leaf)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill() // it may have ended
			_ = cmd.Wait()
		})
		limits := 0
		for _, dir := range dirs {
			if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
				t.Errorf("a process enters %s: %v", dir, err)
			}
			for _, file := range []string{"memory.max", "memory.limit_in_bytes"} {
				if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
					limits++
				}
			}
		}
		if limits != 1 {
			t.Errorf("%d of %v can limit memory, want 1", limits, dirs)
		}
	}
}

func TestSettingsOfContainersAreThoseOfTheKernel(t *testing.T) {
	tree, err := Open("/sys/fs/cgroup", "/perch-test-settings")
	if err != nil {
		t.Skipf("needs mounted cgroups: %v", err) // issue 2: CI has them
	}
	if _, v2 := tree.ForContainers()["memory.oom.group"]; v2 != tree.hierarchies[0].only {
		t.Errorf("have %v, v2 is %v", tree.ForContainers(), tree.hierarchies[0].only)
	}
}

func TestGroupsThatAnotherProcessHasJustMadeAreFilled(t *testing.T) {
	mount := t.TempDir()
	for dir, cpus := range map[string]string{"": "0-1\n", "top": "\n", "top/system": "\n"} {
		if err := os.MkdirAll(filepath.Join(mount, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
			if err := os.WriteFile(filepath.Join(mount, dir, name), []byte(cpus), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := (hierarchy{dir: mount}).make("top/system/agent", true); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"top", "top/system"} {
		if got, err := os.ReadFile(filepath.Join(mount, dir, "cpuset.cpus")); err != nil || string(got) != "0-1\n" {
			t.Errorf("nothing may run in %s: cpuset.cpus is %q, %v", dir, got, err)
		}
	}
}

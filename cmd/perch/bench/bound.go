package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"perch/agent/stats"

	"perch/cmd/perch/trial"
)

// ringPoints is how many numbers a second the rings of containers take.
func (b *bench) ringPoints(ctx context.Context) (float64, error) {
	names, err := b.vector(ctx, `count by (__name__) ({ring="1s", metrics_path="/metrics/cadvisor"})`)
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for name := range names {
		points, err := b.vector(ctx, fmt.Sprintf(`sum(count_over_time({ring="1s", __name__=%q}[1m])) / 60`, name))
		if err != nil {
			return 0, err
		}
		sum += points[""]
	}
	if sum == 0 {
		return 0, errors.New("count points of rings: there are none")
	}
	return sum, nil
}

// least is the CPU time, in seconds, of reading the files of all cgroups once,
// whatever is done with what they say.
type least struct {
	hot, hotAgain, cold        float64
	hotFiles, coldFiles, links int
}

// passes is how often each of them is measured.
const passes = 5

// leastReading reads what the agent reads, from the same cgroups, at its pace.
// Between two looks the machine does other things, and what the kernel needs for
// the next one is no longer in its caches: so over and over is cheaper.
func (b *bench) leastReading(ctx context.Context) (out least, err error) {
	list, err := b.query(ctx, `last_over_time(container_memory_usage_bytes{metrics_path="/metrics/cadvisor"}[30s])`)
	if err != nil {
		return out, err
	}
	var paths []string
	for _, s := range list {
		paths = append(paths, s.Metric["id"])
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	var open []int
	defer func() {
		for _, fd := range open {
			_ = unix.Close(fd) // read only
		}
	}()
	for _, f := range cgroupFiles(paths, hotFiles()) {
		if fd, err := unix.Open(f, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			open = append(open, fd)
		}
	}
	out.hotFiles = len(open)
	buf := make([]byte, 8<<10)
	readOpen := func() {
		for _, fd := range open {
			_, _ = unix.Pread(fd, buf, 0) // only its time counts
		}
	}
	pace := stats.Default()
	if out.hot, err = timed(ctx, pace.Warm, readOpen); err != nil {
		return out, err
	}
	if out.hotAgain, err = timed(ctx, 0, readOpen); err != nil {
		return out, err
	}

	paths = slices.DeleteFunc(paths, func(p string) bool { return p == "/" }) // all processes of the machine
	cold := cgroupFiles(paths, coldFiles())
	out.cold, err = timed(ctx, pace.Cold, func() {
		out.coldFiles, out.links = 0, 0
		for _, f := range cold {
			n := readFile(f, buf)
			if n < 0 {
				continue
			}
			out.coldFiles++
			if filepath.Base(f) == "cgroup.procs" {
				files, links := readProcesses(strings.Fields(string(buf[:n])), strings.Contains(f, "/pod"), buf)
				out.coldFiles, out.links = out.coldFiles+files, out.links+links
			}
		}
	})
	return out, err
}

// timed is the mean CPU time of this thread in what do does.
func timed(ctx context.Context, every time.Duration, do func()) (seconds float64, err error) {
	var used time.Duration
	for range passes {
		if err := trial.Pause(ctx, every); err != nil {
			return 0, err
		}
		var before, after unix.Timespec
		err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &before)
		do()
		if err = errors.Join(err, unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &after)); err != nil {
			return 0, fmt.Errorf("read CPU time of thread: %w", err)
		}
		used += time.Duration(after.Nano() - before.Nano())
	}
	return used.Seconds() / passes, nil
}

// hotFiles and coldFiles are those of v1, with their controllers, and of v2.
func hotFiles() []string {
	return []string{
		"cpuacct/*/cpuacct.usage", "cpuacct/*/cpuacct.stat", "cpu/*/cpu.stat", "memory/*/memory.usage_in_bytes", "memory/*/memory.stat",
		"memory/*/memory.max_usage_in_bytes", "memory/*/memory.failcnt", "memory/*/memory.oom_control", "pids/*/pids.current",
		"unified/*/cpu.pressure", "unified/*/memory.pressure", "unified/*/io.pressure",
		"*/cpu.stat", "*/memory.current", "*/memory.stat", "*/memory.swap.current", "*/memory.peak", "*/memory.events", "*/pids.current",
		"*/cpu.pressure", "*/memory.pressure", "*/io.pressure",
	}
}

func coldFiles() []string {
	return []string{
		"memory/*/cgroup.procs", "blkio/*/blkio.throttle.io_service_bytes_recursive", "blkio/*/blkio.throttle.io_serviced_recursive",
		"*/cgroup.procs", "*/io.stat",
	}
}

// cgroupFiles puts each path in the place of * in each pattern; those that are
// there count.
func cgroupFiles(paths, patterns []string) []string {
	var out []string
	for _, p := range paths {
		for _, f := range patterns {
			f = filepath.Join("/sys/fs/cgroup", strings.Replace(f, "*", p, 1))
			if _, err := os.Stat(f); err == nil {
				out = append(out, f)
			}
		}
	}
	return out
}

// readFile returns how much of a file fits into buf; -1 when it is not there.
func readFile(path string, buf []byte) int {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return -1
	}
	return n
}

// readProcesses looks at what processes have open, and at the network of a pod's
// first one.
func readProcesses(pids []string, ofPod bool, buf []byte) (files, links int) {
	for i, pid := range pids {
		if i == 0 && ofPod && readFile("/proc/"+pid+"/net/dev", buf) > 0 {
			files++
		}
		dir, err := unix.Open("/proc/"+pid+"/fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // it ended
		}
		var st unix.Stat_t
		_ = unix.Fstat(dir, &st)                                    // 0 before Linux 6.2
		for n, seen := 0, 0; seen < int(st.Size) && n < 4096; n++ { // no listing: it costs more
			if _, err := unix.Readlinkat(dir, strconv.Itoa(n), buf); err == nil {
				seen++
			}
		}
		links += int(st.Size)
		_ = unix.Close(dir) // read only
	}
	return files, links
}

package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CleanupConfig names what belongs to one cluster on this machine.
type CleanupConfig struct {
	Dir        string   // D: every mount below it goes
	Endpoint   string   // the runtime's socket; asked first if it answers
	StateDirs  []string // folders emptied at the end; containerd.StateDirs(D)
	SocketDir  string   // shims' sockets; containerd.SocketDir(D)
	CgroupRoot string   // such as "/perch-dev"; "" leaves cgroups alone
	// External: the runtime is not ours. Then only this cluster's sandboxes are
	// removed (those with Label), and no process is touched.
	External bool
	Label    map[string]string // selects this cluster's sandboxes; nil takes all
}

// Cleaned counts what Cleanup removed.
type Cleaned struct{ Pods, Processes, Mounts, Cgroups int }

// Cleanup ends everything that runs for a cluster: pods over CRI while the
// runtime answers, then, whether it does or not, the shims and all their
// descendants by SIGKILL, the mounts below Dir, the state folders and the
// cgroups with whatever still runs in them: a container whose shim was killed
// while it made it is nobody's descendant. Images and logs stay. Call it when the runtime role has been stopped,
// or just before. It is safe to repeat; what could not be removed is in the
// error.
func Cleanup(ctx context.Context, cfg CleanupConfig, log *slog.Logger) (Cleaned, error) {
	var done Cleaned
	if !filepath.IsAbs(cfg.Dir) || filepath.Clean(cfg.Dir) == "/" {
		return done, fmt.Errorf("clean up data dir %q: want an absolute path", cfg.Dir)
	}
	var errs []error
	n, err := removePods(ctx, cfg, log)
	done.Pods = n
	if err != nil {
		// What the runtime could not do, the steps below do without it.
		log.Info("runtime did not remove all pods", "err", err)
		if cfg.External {
			errs = append(errs, err)
		}
	}
	if !cfg.External {
		if done.Processes, err = killAll(ctx, cfg); err != nil {
			errs = append(errs, err)
		}
	}
	if done.Mounts, err = unmountBelow(cfg.Dir); err != nil {
		errs = append(errs, err)
	}
	if len(errs) == 0 && !cfg.External { // never delete through a mount that is still there
		for _, dir := range cfg.StateDirs {
			errs = append(errs, empty(dir))
		}
		if cfg.SocketDir != "" {
			errs = append(errs, os.RemoveAll(cfg.SocketDir))
		}
	}
	if cfg.CgroupRoot != "" {
		if done.Cgroups, err = removeCgroups(ctx, cfg.CgroupRoot, !cfg.External); err != nil {
			errs = append(errs, err)
		}
	}
	return done, errors.Join(errs...)
}

// removePods asks the runtime to remove this cluster's pods, if it answers
// within 2 s.
func removePods(ctx context.Context, cfg CleanupConfig, log *slog.Logger) (int, error) {
	if cfg.Endpoint == "" {
		return 0, nil
	}
	probe, err := net.DialTimeout("unix", strings.TrimPrefix(cfg.Endpoint, "unix://"), 2*time.Second)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return 0, nil // the runtime does not run
	}
	if err != nil {
		return 0, fmt.Errorf("reach runtime: %w", err)
	}
	_ = probe.Close()
	c, err := New(Config{Endpoint: cfg.Endpoint, Read: 2 * time.Second, Act: 20 * time.Second}, log, prometheus.NewRegistry())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var filter *cri.PodSandboxFilter
	if cfg.Label != nil {
		filter = &cri.PodSandboxFilter{LabelSelector: cfg.Label}
	}
	pods, err := c.ListPodSandbox(ctx, filter)
	if err != nil {
		return 0, err
	}
	n := 0
	var errs []error
	for _, p := range pods {
		err := c.RemovePodSandbox(ctx, p.Id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		n++
	}
	return n, errors.Join(errs...)
}

// killAll kills the cluster's shims and everything below them, until none is
// left.
func killAll(ctx context.Context, cfg CleanupConfig) (int, error) {
	killed := map[int]bool{}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	for {
		table, err := readProcesses("/proc")
		if err != nil {
			return len(killed), fmt.Errorf("list processes: %w", err)
		}
		ours := processesOf(table, cfg.Dir, cfg.Endpoint)
		if len(ours) == 0 {
			return len(killed), nil
		}
		for _, pid := range ours {
			if err := unix.Kill(pid, unix.SIGKILL); err == nil {
				killed[pid] = true
			}
		}
		select {
		case <-ctx.Done():
			return len(killed), fmt.Errorf("kill containers: processes %v are left: %w", ours, ctx.Err())
		case <-limit.C:
			return len(killed), fmt.Errorf("kill containers: processes %v are left after 10 s", ours)
		case <-tick.C:
		}
	}
}

// process is one line of the process table.
type process struct {
	pid, parent int
	exe         string   // "" for kernel threads and zombies
	args        []string // argv
	zombie      bool
}

// processesOf finds a cluster's shims, by the folder they run from and the
// socket they report to, and all their descendants. Children come before their
// parents, so that a shim does not see its container end and tell others.
func processesOf(table []process, dir, endpoint string) []int {
	children := map[int][]int{}
	alive := map[int]bool{}
	for _, p := range table {
		children[p.parent] = append(children[p.parent], p.pid)
		alive[p.pid] = !p.zombie
	}
	bin := filepath.Join(dir, "bin") + "/"
	socket := strings.TrimPrefix(endpoint, "unix://")
	var out []int
	var visit func(pid int)
	visit = func(pid int) {
		for _, c := range children[pid] {
			visit(c)
		}
		if alive[pid] && !slices.Contains(out, pid) {
			out = append(out, pid)
		}
	}
	for _, p := range table {
		i := slices.Index(p.args, "-address")
		reports := i >= 0 && i+1 < len(p.args) && socket != "" && p.args[i+1] == socket
		if strings.HasPrefix(p.exe, bin) && len(p.args) > 1 && p.args[1] == "-namespace" || reports && slices.Contains(p.args, "-namespace") {
			visit(p.pid)
		}
	}
	return out
}

// unmountBelow unmounts everything strictly below dir, deepest first, and
// returns how many mounts went.
func unmountBelow(dir string) (int, error) {
	n := 0
	for range 3 { // a mount may sit on another; a lazy unmount uncovers it
		text, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return n, fmt.Errorf("list mounts: %w", err)
		}
		points := mountsBelow(string(text), dir)
		if len(points) == 0 {
			return n, nil
		}
		for _, p := range points {
			if err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err == nil {
				n++
			}
		}
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return n, fmt.Errorf("list mounts: %w", err)
	}
	if left := mountsBelow(string(text), dir); len(left) > 0 {
		return n, fmt.Errorf("unmount below %s: %d mounts are left, first %s", dir, len(left), left[0])
	}
	return n, nil
}

// mountsBelow reads the mount points strictly below dir from the text of a
// mountinfo file, deepest and latest first.
func mountsBelow(mountinfo, dir string) []string {
	var out []string
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(mountinfo) {
		if f := strings.Fields(line); len(f) > 4 {
			if p := unescape.Replace(f[4]); strings.HasPrefix(p, filepath.Clean(dir)+"/") {
				out = append(out, p)
			}
		}
	}
	slices.Reverse(out)
	slices.SortStableFunc(out, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
	return out
}

// empty removes what is in a folder, and not the folder.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

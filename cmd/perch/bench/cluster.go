package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"perch/cmd/perch/trial"
)

// cluster is the one that is measured.
type cluster struct {
	perch, dir, home string
}

// benchCgroup is where all of the cluster but its supervisor runs.
const benchCgroup = "perch-bench"

// flags keep it apart from other clusters on this machine.
func (c cluster) flags() []string {
	return []string{"--data-dir", c.dir, "--name=bench", "--node-name=bench", "--api-port=26443", "--web-port=29443", "--agent-port=21250",
		"--forward-port=44224", "--peer-port=22380", "--cluster-cidr=10.92.0.0/16", "--service-cidr=10.93.0.0/16"}
}

func (c cluster) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.perch, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(c.dir, "kubeconfig"), "HOME="+c.home)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("perch %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

func (c cluster) up(ctx context.Context) error {
	_, err := c.run(ctx, append([]string{"up", "--detach"}, c.flags()...)...)
	return err
}

func (c cluster) down(ctx context.Context, more ...string) error {
	_, err := c.run(ctx, append([]string{"down", "--data-dir", c.dir}, more...)...)
	return err
}

// removeOld removes the cluster of this or of an interrupted run.
func (c cluster) removeOld(ctx context.Context) error {
	if !trial.Exists(c.dir) {
		return nil
	}
	return c.down(ctx, "--purge")
}

func (c cluster) images(root string) string { return filepath.Join(root, "out", "images") }

func (c cluster) makeImages(ctx context.Context, root string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(root, "build", "images", "all.sh"), c.images(root))
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make images: %w: %s", err, out)
	}
	return nil
}

// ask asks one of the cluster's unix sockets.
func (c cluster) ask(ctx context.Context, socket, path string) (io.ReadCloser, error) {
	return trial.Ask(ctx, c.dir, socket, path)
}

// processes are the supervisor and its roles by name.
func (c cluster) processes(ctx context.Context) (map[string]int, error) {
	roles, err := trial.Roles(ctx, c.dir)
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for _, r := range roles {
		out[r.Role] = r.PID
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.PID))
		if err != nil {
			return nil, fmt.Errorf("find supervisor: %w", err)
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		if f := strings.Fields(rest); len(f) > 1 {
			if out["supervisor"], err = strconv.Atoi(f[1]); err != nil {
				return nil, fmt.Errorf("find supervisor: %w", err)
			}
		}
	}
	return out, nil
}

// usage is what the processes of the cluster have used by now.
func (c cluster) usage(ctx context.Context) (usage, error) {
	procs, err := c.processes(ctx)
	if err != nil {
		return nil, err
	}
	out := usage{}
	for name, pid := range procs {
		if out[name], err = cpuOf(pid); err != nil {
			return nil, err
		}
	}
	// Shims come and go with their pods; their cgroup keeps count. What they run
	// begins in it too, until it moves to its container's.
	out["shims"], err = cgroupCPU(benchCgroup + "/system/shims")
	return out, err
}

// metric is the sum of a metric over its labels, from a role's registry.
func (c cluster) metric(ctx context.Context, role, name string) (float64, error) {
	body, err := c.ask(ctx, role+"-debug", "/metrics")
	if err != nil {
		return 0, err
	}
	defer body.Close()
	sum, found := 0.0, false
	for s := bufio.NewScanner(body); s.Scan(); {
		rest, ok := strings.CutPrefix(s.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("read metric %s: %w", name, err)
		}
		sum, found = sum+v, true
	}
	if !found {
		return 0, fmt.Errorf("read metric %s of %s: not there", name, role)
	}
	return sum, nil
}

func (c cluster) config() (*rest.Config, error) {
	rc, err := clientcmd.BuildConfigFromFlags("", filepath.Join(c.dir, "kubeconfig"))
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	rc.QPS = -1
	return rc, nil
}

func (c cluster) client() (*kubernetes.Clientset, error) {
	rc, err := c.config()
	if err != nil {
		return nil, err
	}
	out, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return out, nil
}

// within asks until the answer is good and returns how long that took.
func within(ctx context.Context, limit, every time.Duration, what string, good func() bool) (time.Duration, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !good() {
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("not within %s: %s", limit, what)
		case <-tick.C:
		}
	}
	return time.Since(began), nil
}

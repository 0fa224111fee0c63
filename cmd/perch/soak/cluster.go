package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"perch/cmd/perch/trial"
)

// cluster is the one that runs.
type cluster struct{ perch, dir string }

// run runs perch and returns what it wrote.
func (c cluster) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.perch, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(c.dir, "kubeconfig"), "HOME="+os.TempDir())
	out, err := cmd.Output()
	if err != nil {
		more := ""
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			more = ": " + string(exit.Stderr)
		}
		return "", fmt.Errorf("perch %s: %w%s", strings.Join(args, " "), err, more)
	}
	return strings.TrimSpace(string(out)), nil
}

func (c cluster) up(ctx context.Context) error {
	_, err := c.run(ctx, "up", "--detach", "--data-dir", c.dir, "--name=soak", "--node-name=soak", "--api-port=26843", "--web-port=29843", "--agent-port=21850",
		"--forward-port=44824", "--peer-port=22880", "--cluster-cidr=10.96.0.0/17", "--service-cidr=10.97.0.0/16")
	return err
}

// removeOld removes the cluster of this or of an interrupted run.
func (c cluster) removeOld(ctx context.Context) error {
	if !trial.Exists(c.dir) {
		return nil
	}
	_, err := c.run(ctx, "down", "--purge", "--data-dir", c.dir)
	return err
}

// apply applies a manifest.
func (c cluster) apply(ctx context.Context, text string) error {
	f, err := os.CreateTemp("", "perch-soak-*.yaml")
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	defer os.Remove(f.Name()) // it is in the way of nobody
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	_, err = c.run(ctx, "apply", "-f", f.Name())
	return err
}

// ask asks one of the cluster's unix sockets.
func (c cluster) ask(ctx context.Context, socket, path string, form url.Values) (io.ReadCloser, error) {
	return trial.Ask(ctx, c.dir, socket, path+"?"+form.Encode())
}

// roles are the processes of the cluster by name.
func (c cluster) roles(ctx context.Context) (map[string]int, error) {
	list, err := trial.Roles(ctx, c.dir)
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for _, r := range list {
		out[r.Role] = r.PID
	}
	return out, nil
}

// line is one as the log store shows it.
type line struct {
	ID, Pod, Stream, Line string
	Time                  time.Time
}

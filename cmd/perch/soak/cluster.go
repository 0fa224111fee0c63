package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
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
	if _, err := os.Stat(filepath.Join(c.dir, "config.json")); errors.Is(err, os.ErrNotExist) {
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
	t := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(c.dir, "run", socket+".sock"))
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://perch"+path+"?"+form.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", socket, err)
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", socket, err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("ask %s%s: %s", socket, path, resp.Status)
	}
	return resp.Body, nil
}

// roles are the processes of the cluster by name.
func (c cluster) roles(ctx context.Context) (map[string]int, error) {
	body, err := c.ask(ctx, "supervisor", "/status", nil)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var list []struct {
		Role string
		PID  int
	}
	if err := json.NewDecoder(body).Decode(&list); err != nil {
		return nil, fmt.Errorf("read status: %w", err)
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

// pause waits without work.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

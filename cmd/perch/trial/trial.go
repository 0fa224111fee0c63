// Package trial has what programs share that run perch to measure or to wear it
// out: how they begin, and how they ask the sockets of a cluster of their own. It
// measures nothing. Start reading at Begin.
package trial

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// Begin makes paths absolute and returns a context that ends after limit, or by a
// signal. how is the command to run as root.
func Begin(how string, limit time.Duration, paths ...*string) (context.Context, context.CancelFunc, error) {
	for _, path := range paths {
		abs, err := filepath.Abs(*path)
		if err != nil {
			return nil, nil, fmt.Errorf("find %s: %w", *path, err)
		}
		*path = abs
	}
	if os.Geteuid() != 0 {
		return nil, nil, fmt.Errorf("run `%s`: it needs root", how)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	ctx, cancel := context.WithTimeout(ctx, limit)
	return ctx, func() { cancel(); stop() }, nil
}

// Exists tells whether a data directory holds a cluster.
func Exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "config.json"))
	return !errors.Is(err, os.ErrNotExist)
}

// Ask asks one of the unix sockets of a data directory; path may have a query.
func Ask(ctx context.Context, dir, socket, path string) (io.ReadCloser, error) {
	t := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(dir, "run", socket+".sock"))
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://perch"+path, nil)
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

// Role is one line of the supervisor's status.
type Role struct {
	Role, State string
	PID         int
}

// Roles asks the supervisor itself: starting `perch status` would take longer
// than some of what is measured.
func Roles(ctx context.Context, dir string) ([]Role, error) {
	body, err := Ask(ctx, dir, "supervisor", "/status")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var out []Role
	if err := json.NewDecoder(body).Decode(&out); err != nil {
		return nil, fmt.Errorf("read status: %w", err)
	}
	return out, nil
}

// Pause waits without work.
func Pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

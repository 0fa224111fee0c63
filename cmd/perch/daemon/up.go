package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"perch/cmd/perch/daemon/config"
	"perch/cmd/perch/daemon/preflight"
	"perch/cmd/perch/daemon/supervisor"
)

// readyLimit is how long `perch up --detach` waits for the node.
const readyLimit = 120 * time.Second

// memory limits of the roles in bytes: the cgroup's limit; GOMEMLIMIT is 80 %
// of it, so that the collector works harder before the kernel kills.
var roleMemory = map[string]int64{"runtime": 512 << 20, "telemetry": 1 << 30, "server": 2 << 30, "agent": 768 << 20}

// roleGC is GOGC of the roles: by how many percent the heap may grow before it is
// collected. At 100 all roles together use 0.91 of the CPU time and 41 MiB more
// (50 pods); the server alone has a third of that gain for 8 MiB.
var roleGC = map[string]int{"runtime": 50, "telemetry": 50, "server": 100, "agent": 50}

// rolesOf lists the roles of a machine in the order they start.
func rolesOf(cfg config.Config) []string {
	var out []string
	if cfg.RuntimeEndpoint == "" {
		out = append(out, "runtime")
	}
	if cfg.Kind == config.Server {
		out = append(out, "server")
	}
	return append(out, "telemetry", "agent")
}

// up runs the supervisor in the foreground until ctx ends.
func up(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	warnings, letGo, err := take(cfg)
	if err != nil {
		return refused{err}
	}
	defer letGo()
	for _, w := range warnings {
		log.Warn(w)
	}
	for _, dir := range []string{"run", "log", "pki", "bin", "podlogs"} {
		if err := os.MkdirAll(cfg.Path(dir), 0o700); err != nil {
			return fmt.Errorf("make data directory: %w", err)
		}
	}
	if err := cfg.Save(); err != nil {
		return err
	}
	if err := preflight.Claim(networks(cfg)); err != nil {
		return err
	}
	if err := prepareIdentity(ctx, cfg); err != nil {
		return refused{err}
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	sup := supervisor.Config{Executable: exe, LogDir: cfg.Path("log"), Grace: 20 * time.Second, Patience: supervisor.DefaultPatience()}
	for _, name := range rolesOf(cfg) {
		sup.Roles = append(sup.Roles, supervisor.Role{Name: name, Args: []string{"role", name, "--data-dir", cfg.DataDir},
			Env: []string{fmt.Sprintf("GOMEMLIMIT=%d", memoryOf(cfg, name)*8/10), fmt.Sprintf("GOGC=%d", roleGC[name])}})
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s, err := supervisor.New(sup, log, reg)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g := NewGroup(60 * time.Second)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(s.Status()) // the asker is gone if this fails
	})
	mux.HandleFunc("GET /status/memory", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(s.StatusWithMemory()) // as above
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("POST /stop", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		stop()
	})
	door, err := newUnixDoor(cfg.Socket("supervisor"), mux)
	if err != nil {
		return err
	}
	g.Go("status", door.Run)
	g.Go("roles", s.Run)
	err = g.Wait(ctx)
	if err != nil && strings.Contains(err.Error(), "roles ended: ") {
		return refused{errors.New(strings.TrimPrefix(err.Error(), "roles ended: "))}
	}
	return err
}

// take makes sure that a cluster can run with this configuration, and holds its
// data directory and its name until letGo. It writes into no directory that is
// not its own.
func take(cfg config.Config) (warnings []string, letGo func(), failed error) {
	var undo []func()
	release := func() {
		for _, u := range slices.Backward(undo) {
			u()
		}
	}
	defer func() {
		if failed != nil {
			release()
		}
	}()
	if err := preflight.Root(); err != nil {
		return nil, nil, err
	}
	if err := config.CheckVersion(cfg.DataDir); err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make data directory: %w: choose another with --data-dir", err)
	}
	dir, err := preflight.TakeLock(cfg.DataDir)
	if err != nil {
		return nil, nil, err
	}
	undo = append(undo, func() { dir.Close() })
	if err := preflight.Host(cfg.DataDir); err != nil {
		return nil, nil, err
	}
	top := topCgroup(cfg.CgroupRoot())
	name, err := preflight.TakeName(cfg.Name, top)
	if err != nil {
		return nil, nil, err
	}
	undo = append(undo, func() {
		_ = os.Remove(top) // fails unless nothing was started
		name.Close()
	})
	warnings, err = preflight.Room(networks(cfg), cfg.Ports())
	return warnings, release, err
}

// networks are those a machine's part of a cluster uses.
func networks(cfg config.Config) preflight.Networks {
	return preflight.Networks{Cluster: cfg.Name, Want: map[string]netip.Prefix{"cluster-cidr": cfg.ClusterCIDR, "service-cidr": cfg.ServiceCIDR},
		Mark: cfg.Path("run", "networks"), Joined: cfg.Kind == config.Agent}
}

// refused marks what cannot get better by trying again: exit code 2.
type refused struct{ err error }

func (r refused) Error() string { return r.err.Error() }
func (r refused) Unwrap() error { return r.err }

// detach starts `perch up` as a process of its own and waits until the node is
// ready, or tells why it ended.
func detach(ctx context.Context, cfg config.Config, args []string, progress io.Writer) error {
	warnings, letGo, err := take(cfg)
	if err != nil {
		return refused{err}
	}
	letGo() // the supervisor takes it again
	for _, w := range warnings {
		fmt.Fprintln(progress, "  warning: "+w)
	}
	if err := os.MkdirAll(cfg.Path("log"), 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	// Else the cluster that runs already would be taken for the one to start.
	lock, err := preflight.TakeLock(cfg.DataDir)
	if err != nil {
		return refused{err}
	}
	if err := lock.Close(); err != nil {
		return fmt.Errorf("unlock data directory: %w", err)
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	out, err := os.OpenFile(cfg.Path("log", "supervisor.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer out.Close()
	began, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start supervisor: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ended:
			return refused{lastSentence(cfg.Path("log", "supervisor.log"), began)}
		case <-ctx.Done():
			_ = cmd.Process.Signal(syscall.SIGTERM) // nothing stays running that did not come up
			<-ended
			return fmt.Errorf("node %s was not ready within %s (%s): look into %s", cfg.NodeName, readyLimit, last, cfg.Path("log"))
		case <-tick.C:
		}
		stage, ok := readiness(ctx, cfg)
		if stage != last {
			fmt.Fprintln(progress, "  "+stage)
			last = stage
		}
		if ok {
			return nil
		}
	}
}

// lastSentence is what the supervisor said when it ended.
func lastSentence(path string, from int64) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("supervisor ended: %w", err)
	}
	defer f.Close()
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return fmt.Errorf("supervisor ended: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return fmt.Errorf("supervisor ended: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if rest, ok := strings.CutPrefix(lines[i], "perch: "); ok {
			return errors.New(strings.Join(append([]string{rest}, lines[i+1:]...), "\n"))
		}
	}
	return fmt.Errorf("supervisor ended; its log is %s", path)
}

// down stops the supervisor of a data directory and removes everything that
// its pods left on the machine. It also works after the supervisor was killed.
func down(ctx context.Context, cfg config.Config, purge bool, progress io.Writer) error {
	stopped, err := askSupervisor(ctx, cfg, http.MethodPost, "/stop")
	if err == nil {
		stopped.Close()
		fmt.Fprintln(progress, "  stopping roles")
		if err := waitUnlocked(ctx, cfg); err != nil {
			return err
		}
	}
	lock, err := preflight.TakeLock(cfg.DataDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := endOrphans(ctx, cfg.DataDir, orphanGrace); err != nil {
		return err
	}
	fmt.Fprintln(progress, "  removing pods, mounts, links and rules")
	errs := sweep(ctx, cfg)
	if purge {
		fmt.Fprintln(progress, "  removing "+cfg.DataDir)
		if errs == nil {
			errs = os.RemoveAll(cfg.DataDir)
		}
	}
	return errs
}

func waitUnlocked(ctx context.Context, cfg config.Config) error {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		lock, err := preflight.TakeLock(cfg.DataDir)
		if err == nil {
			return lock.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("supervisor did not stop: %w", err)
		case <-tick.C:
		}
	}
}

// unixDoor serves HTTP on a unix socket that only root may open.
type unixDoor struct {
	l   net.Listener
	srv *http.Server
}

func newUnixDoor(path string, h http.Handler) (*unixDoor, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open socket %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("protect socket %s: %w", path, err)
	}
	return &unixDoor{l, &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}}, nil
}

// Run serves until ctx ends.
func (d *unixDoor) Run(ctx context.Context) error { return serve(ctx, d.srv, d.l) }

func serve(ctx context.Context, srv *http.Server, l net.Listener) error {
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		limit, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		if srv.Shutdown(limit) != nil {
			_ = srv.Close() // streams that do not end by themselves
		}
		return nil
	}
}

func unixClient(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
}

func askSupervisor(ctx context.Context, cfg config.Config, method, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://supervisor"+path, bytes.NewReader(nil))
	if err != nil {
		return nil, fmt.Errorf("ask supervisor: %w", err)
	}
	resp, err := unixClient(cfg.Socket("supervisor")).Do(req)
	if err != nil {
		return nil, fmt.Errorf("perch is not running on %s: start it with `perch up --data-dir %s`", cfg.DataDir, cfg.DataDir)
	}
	return resp.Body, nil
}

// roleStatus asks for /status, or for /status/memory which costs more.
func roleStatus(ctx context.Context, cfg config.Config, path string) ([]supervisor.Status, error) {
	body, err := askSupervisor(ctx, cfg, http.MethodGet, path)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var out []supervisor.Status
	if err := json.NewDecoder(body).Decode(&out); err != nil {
		return nil, fmt.Errorf("read status: %w", err)
	}
	return out, nil
}

func untilSignal() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
}

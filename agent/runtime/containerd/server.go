package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/cmd/containerd/server"
	srvconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"perch/agent/image/load"
)

// Server is the embedded containerd. There is at most one in a process.
type Server struct {
	cfg   Config
	inner *srvconfig.Config
	log   *slog.Logger
}

// New checks the configuration and makes the folders. It needs root.
func New(cfg Config, log *slog.Logger) (*Server, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("open runtime: %w", err)
	}
	inner := generate(cfg, observe())
	if err := server.CreateTopLevelDirectories(inner); err != nil {
		return nil, fmt.Errorf("open runtime: %w", err)
	}
	for _, dir := range []string{filepath.Dir(cfg.Socket), runcDir(cfg.Dir), SocketDir(cfg.Dir), cfg.CNIConf, cfg.Certs} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open runtime: %w", err)
		}
	}
	return &Server{cfg: cfg, inner: inner, log: log}, nil
}

// Run adopts the containers that are there, imports the pause image and serves
// until ctx ends. The containers live on.
func (s *Server) Run(ctx context.Context) error {
	redirectLog(s.log)
	start := time.Now()
	// Not by runtime_path: containerd remembers that for the sandbox only, and
	// after a restart looks up the shim of its containers by name.
	path := s.cfg.Helpers.Dir + ":" + filepath.Dir(s.cfg.Helpers.Runc) + ":" + os.Getenv("PATH")
	if err := os.Setenv("PATH", path); err != nil {
		return fmt.Errorf("start runtime: %w", err)
	}
	if err := mount.SetTempMountLocation(filepath.Join(s.inner.Root, "tmpmounts")); err != nil {
		return fmt.Errorf("start runtime: %w", err)
	}
	if warnings, err := mount.CleanupTempMounts(0); err != nil {
		s.log.Warn("temporary mounts were left", "err", err, "warnings", len(warnings))
	}
	// The plugins live on this context; it must outlast ctx, so that requests
	// under way can end before Stop.
	inner, err := server.New(context.WithoutCancel(ctx), s.inner)
	if err != nil {
		return fmt.Errorf("start runtime: %w", err)
	}
	defer inner.Stop()
	if err := inner.Start(ctx); err != nil {
		return fmt.Errorf("start runtime: %w", err)
	}
	inner.Wait() // containers are adopted
	if err := s.importPause(ctx); err != nil {
		return fmt.Errorf("start runtime: import pause image: %w", err)
	}
	s.log.Info("runtime started", "socket", s.cfg.Socket, "took", time.Since(start))
	<-ctx.Done()
	return nil
}

// importPause puts the pause image where CRI looks for it.
func (s *Server) importPause(ctx context.Context) error {
	l, err := load.Open(ctx, s.cfg.Socket, load.Snapshots(s.cfg.Snapshots))
	if err != nil {
		return err
	}
	defer l.Close()
	if there, err := l.Has(ctx, s.cfg.pauseName()); err != nil || there {
		return err
	}
	f, err := os.Open(s.cfg.Helpers.PauseImage)
	if err != nil {
		return err
	}
	defer f.Close()
	return l.ImportAs(ctx, f, s.cfg.pauseName(), true)
}

// redirectLog sends containerd's warnings and errors to our log. containerd
// has one logger per process.
func redirectLog(log *slog.Logger) {
	std := logrus.StandardLogger()
	std.SetOutput(io.Discard)
	std.SetLevel(logrus.WarnLevel)
	std.ReplaceHooks(logrus.LevelHooks{})
	std.AddHook(hook{log})
}

type hook struct{ log *slog.Logger }

func (hook) Levels() []logrus.Level { return logrus.AllLevels }

// Fire passes one entry on. What containerd says is kept as an attribute: our
// own messages are constant.
func (h hook) Fire(e *logrus.Entry) error {
	attrs := []any{"said", e.Message}
	if err, ok := e.Data[logrus.ErrorKey].(error); ok {
		if status.Code(err) == codes.NotFound || errors.Is(err, context.Canceled) {
			return nil // an answer to the caller, who acts on it
		}
		attrs = append(attrs, "err", err)
	}
	for _, k := range []string{"id", "namespace", "plugin"} {
		if v, ok := e.Data[k]; ok {
			attrs = append(attrs, k, v)
		}
	}
	level := slog.LevelWarn
	if e.Level <= logrus.ErrorLevel {
		level = slog.LevelError
	}
	h.log.Log(context.Background(), level, "containerd reported", attrs...)
	return nil
}

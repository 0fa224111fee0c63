package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin/kubernetes"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// Server answers DNS questions on one node.
type Server struct {
	cfg       Config
	log       *slog.Logger
	metrics   *metrics
	tcp       net.Listener
	udp       net.PacketConn
	cluster   *kubernetes.Kubernetes
	resolvers *resolvers
	server    *dnsserver.Server
	synced    atomic.Bool
}

// New checks the configuration and opens the sockets, so that a port in use is
// found at once. The address need not exist yet. A Server that is never run
// must be closed.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure dns: %w", err)
	}
	s := &Server{cfg: cfg, log: log, metrics: newMetrics(reg),
		resolvers: &resolvers{path: cfg.ResolvConf, own: []netip.Addr{cfg.Listen.Addr(), cfg.Service}}}
	var err error
	if s.cluster, err = newKubernetes(cfg); err != nil {
		return nil, err
	}
	if s.server, err = newServer(cfg, s.cluster, s.resolvers, s.metrics); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: freebind}
	if s.tcp, err = lc.Listen(context.Background(), "tcp", cfg.Listen.String()); err != nil {
		return nil, fmt.Errorf("listen dns %s: %w", cfg.Listen, err)
	}
	if s.udp, err = lc.ListenPacket(context.Background(), "udp", s.tcp.Addr().String()); err != nil {
		_ = s.tcp.Close() // nothing came yet
		return nil, fmt.Errorf("listen dns %s: %w", cfg.Listen, err)
	}
	return s, nil
}

// freebind allows an address that the node gets later.
func freebind(_, _ string, c syscall.RawConn) error {
	var opt error
	err := c.Control(func(fd uintptr) { opt = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) })
	return errors.Join(err, opt)
}

// Synced tells whether the cluster's names are known. Safe to call at any time.
func (s *Server) Synced() bool { return s.synced.Load() }

// Close gives the sockets back. It is for a Server that was not run.
func (s *Server) Close() error { return errors.Join(s.tcp.Close(), s.udp.Close()) }

// Run answers until ctx ends. It fails when the kubeconfig cannot be used or a
// socket breaks. While the API is away it answers from what it knows.
func (s *Server) Run(ctx context.Context) error {
	defer s.resolvers.close()
	// The informers end with their own context, after the last question.
	inner, cancel := context.WithCancel(context.Background())
	defer cancel()
	start, stop, err := s.cluster.InitKubeCache(inner)
	if err != nil {
		_ = s.Close() // the first error counts
		return fmt.Errorf("read cluster names: %w", err)
	}
	s.reread()
	if err := start(); err != nil { // starts the informers and waits 1 ms
		_ = s.Close() // the first error counts
		return fmt.Errorf("read cluster names: %w", err)
	}
	ended := make(chan error, 2)
	go func() { ended <- s.server.Serve(s.tcp) }()
	go func() { ended <- s.server.ServePacket(s.udp) }()
	s.log.Info("dns server started", "address", s.cfg.Listen, "domain", s.cfg.Domain)
	broken := s.watch(ctx, ended)
	// Closing a socket ends its server, also one that has not begun yet.
	err = errors.Join(broken, s.server.Stop(), stop())
	_ = s.Close() // closed already where the server began
	left := 2
	if broken != nil {
		left = 1
	}
	for range left {
		<-ended
	}
	return err
}

// watch looks after the resolvers until ctx or a socket ends.
func (s *Server) watch(ctx context.Context, ended <-chan error) error {
	look := time.NewTicker(s.cfg.Reread)
	defer look.Stop()
	sync := time.NewTicker(50 * time.Millisecond)
	defer sync.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			if err == nil {
				err = errors.New("socket closed")
			}
			return fmt.Errorf("serve dns %s: %w", s.cfg.Listen, err)
		case <-look.C:
			s.reread()
		case <-sync.C:
			if s.cluster.APIConn.HasSynced() {
				s.synced.Store(true)
				s.metrics.synced.Set(1)
				s.log.Info("cluster names known")
				sync.Stop()
			}
		}
	}
}

func (s *Server) reread() {
	servers, changed, err := s.resolvers.reread()
	if err != nil {
		s.log.Warn("resolvers not read", "err", err)
		return
	}
	s.metrics.resolvers.Set(float64(len(servers)))
	if !changed {
		return
	}
	if len(servers) == 0 {
		s.log.Warn("machine has no resolver: names outside the cluster get no answer", "file", s.cfg.ResolvConf)
		return
	}
	s.log.Info("resolvers read", "servers", servers)
}

package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin/kubernetes"
	"github.com/prometheus/client_golang/prometheus"
)

// Server answers DNS questions on one node.
type Server struct {
	cfg       Config
	log       *slog.Logger
	metrics   *metrics
	sockets   Sockets
	cluster   *kubernetes.Kubernetes
	resolvers *resolvers
	server    *dnsserver.Server
	synced    chan struct{} // closed when the cluster's names are known
}

// New checks the configuration and takes the sockets over. A Server that is
// never run must be closed.
func New(cfg Config, sockets Sockets, log *slog.Logger, reg prometheus.Registerer) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure dns: %w", err)
	}
	s := &Server{cfg: cfg, log: log, sockets: sockets, metrics: newMetrics(reg, sockets.dropped), synced: make(chan struct{}),
		resolvers: &resolvers{path: cfg.ResolvConf, own: []netip.Addr{sockets.Address().Addr(), cfg.Service}}}
	var err error
	if s.cluster, err = newKubernetes(cfg); err != nil {
		return nil, err
	}
	wait := &patience{zones: s.cluster.Zones, synced: s.synced, limit: cfg.Patience, metrics: s.metrics}
	if s.server, err = newServer(sockets.Address(), s.cluster, wait, s.resolvers, s.metrics); err != nil {
		return nil, err
	}
	return s, nil
}

// Synced tells whether the cluster's names are known. Safe to call at any time.
func (s *Server) Synced() bool {
	select {
	case <-s.synced:
		return true
	default:
		return false
	}
}

// Close gives the sockets back. It is for a Server that was not run.
func (s *Server) Close() error { return s.sockets.Close() }

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
	go func() {
		ended <- s.server.Serve(&bounded{Listener: s.sockets.tcp, refused: s.metrics.refused, of: map[netip.Addr]int{}})
	}()
	go func() { ended <- s.server.ServePacket(s.sockets.udp) }()
	s.log.Info("dns server started", "address", s.sockets.Address(), "domain", s.cfg.Domain)
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
	sync := time.NewTicker(10 * time.Millisecond) // questions wait for it
	defer sync.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			if err == nil {
				err = errors.New("socket closed")
			}
			return fmt.Errorf("serve dns %s: %w", s.sockets.Address(), err)
		case <-look.C:
			s.reread()
		case <-sync.C:
			if s.cluster.APIConn.HasSynced() {
				close(s.synced)
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

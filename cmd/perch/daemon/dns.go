package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"perch/agent/dns"
	"perch/agent/network"
)

// The names under which the supervisor holds the sockets of cluster DNS while
// the agent restarts.
const (
	heldUDP = "dns-udp"
	heldTCP = "dns-tcp"
)

// runDNS serves cluster DNS on this node's gateway address: at once on the
// sockets of the run before, else when the address is known.
func (r role) runDNS(net *network.Network) func(context.Context) error {
	return func(ctx context.Context) error {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		sockets, ok := r.heldDNS()
		for !ok {
			if _, gateway, known := net.PodCIDR(); known {
				var err error
				if sockets, err = r.openDNS(netip.AddrPortFrom(gateway, 53)); err != nil {
					return err
				}
				break
			}
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
		cfg := dns.Default()
		cfg.Service, cfg.Domain, cfg.Kubeconfig = r.cfg.ServiceIP(10), r.cfg.ClusterDomain, r.cfg.Path("pki", "node.kubeconfig")
		srv, err := dns.New(cfg, sockets, r.part("dns"), r.reg)
		if err != nil {
			_ = sockets.Close() // the first error counts
			return err
		}
		inner, stop := context.WithCancel(ctx)
		defer stop()
		ended := make(chan error, 1)
		go func() { ended <- srv.Run(inner) }()
		for {
			select {
			case err := <-ended:
				return err
			case <-tick.C:
			}
			if _, gateway, known := net.PodCIDR(); known && gateway != sockets.Address().Addr() {
				r.dropDNS()
				stop()
				<-ended // what it says of its end does not matter any more
				return fmt.Errorf("the node's gateway address moved from %s to %s", sockets.Address().Addr(), gateway)
			}
		}
	}
}

// heldDNS takes the sockets of the run before over.
func (r role) heldDNS() (_ dns.Sockets, ok bool) {
	udp, tcp := r.notify.Held(heldUDP), r.notify.Held(heldTCP)
	if udp == nil || tcp == nil {
		return dns.Sockets{}, false
	}
	s, err := dns.FromFiles(udp, tcp)
	if err != nil {
		r.part("dns").Warn("sockets of the run before not usable", "err", err)
		r.dropDNS()
		return dns.Sockets{}, false
	}
	return s, true
}

// openDNS opens the sockets and has them held, so that questions wait in them
// while the agent restarts.
func (r role) openDNS(at netip.AddrPort) (dns.Sockets, error) {
	s, err := dns.Listen(at)
	if err != nil {
		return s, err
	}
	udp, tcp, err := s.Files()
	if err != nil {
		return s, err
	}
	defer udp.Close()
	defer tcp.Close()
	for name, f := range map[string]*os.File{heldUDP: udp, heldTCP: tcp} {
		if err := r.notify.Hold(name, f); err != nil { // it serves without, too
			r.part("dns").Warn("sockets not held: questions are lost while the agent restarts", "err", err)
		}
	}
	return s, nil
}

func (r role) dropDNS() {
	r.notify.Drop(heldUDP)
	r.notify.Drop(heldTCP)
}

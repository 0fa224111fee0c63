package daemon

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/cmd/perch/daemon/config"
	"perch/controlplane/auth/pki"
	"perch/logs/ring"
)

// TestNodesGossipWithTheCertificatesTheyServeWith: those that a server makes for
// itself, as others have the signer make them.
func TestNodesGossipWithTheCertificatesTheyServeWith(t *testing.T) {
	dir := t.TempDir()
	ca, err := pki.Open(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := pki.WriteFile(filepath.Join(dir, "authority.crt"), ca.PEM()); err != nil {
		t.Fatal(err)
	}
	names := []string{"n1", "n2"}
	var seeds []string
	var ports []int
	var taken []net.Listener // until all have a port
	for range names {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, l)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
		seeds = append(seeds, l.Addr().String())
	}
	for _, l := range taken {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	var rings []*ring.Ring
	for i, name := range names {
		want := certificates(config.Config{NodeName: name, AdvertiseAddress: netip.MustParseAddr("127.0.0.1"), ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16")})["node-serving"]
		pair, err := ca.Issue(time.Now(), want)
		if err != nil {
			t.Fatal(err)
		}
		cfg := ring.Default()
		cfg.Node, cfg.Addr, cfg.Advertise, cfg.Port, cfg.Secret = name, name+":10250", netip.MustParseAddr("127.0.0.1"), ports[i], "secret"
		cfg.Seeds = func() []string { return seeds }
		cfg.CAFile, cfg.CertFile, cfg.KeyFile = filepath.Join(dir, "authority.crt"), filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
		cfg.Rejoin, cfg.Gossip, cfg.Quiet = time.Second, 50*time.Millisecond, 0
		if err := pki.WriteFile(cfg.CertFile, pair.Cert); err != nil {
			t.Fatal(err)
		}
		if err := pki.WriteFile(cfg.KeyFile, pair.Key); err != nil {
			t.Fatal(err)
		}
		r, err := ring.New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		rings = append(rings, r)
		all.Go(func() {
			if err := r.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); ; <-tick.C {
		met := true
		for _, r := range rings {
			members, err := r.Members(ctx)
			if err != nil {
				t.Fatal(err)
			}
			met = met && len(members) == 2
		}
		if met {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the nodes do not meet within a minute")
		}
	}
}

package ring

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
)

// guarded starts a member behind a gate with these limits, whose numbers count reads.
func guarded(t *testing.T, cfg Config, set func(*gateLimit)) (r *Ring, count func(name, label string) float64) {
	t.Helper()
	reg := prometheus.NewRegistry()
	r, err := New(cfg, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	if set != nil {
		set(&r.limit)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	until(t, "it runs", func() bool { return healthy(t, r) != "" })
	return r, func(name, label string) (sum float64) {
		t.Helper()
		all, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, f := range all {
			for _, m := range f.GetMetric() {
				if f.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
					sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
					found = true
				}
			}
		}
		if !found {
			t.Fatalf("no %s %s", name, label)
		}
		return sum
	}
}

const (
	received = "perch_memberlist_tcp_transport_received_bytes_total" // by the library
	refused  = "perch_ring_refused_total"
)

func dial(s *site, node string, pairs ...tls.Certificate) (*tls.Conn, error) {
	pool := x509.NewCertPool()
	pool.AddCert(s.ca.cert)
	return tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.ports[node]), &tls.Config{RootCAs: pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { // whatever the server would like
			if len(pairs) == 0 {
				return &tls.Certificate{}, nil
			}
			return &pairs[0], nil
		}})
}

// flood says that a packet follows and sends data until it is cut off, or 64 MiB
// were taken.
func flood(t *testing.T, s *site, node string, pairs ...tls.Certificate) (cut bool) {
	t.Helper()
	c, err := dial(s, node, pairs...)
	if err != nil {
		return true
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	chunk := make([]byte, 64<<10)
	chunk[0] = 1 // a packet, whose sender has no address
	for range 1024 {
		if _, err := c.Write(chunk); err != nil {
			return true
		}
	}
	return false
}

func pairOf(t *testing.T, dir, name string) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func TestNothingOfAStrangerIsRead(t *testing.T) {
	s := newSite(t, newAuthority(t), "a")
	s.ca.issue(t, s.dir, "a")
	other, people := newAuthority(t), *s.ca
	people.of = []string{"people"}
	otherDir, peopleDir := t.TempDir(), t.TempDir()
	other.issue(t, otherDir, "a")
	people.issue(t, peopleDir, "a")
	_, count := guarded(t, s.config("a", "secret"), nil)
	for i, c := range []struct {
		who   string
		pairs []tls.Certificate
	}{
		{"without a certificate", nil},
		{"with a certificate of another authority", []tls.Certificate{pairOf(t, otherDir, "a")}},
		{"with a certificate that is not a node's", []tls.Certificate{pairOf(t, peopleDir, "a")}},
	} {
		if !flood(t, s, "a", c.pairs...) {
			t.Errorf("a stranger %s was read from", c.who)
		}
		until(t, "the stranger is counted", func() bool { return count(refused, "stranger") == float64(i+1) })
	}
	const much = 1 << 20 // more than the node says to itself meanwhile
	if n := count(received, ""); n >= much {
		t.Errorf("the library received %v bytes", n)
	}
	// What counts is who asks, not how: the same bytes of a node come through.
	c, err := dial(s, "a", pairOf(t, s.dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(append([]byte{1}, make([]byte, much)...)); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	until(t, "the library receives what a node sends", func() bool { return count(received, "") >= much })
}

func TestANodeIsReadFromUpToALimit(t *testing.T) {
	s := newSite(t, newAuthority(t), "a")
	s.ca.issue(t, s.dir, "a")
	_, count := guarded(t, s.config("a", "secret"), func(l *gateLimit) { l.Time = time.Second })
	pair := pairOf(t, s.dir, "a")
	if !flood(t, s, "a", pair) {
		t.Error("endless data of a node was read")
	}
	until(t, "it is counted", func() bool { return count(refused, "large") == 1 })
	if n := count(received, ""); n > float64(defaultGate().Bytes)+64<<10 { // it says something to itself, too
		t.Errorf("the library received %v bytes", n)
	}
	c, err := dial(s, "a", pair)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("half a packet has an answer")
	}
	until(t, "the slow node is counted", func() bool { return count(refused, "slow") == 1 })
	until(t, "its place is free", func() bool { return count("perch_ring_connections", "") == 0 })
}

func TestNodesHaveAFewConnectionsAtOnce(t *testing.T) {
	s := newSite(t, newAuthority(t), "a")
	s.ca.issue(t, s.dir, "a")
	_, count := guarded(t, s.config("a", "secret"), func(l *gateLimit) { l.Open, l.Time = 2, limit })
	pair := pairOf(t, s.dir, "a")
	for range 3 {
		c, err := dial(s, "a", pair)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "two are open and one is refused", func() bool {
		return count("perch_ring_connections", "") == 2 && count(refused, "many") == 1
	})
}

func TestNodesMeetThoughStrangersFillThePort(t *testing.T) {
	s := newSite(t, newAuthority(t), "a", "b")
	s.ca.issue(t, s.dir, "a", "b")
	set := func(l *gateLimit) { l.Strangers, l.Handshake = 8, limit }
	a, count := guarded(t, s.config("a", "secret"), set)
	for range 40 { // that never say a word
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.ports["a"]))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	until(t, "those who were first are gone", func() bool { return count(refused, "stranger") >= 32 })
	b, _ := guarded(t, s.config("b", "secret"), set)
	until(t, "the nodes meet", func() bool { return healthy(t, a) == "a b" && healthy(t, b) == "a b" })
}

func TestANodeWithoutAGateIsUnderstood(t *testing.T) {
	s := newSite(t, newAuthority(t), "new", "old")
	s.ca.issue(t, s.dir, "new", "old")
	now, _ := start(t, s.config("new", "secret"))
	before, err := New(s.config("old", "secret"), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	p, err := before.make(prometheus.NewRegistry(), place{port: s.ports["old"]}) // the library itself on the port
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []services.Service{p.gossip, p.life} {
		if err := services.StartAndAwaitRunning(t.Context(), part); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := services.StopAndAwaitTerminated(context.Background(), part); err != nil {
				t.Error(err)
			}
		}()
	}
	before.parts = p
	until(t, "they meet", func() bool { return healthy(t, now) == "new old" && healthy(t, before) == "new old" })
}

package ring

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// limit is how long a condition may take on a busy machine.
const limit = time.Minute

// site is a cluster on this machine's loopback.
type site struct {
	dir   string
	ports map[string]int
	ca    *authority // nil: no TLS
}

func newSite(t *testing.T, ca *authority, nodes ...string) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), ports: map[string]int{}, ca: ca}
	for _, n := range nodes {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s.ports[n] = l.Addr().(*net.TCPAddr).Port
		defer l.Close() // all at once, so that none is given twice
	}
	return s
}

func (s *site) seeds() (out []string) {
	for _, p := range s.ports {
		out = append(out, fmt.Sprintf("127.0.0.1:%d", p))
	}
	slices.Sort(out)
	return out
}

func (s *site) config(node, secret string) Config {
	c := Default()
	c.Node, c.Addr, c.Advertise, c.Port, c.Secret, c.Seeds = node, node+":10250", netip.MustParseAddr("127.0.0.1"), s.ports[node], secret, s.seeds
	c.TokensFile = filepath.Join(s.dir, node+".tokens")
	c.Heartbeat, c.Timeout, c.Rejoin, c.Gossip, c.Quiet = 500*time.Millisecond, 4*time.Second, time.Second, 50*time.Millisecond, 0
	if s.ca != nil {
		c.CAFile, c.CertFile, c.KeyFile = filepath.Join(s.dir, "ca.crt"), filepath.Join(s.dir, node+".crt"), filepath.Join(s.dir, node+".key")
	}
	return c
}

// start runs a member until stop or the end of the test.
func start(t *testing.T, cfg Config) (r *Ring, stop func()) {
	t.Helper()
	r, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return r, stop
}

func until(t *testing.T, what string, good func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); !good(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

func names(ms []Member) string {
	var out []string
	for _, m := range ms {
		out = append(out, m.Node)
	}
	return strings.Join(out, " ")
}

// healthy are the members that r believes to be healthy, by name.
func healthy(t *testing.T, r *Ring) string {
	t.Helper()
	ms, err := r.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return names(slices.DeleteFunc(ms, func(m Member) bool { return !m.Healthy }))
}

func TestMembersAgreeWhoFollowsWhom(t *testing.T) {
	s := newSite(t, nil, "a", "b", "c")
	var rings []*Ring
	for _, n := range []string{"a", "b", "c"} {
		r, _ := start(t, s.config(n, "secret"))
		rings = append(rings, r)
	}
	for _, r := range rings {
		until(t, "all see all", func() bool { return healthy(t, r) == "a b c" })
	}
	for _, node := range []string{"a", "b", "c"} {
		until(t, "all say the same of "+node, func() bool {
			want := names(rings[0].Followers(node))
			return len(strings.Fields(want)) == 2 && !strings.Contains(want, node) &&
				want == names(rings[1].Followers(node)) && want == names(rings[2].Followers(node))
		})
	}
	if m := rings[0].Followers("a")[0]; m.Addr != m.Node+":10250" || !m.Healthy {
		t.Errorf("a follower is told as %+v", m)
	}
}

func TestFurtherSetsHaveTheirOwnMembers(t *testing.T) {
	s := newSite(t, nil, "a", "b", "c")
	var rings []*Ring
	for node, as := range map[string]string{"a": "server", "b": "worker", "c": ""} {
		cfg := s.config(node, "secret")
		if as != "" {
			cfg.Sets = map[string]string{"series": as}
		}
		r, _ := start(t, cfg)
		rings = append(rings, r)
	}
	for _, r := range rings {
		until(t, "all know all", func() bool { return healthy(t, r) == "a b c" })
		until(t, "all know the set", func() bool {
			ms, err := r.Set(t.Context(), "series")
			return err == nil && names(ms) == "a b" && ms[0].As == "server" && ms[1].As == "worker" && ms[0].Healthy && ms[1].Addr == "b:10250"
		})
		if ms, err := r.Set(t.Context(), "nobody's"); err != nil || len(ms) > 0 {
			t.Errorf("a set without members has %v (%v)", ms, err)
		}
	}
}

func TestALoneMemberHasNoFollower(t *testing.T) {
	s := newSite(t, nil, "a")
	r, _ := start(t, s.config("a", "secret"))
	until(t, "it runs", func() bool { return healthy(t, r) == "a" })
	if f := r.Followers("a"); len(f) > 0 {
		t.Errorf("followers are %v", f)
	}
}

func TestOthersWithoutTheSecretAreNotListenedTo(t *testing.T) {
	s := newSite(t, nil, "a", "b", "stranger")
	a, _ := start(t, s.config("a", "secret"))
	stranger, _ := start(t, s.config("stranger", "guess"))
	b, _ := start(t, s.config("b", "secret"))
	until(t, "the stranger runs", func() bool { return healthy(t, stranger) == "stranger" })
	until(t, "those with the secret meet", func() bool { return healthy(t, a) == "a b" && healthy(t, b) == "a b" })
	// Several looks for seeds later it is still alone.
	rounds := 0
	until(t, "time goes by", func() bool {
		rounds++
		if len(stranger.Followers("a")) != 1 || healthy(t, a) != "a b" || healthy(t, stranger) != "stranger" {
			t.Fatalf("a sees %q, the stranger sees %q", healthy(t, a), healthy(t, stranger))
		}
		return rounds > 150
	})
}

func TestAMemberOfAnotherAuthorityStaysOutside(t *testing.T) {
	s := newSite(t, newAuthority(t), "a", "b", "stranger")
	s.ca.issue(t, s.dir, "a", "b")
	other := *s
	other.dir, other.ca = t.TempDir(), newAuthority(t)
	other.ca.issue(t, other.dir, "stranger")
	stranger, _ := start(t, other.config("stranger", "secret"))
	a, _ := start(t, s.config("a", "secret"))
	b, _ := start(t, s.config("b", "secret"))
	until(t, "those of one authority meet", func() bool { return healthy(t, a) == "a b" && healthy(t, b) == "a b" })
	rounds := 0
	until(t, "time goes by", func() bool {
		rounds++
		if now := healthy(t, stranger); now != "stranger" && now != "" || healthy(t, a) != "a b" {
			t.Fatalf("a sees %q, the stranger sees %q", healthy(t, a), now)
		}
		return rounds > 150
	})
}

func TestAPortThatIsTakenIsWaitedFor(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for seconds")
	}
	s := newSite(t, nil, "a")
	l, err := net.Listen("tcp", ":"+strconv.Itoa(s.ports["a"]))
	if err != nil {
		t.Fatal(err)
	}
	var told bytes.Buffer
	var mu sync.Mutex
	cfg := s.config("a", "the-secret")
	reg := prometheus.NewRegistry()
	r, err := New(cfg, slog.New(slog.NewTextHandler(locked{&mu, &told}, &slog.HandlerOptions{Level: slog.LevelDebug})), reg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	said := func() string {
		mu.Lock()
		defer mu.Unlock()
		return told.String()
	}
	until(t, "it tells", func() bool { return strings.Contains(said(), "address already in use") })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "it runs", func() bool { return healthy(t, r) == "a" })
	if strings.Contains(said(), cfg.Secret) {
		t.Errorf("the secret is in the log: %s", said())
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	left, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range left {
		if !strings.HasPrefix(f.GetName(), "perch_ring_") {
			t.Errorf("%s is there although the ring does not run", f.GetName())
		}
	}
}

type locked struct {
	mu *sync.Mutex
	to *bytes.Buffer
}

func (l locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to.Write(b)
}

// TestChild is a member in a process of its own, which the next test kills.
func TestChild(t *testing.T) {
	if os.Getenv("RING_CHILD") == "" {
		t.Skip("runs in a child process only")
	}
	port, err := strconv.Atoi(os.Getenv("RING_PORT"))
	if err != nil {
		t.Fatal(err)
	}
	s := &site{dir: os.Getenv("RING_DIR"), ports: map[string]int{os.Getenv("RING_CHILD"): port}}
	cfg := s.config(os.Getenv("RING_CHILD"), "secret")
	cfg.Seeds = func() []string { return strings.Split(os.Getenv("RING_SEEDS"), ",") }
	start(t, cfg)
	select {} // until killed
}

func TestADeadMemberIsReplacedAndComesBackToItsPlace(t *testing.T) {
	s := newSite(t, nil, "a", "b", "c")
	a, _ := start(t, s.config("a", "secret"))
	b, _ := start(t, s.config("b", "secret"))
	child := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
		cmd.Env = append(os.Environ(), "RING_CHILD=c", "RING_DIR="+s.dir, "RING_PORT="+strconv.Itoa(s.ports["c"]), "RING_SEEDS="+strings.Join(s.seeds(), ","))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd
	}
	c := child()
	for _, r := range []*Ring{a, b} {
		until(t, "all meet", func() bool { return healthy(t, r) == "a b c" })
	}
	// Somebody's first choice is c: that one has another as long as c is away.
	owner := ""
	for i := range 1000 {
		if f := a.Followers(fmt.Sprint("node-", i)); len(f) == 3 && f[0].Node == "c" {
			owner = fmt.Sprint("node-", i)
			break
		}
	}
	if owner == "" {
		t.Fatal("c is nobody's first choice")
	}
	before := names(a.Followers(owner))
	_ = c.Process.Kill()
	_ = c.Wait()
	for _, r := range []*Ring{a, b} {
		until(t, "c is not chosen", func() bool {
			f := r.Followers(owner)
			return len(f) == 2 && f[0].Node != "c" && healthy(t, r) == "a b"
		})
	}
	child()
	for _, r := range []*Ring{a, b} {
		until(t, "c is back where it was", func() bool { return names(r.Followers(owner)) == before })
	}
}

// authority issues certificates for 127.0.0.1.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	of   []string // organizations of those that get a certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	want := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, want, want, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, []string{"system:nodes"}}
}

func (a *authority) issue(t *testing.T, dir string, nodes ...string) {
	t.Helper()
	keep := func(name, kind string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keep("ca.crt", "CERTIFICATE", a.cert.Raw)
	for i, n := range nodes {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		want := &x509.Certificate{SerialNumber: big.NewInt(int64(i) + 2), Subject: pkix.Name{CommonName: "system:node:" + n, Organization: a.of}, NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter,
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
		der, err := x509.CreateCertificate(rand.Reader, want, a.cert, &key.PublicKey, a.key)
		if err != nil {
			t.Fatal(err)
		}
		text, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		keep(n+".crt", "CERTIFICATE", der)
		keep(n+".key", "EC PRIVATE KEY", text)
	}
}

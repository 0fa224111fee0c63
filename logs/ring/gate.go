package ring

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// gateLimit is what one machine takes from others on the port of gossip.
type gateLimit struct {
	Strangers int           // connections that have not shown a certificate; when there are more, the oldest goes
	Handshake time.Duration // to show it
	Open      int           // connections of nodes; more are refused
	Bytes     int64         // of one connection: what over 10,000 nodes say of themselves
	Time      time.Duration // of one connection; the library is done within seconds
}

func defaultGate() gateLimit {
	return gateLimit{Strangers: 64, Handshake: 5 * time.Second, Open: 64, Bytes: 4 << 20, Time: 15 * time.Second}
}

// nodes is the organization of a node's certificates.
const nodes = "system:nodes"

// gate is the port of gossip. The library's own asks nobody for a certificate and
// reads a packet to its end into memory before it looks whose it is; so it listens
// on loopback, and this gate hands on to it what nodes of the cluster send.
type gate struct {
	limit   gateLimit
	outside net.Listener
	inside  int // port of the library on loopback
	server  *tls.Config
	client  *tls.Config
	numbers *gateNumbers
	room    chan struct{} // Open

	mu        sync.Mutex // guards strangers
	strangers []net.Conn // oldest first
}

type gateNumbers struct {
	refused *prometheus.CounterVec
	open    prometheus.Gauge
}

func newGateNumbers(reg prometheus.Registerer) (*gateNumbers, error) {
	n := &gateNumbers{
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_ring_refused_total",
			Help: "Connections to the port of gossip that were cut off, by reason: stranger (showed no certificate of a node in time), many (nodes have too many open), large, slow."}, []string{"reason"}),
		open: prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_ring_connections", Help: "Connections of nodes that are open on the port of gossip."})}
	for _, reason := range []string{"stranger", "many", "large", "slow"} {
		n.refused.WithLabelValues(reason)
	}
	return n, errors.Join(reg.Register(n.refused), reg.Register(n.open))
}

// openGate opens the port of gossip and finds another for the library.
func (r *Ring) openGate() (*gate, error) {
	text, err := os.ReadFile(r.cfg.CAFile)
	if err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("open gossip: no certificate in %s", r.cfg.CAFile)
	}
	// Each connection has the pair as it is now: it is renewed while this runs.
	own := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(r.cfg.CertFile, r.cfg.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read certificate: %w", err)
		}
		return &pair, nil
	}
	g := &gate{limit: r.limit, numbers: r.gate, room: make(chan struct{}, r.limit.Open),
		server: &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAnyClientCert, ClientCAs: pool,
			GetCertificate:   func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own() },
			VerifyConnection: func(c tls.ConnectionState) error { return ofNode(c.PeerCertificates, pool) }},
		client: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}, //nolint:gosec // it is this process
	}
	// Nothing but chance keeps the port free until the library has it; if somebody
	// takes it, the ring does not start and tries again.
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	g.inside = free.Addr().(*net.TCPAddr).Port
	if err := free.Close(); err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	if g.outside, err = net.Listen("tcp", net.JoinHostPort("0.0.0.0", strconv.Itoa(r.cfg.Port))); err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	return g, nil
}

// ofNode tells whether a node of the cluster showed these: nodes have one
// certificate for gossip, the one they serve with.
func ofNode(chain []*x509.Certificate, pool *x509.CertPool) error {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		return fmt.Errorf("verify certificate: %w", err)
	}
	if !slices.Contains(chain[0].Subject.Organization, nodes) {
		return fmt.Errorf("%s is not a node", chain[0].Subject.CommonName)
	}
	return nil
}

// run hands connections on until ctx ends, and closes the port.
func (g *gate) run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	defer context.AfterFunc(ctx, func() { _ = g.outside.Close() })()
	for {
		c, err := g.outside.Accept()
		if err == nil {
			all.Go(func() { g.handOn(ctx, c) })
			continue
		}
		select { // as when there are no descriptors left
		case <-ctx.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// handOn lets a node speak with the library.
func (g *gate) handOn(ctx context.Context, c net.Conn) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	_ = c.SetDeadline(time.Now().Add(g.limit.Handshake))
	from := tls.Server(c, g.server)
	known := g.strange(c)
	err := from.HandshakeContext(ctx)
	known()
	if err != nil {
		g.numbers.refused.WithLabelValues("stranger").Inc()
		return
	}
	select {
	case g.room <- struct{}{}:
		defer func() { <-g.room }()
	default:
		g.numbers.refused.WithLabelValues("many").Inc()
		return
	}
	g.numbers.open.Inc()
	defer g.numbers.open.Dec()
	in, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(g.inside)), time.Second)
	if err != nil {
		return // the library starts or stops
	}
	defer in.Close()
	defer context.AfterFunc(ctx, func() { _ = in.Close() })()
	end := time.Now().Add(g.limit.Time)
	_ = errors.Join(c.SetDeadline(end), in.SetDeadline(end)) // fails on what is closed
	if reason := splice(from, tls.Client(in, g.client), g.limit.Bytes, end); reason != "" {
		g.numbers.refused.WithLabelValues(reason).Inc()
	}
}

// strange keeps c among those that have not shown a certificate, until known is
// called. The one that has been there for the longest goes for one too many: a node
// needs a moment only, who fills the places needs them for longer.
func (g *gate) strange(c net.Conn) (known func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.strangers) >= g.limit.Strangers {
		_ = g.strangers[0].Close()
		g.strangers = g.strangers[1:]
	}
	g.strangers = append(g.strangers, c)
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.strangers = slices.DeleteFunc(g.strangers, func(s net.Conn) bool { return s == c })
	}
}

// splice copies from one to the other, at most so many bytes, and the answer back,
// until there is no more answer or the deadline of both. It tells why it broke off.
func splice(from, to *tls.Conn, most int64, end time.Time) (reason string) {
	said := make(chan string, 1)
	go func() {
		n, err := io.Copy(to, io.LimitReader(from, most+1))
		reason := ""
		switch {
		case n > most:
			reason = "large"
		case err == nil:
			_ = to.CloseWrite() // all of it is there; if this fails there is no answer
			said <- ""
			return
		case !time.Now().Before(end):
			reason = "slow"
		}
		_ = to.NetConn().Close() // without a word of the end: the library drops a part of a packet
		said <- reason
	}()
	_, _ = io.Copy(from, to)
	_ = from.CloseWrite()
	_ = errors.Join(from.NetConn().Close(), to.NetConn().Close()) // ends the other copy
	return <-said
}

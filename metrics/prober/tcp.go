package prober

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// tcpModule wants a connection, with TLS a good certificate too.
type tcpModule struct{ tls bool }

func (m tcpModule) ask(ctx context.Context, p *Prober, target string, ask url.Values, f *found) error {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return fmt.Errorf("read target %q: want host:port", target)
	}
	f.noRegex()
	ip, err := p.address(ctx, host, f)
	if err != nil {
		return err
	}
	conn, err := p.dialer().DialContext(ctx, "tcp", net.JoinHostPort(ip.String(), port))
	if err != nil {
		return fmt.Errorf("connect %s: %w", target, err)
	}
	defer conn.Close()
	if !m.tls {
		return nil
	}
	if name := ask.Get("hostname"); name != "" {
		host = name
	}
	secure := tls.Client(conn, &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12})
	if err := secure.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("connect %s: %w", target, err)
	}
	aboutTLS(f, secure.ConnectionState())
	return nil
}

// aboutTLS tells of the certificates of a connection.
func aboutTLS(f *found, s tls.ConnectionState) {
	earliest := func(list []*x509.Certificate) (first time.Time) {
		for _, c := range list {
			if first.IsZero() || c.NotAfter.Before(first) {
				first = c.NotAfter
			}
		}
		return first
	}
	f.set("probe_ssl_earliest_cert_expiry", "When the first of the certificates ends, unix time.", float64(earliest(s.PeerCertificates).Unix()))
	var last time.Time // of the chain that holds longest
	for _, chain := range s.VerifiedChains {
		if e := earliest(chain); e.After(last) {
			last = e
		}
	}
	f.set("probe_ssl_last_chain_expiry_timestamp_seconds", "When the longest lasting chain ends, unix time; long ago where no chain was looked at.", float64(last.Unix()))
	leaf := s.PeerCertificates[0] // a server has always one
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "probe_ssl_last_chain_info", Help: "The certificate of the server."},
		[]string{"fingerprint_sha256", "subject", "issuer", "subjectalternative"})
	info.WithLabelValues(fmt.Sprintf("%x", sha256.Sum256(leaf.Raw)), leaf.Subject.String(), leaf.Issuer.String(), strings.Join(leaf.DNSNames, ",")).Set(1)
	f.reg.MustRegister(info)
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "probe_tls_version_info", Help: "The version of TLS."}, []string{"version"})
	g.WithLabelValues(tls.VersionName(s.Version)).Set(1)
	f.reg.MustRegister(g)
}

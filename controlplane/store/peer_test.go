package store

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// peerFiles writes one self-signed certificate that is its own CA.
func peerFiles(t *testing.T) (cert, key string) { return signed(t, "peer", "", "") }

// signed writes a certificate that another one signed, or none.
func signed(t *testing.T, name, caFile, caKey string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, by := c, any(k)
	if caFile != "" {
		pair, err := tls.LoadX509KeyPair(caFile, caKey)
		if err != nil {
			t.Fatal(err)
		}
		parent, by, c.IsCA = pair.Leaf, pair.PrivateKey, false
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, k.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "peer.crt"), filepath.Join(dir, "peer.key")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: b}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // only to learn a free port
	return l.Addr().String()
}

func TestThePeerDoorAsksForACertificateAndFollowsANewAddress(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.PeerCert, cfg.PeerKey = peerFiles(t)
	cfg.PeerCA = cfg.PeerCert
	address := freePort(t)
	cfg.PeerURL = "https://" + address
	s := open(t, cfg)
	c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the test has no certificate on purpose
	if err == nil {
		_, err = c.Read(make([]byte, 1)) // in TLS 1.3 the refusal comes after the handshake
		_ = c.Close()                    // nothing more to learn
	}
	if err == nil {
		t.Error("the peer door let a stranger in")
	}
	ask := func(cert, key string) error {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}}} //nolint:gosec // who answers does not matter here
		resp, err := client.Get("https://" + address + "/members")
		if err == nil {
			_ = resp.Body.Close() // its coming is the answer
		}
		return err
	}
	if err := ask(cfg.PeerCert, cfg.PeerKey); err != nil {
		t.Errorf("the peer door refused a member: %v", err)
	}
	if ask(signed(t, "system:node:a", cfg.PeerCert, cfg.PeerKey)) == nil {
		t.Error("the peer door let a node in, because the same CA knows it")
	}
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	cfg.PeerURL = fmt.Sprintf("https://%s", freePort(t))
	s = open(t, cfg)
	members, err := s.Client().MemberList(context.Background())
	if err != nil || len(members.Members) != 1 || members.Members[0].PeerURLs[0] != cfg.PeerURL {
		t.Errorf("have %v, %v", members, err)
	}
}

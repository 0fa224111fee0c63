package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, dir string, now time.Time) *Authority {
	t.Helper()
	a, err := Open(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAuthorityIsTheSameAfterReopening(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	first := open(t, dir, noon)
	second := open(t, dir, noon.Add(time.Hour))
	if first.Pin() != second.Pin() {
		t.Fatal("the CA changed when it was opened again")
	}
	key1, err := SigningKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	key2, err := SigningKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !key1.Equal(key2) {
		t.Fatal("the token signing key changed when it was loaded again")
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", f.Name(), info.Mode())
		}
	}
}

func TestAuthorityWithoutItsKeyIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, noon)
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, noon); err == nil || !strings.Contains(err.Error(), "ca.key is missing") {
		t.Fatalf("got %v, want an error about ca.key", err)
	}
}

func TestIssuedCertificatesVerify(t *testing.T) {
	a := open(t, t.TempDir(), noon)
	pair, err := a.Issue(noon, Request{
		CommonName: "perch-apiserver", Organizations: []string{"system:masters"},
		DNS: []string{"kubernetes.default.svc"}, IPs: []net.IP{net.IPv4(10, 43, 0, 1)}, Server: true, Client: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair(pair.Cert, pair.Key); err != nil {
		t.Fatal(err)
	}
	cert, err := ParseCertificate(pair.Cert)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kubernetes.default.svc", "10.43.0.1"} {
		for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			if _, err := cert.Verify(x509.VerifyOptions{Roots: a.Pool(), DNSName: name, CurrentTime: noon, KeyUsages: []x509.ExtKeyUsage{use}}); err != nil {
				t.Errorf("verify %s for use %v: %v", name, use, err)
			}
		}
	}
	other := open(t, t.TempDir(), noon)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: other.Pool(), CurrentTime: noon}); err == nil {
		t.Error("another cluster's CA vouches for our certificate")
	}
}

func TestDue(t *testing.T) {
	cert := &x509.Certificate{NotBefore: noon, NotAfter: noon.Add(30 * time.Hour)}
	for _, c := range []struct {
		name string
		now  time.Time
		due  bool
	}{
		{"a certificate of the future is due, since the clock went back", noon.Add(-time.Minute), true},
		{"a fresh certificate is not due", noon.Add(time.Hour), false},
		{"before two thirds it is not due", noon.Add(20*time.Hour - time.Second), false},
		{"at two thirds it is due", noon.Add(20 * time.Hour), true},
		{"an expired one is due", noon.Add(31 * time.Hour), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			due, reason := Due(c.now, cert)
			if due != c.due || due != (reason != "") {
				t.Fatalf("due %v because %q, want %v", due, reason, c.due)
			}
		})
	}
}

func TestEnsure(t *testing.T) {
	a := open(t, t.TempDir(), noon)
	r := Request{CommonName: "perch-server", DNS: []string{"localhost"}, Server: true}
	ensure := func(now time.Time, r Request) string {
		t.Helper()
		p, err := a.Ensure(now, "server", r)
		if err != nil {
			t.Fatal(err)
		}
		return string(p.Cert)
	}
	first := ensure(noon, r)
	if ensure(noon.Add(time.Hour), r) != first {
		t.Error("a fresh pair was issued again")
	}
	wider := r
	wider.IPs = []net.IP{net.IPv4(192, 0, 2, 7)}
	second := ensure(noon.Add(time.Hour), wider)
	if second == first {
		t.Error("a pair without the new address was kept")
	}
	third := ensure(noon.AddDate(0, 9, 0), wider)
	if third == second {
		t.Error("a pair past two thirds of its life was kept")
	}
	if err := os.WriteFile(a.KeyFile("server"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if ensure(noon.AddDate(0, 9, 0), wider) == third {
		t.Error("a pair with a torn key was kept")
	}
}

func TestFetchCA(t *testing.T) {
	now := time.Now()
	a := open(t, t.TempDir(), now)
	pair, err := a.Issue(now, Request{CommonName: "perch-server", Server: true})
	if err != nil {
		t.Fatal(err)
	}
	serve := func(certPEM []byte) string {
		cert, err := tls.X509KeyPair(certPEM, pair.Key)
		if err != nil {
			t.Fatal(err)
		}
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_ = c.(*tls.Conn).Handshake()
				c.Close()
			}
		}()
		return l.Addr().String()
	}
	address := serve(pair.Cert)
	got, err := FetchCA(t.Context(), address, a.Pin())
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(a.PEM()) {
		t.Error("the fetched CA is another one")
	}

	other := open(t, t.TempDir(), now)
	if _, err := FetchCA(t.Context(), address, other.Pin()); err == nil || !strings.Contains(err.Error(), a.Pin()) || !strings.Contains(err.Error(), other.Pin()) {
		t.Errorf("got %v, want an error that names both pins", err)
	}

	leaf, err := ParseCertificate(pair.Cert)
	if err != nil {
		t.Fatal(err)
	}
	// A stranger shows his own leaf and our public CA behind it.
	foreign, err := other.Issue(now, Request{CommonName: "perch-server", Server: true})
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := ParseCertificate(foreign.Cert)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pinned([]*x509.Certificate{stranger, a.Certificate()}, a.Pin()); err == nil || !strings.Contains(err.Error(), "does not vouch") {
		t.Errorf("got %v, want a refusal of a leaf that the CA did not sign", err)
	}
	if _, err := pinned([]*x509.Certificate{leaf}, a.Pin()); err == nil {
		t.Error("a chain without CA was accepted")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := FetchCA(ctx, address, a.Pin()); err == nil {
		t.Error("a cancelled fetch succeeded")
	}
}

func TestKubeconfigHasEverythingInside(t *testing.T) {
	text := string(Kubeconfig("https://127.0.0.1:6443", []byte("CA"), []byte("CERT"), []byte("KEY")))
	for _, want := range []string{`server: "https://127.0.0.1:6443"`, "certificate-authority-data: Q0E=", "client-certificate-data: Q0VSVA==", "client-key-data: S0VZ"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

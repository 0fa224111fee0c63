package interop

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/ingest/onward"
	"perch/logs/record"
	"perch/logs/store"
)

// certificate writes one for 127.0.0.1, which is its own authority. All
// certificates of one test are one.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	dir := filepath.Join(os.TempDir(), "perch-interop-"+strings.NewReplacer("/", "-", " ", "-").Replace(t.Name()))
	certFile, keyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	if exists(certFile) {
		return certFile, keyFile
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	cert, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// Lines go on to a server that perch did not write, over TLS, with a key.
func TestSendingOn(t *testing.T) {
	certFile, keyFile := certificate(t)
	cmd := node(t, "receive.mjs", "@fluent-org/logger", certFile, keyFile, "s3")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}()
	in := bufio.NewScanner(out)
	if !in.Scan() {
		t.Fatal("the receiver did not start")
	}

	s, err := store.Open(store.Default(t.TempDir()), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	var records []record.Record
	for i := range 500 {
		records = append(records, record.Record{Time: time.Now().UnixNano(), Stream: &record.Stream{Namespace: "shop", Pod: "web-1", Container: "c"}, Level: record.Warn, Body: fmt.Appendf(nil, "onward line %d", i)})
	}
	if err := s.Append(t.Context(), records, nil); err != nil {
		t.Fatal(err)
	}
	cfg := onward.Default("127.0.0.1:"+in.Text(), "n1")
	text, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Key, cfg.Lines, cfg.TLS = "s3", 100, &tls.Config{RootCAs: x509.NewCertPool()}
	cfg.TLS.RootCAs.AppendCertsFromPEM(text)
	o, err := onward.New(cfg, s, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	background(t, o.Run)
	seen := map[string]bool{}
	for len(seen) < 500 && in.Scan() {
		var got struct {
			Tag    string
			Record map[string]string
		}
		if err := json.Unmarshal(in.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if got.Tag != "perch.shop.web-1.c" || got.Record["level"] != "warn" || got.Record["pod"] != "web-1" || seen[got.Record["log"]] {
			t.Fatalf("%s", in.Text())
		}
		seen[got.Record["log"]] = true
	}
	if len(seen) != 500 {
		t.Fatalf("%d lines came", len(seen))
	}
}

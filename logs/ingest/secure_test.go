package ingest

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/fluent/fluent-logger-golang/fluent"
	"github.com/tinylib/msgp/msgp"

	"perch/logs/record"
)

// certificate is one for 127.0.0.1, and who believes in it.
func certificate(t *testing.T) (func() (*tls.Certificate, error), *x509.CertPool) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return func() (*tls.Certificate, error) { return &s.TLS.Certificates[0], nil }, pool
}

func nobody(netip.Addr) (record.Stream, bool, bool) { return record.Stream{}, false, false }

func TestOnePortTakesClearSendersAndTLS(t *testing.T) {
	m := &memory{}
	cert, pool := certificate(t)
	f := start(t, m, func(c *Config) { c.Certificate = cert }, nil)
	clear := dial(t, f)
	secret := tls.Client(dial(t, f), &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
	for id, c := range map[string]net.Conn{"a": clear, "b": secret} {
		if _, err := c.Write(packed(id, "text", false, anEntry(id, 0))); err != nil {
			t.Fatal(err)
		}
		if got := ack(t, c); got != id {
			t.Fatal(got)
		}
	}
	logger, err := fluent.New(fluent.Config{FluentNetwork: "tls", TlsInsecureSkipVerify: true, FluentHost: "127.0.0.1", FluentPort: f.Addr().(*net.TCPAddr).Port, RequestAck: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := logger.Post("app", map[string]string{"log": "c"}); err != nil {
		t.Fatal(err)
	}
	if err := logger.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(m.have()); n != 3 {
		t.Fatalf("%d lines stored", n)
	}
}

// greet shows a key and tells whether it was taken.
func greet(t *testing.T, c net.Conn, key string) bool {
	t.Helper()
	in := msgp.NewReader(c)
	helo, err := in.ReadIntf()
	if err != nil {
		t.Fatal(err)
	}
	nonce := helo.([]any)[1].(map[string]any)["nonce"].([]byte)
	ping := msgp.AppendArrayHeader(nil, 6)
	for _, s := range []string{"PING", "me", "salt", keyDigest([]byte("salt"), []byte("me"), nonce, key), "", ""} {
		ping = msgp.AppendString(ping, s)
	}
	if _, err := c.Write(ping); err != nil {
		t.Fatal(err)
	}
	pong, err := in.ReadIntf()
	if err != nil {
		t.Fatal(err)
	}
	return pong.([]any)[1] == true
}

func TestKeysAreShownOverTLSAndClearly(t *testing.T) {
	cert, pool := certificate(t)
	for _, c := range []struct {
		name          string
		only, secret  bool
		key           string
		greets, taken bool
	}{
		{name: "TLS, the right key", secret: true, key: "secret", greets: true, taken: true},
		{name: "TLS, a wrong key", secret: true, key: "wrong", greets: true},
		{name: "clear, the right key", key: "secret", greets: true, taken: true},
		{name: "clear where TLS must be used", only: true, key: "secret"},
		{name: "TLS where it must be used", only: true, secret: true, key: "secret", greets: true, taken: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &memory{}
			f := start(t, m, func(cfg *Config) {
				cfg.Certificate, cfg.OnlyTLS, cfg.Greeting = cert, c.only, 2*time.Second
				cfg.Keys = []Key{{Name: "edge", Secret: "secret", Namespace: "branch"}}
			}, nobody)
			conn := dial(t, f)
			if c.secret {
				conn = tls.Client(conn, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
				if err := conn.(*tls.Conn).Handshake(); err != nil {
					t.Fatal(err)
				}
			}
			if !c.greets {
				closed(t, conn)
				return
			}
			if got := greet(t, conn, c.key); got != c.taken {
				t.Fatalf("the key was taken: %t", got)
			}
			if !c.taken {
				closed(t, conn)
				return
			}
			if _, err := conn.Write(packed("k", "text", false, anEntry("hello", 0))); err != nil {
				t.Fatal(err)
			}
			if got := ack(t, conn); got != "k" || m.have()[0].Stream.Namespace != "branch" {
				t.Fatal(got, m.have())
			}
		})
	}
}

func TestWhoDoesNotGreetInTimeIsCutOff(t *testing.T) {
	cert, _ := certificate(t)
	limits := func(c *Config) {
		c.Certificate, c.Greeting, c.Keys = cert, 200*time.Millisecond, []Key{{Name: "edge", Secret: "secret"}}
	}
	for name, c := range map[string]struct {
		identify Identify
		says     string
	}{
		"a stranger that says nothing":             {nobody, ""},
		"a stranger that begins TLS and stops":     {nobody, "\x16\x03\x01"},
		"a stranger that says something else":      {nobody, "GET / HTTP/1.1\r\n\r\n"},
		"a neighbour that begins TLS and stops":    {nil, "\x16\x03\x01"},
		"a neighbour whose TLS is none":            {nil, "\x16GET / HTTP/1.1\r\n\r\n"},
		"a neighbour that says something else":     {nil, "GET / HTTP/1.1\r\n\r\n"},
		"a stranger with an entry instead of PING": {nobody, string(packed("k", "text", false, anEntry("hello", 0)))},
	} {
		t.Run(name, func(t *testing.T) {
			m := &memory{}
			conn := dial(t, start(t, m, limits, c.identify))
			if _, err := io.WriteString(conn, c.says); err != nil {
				t.Fatal(err)
			}
			var late net.Error
			if _, err := io.Copy(io.Discard, conn); errors.As(err, &late) && late.Timeout() {
				t.Fatal("the connection is still open")
			}
			if len(m.have()) != 0 {
				t.Fatal("lines were taken")
			}
		})
	}
}

package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	authorityLifetime = 10 * 365 * 24 * time.Hour
	leafLifetime      = 365 * 24 * time.Hour
	// backdate lets machines whose clocks are a little behind accept a fresh certificate.
	backdate = 5 * time.Minute
)

// Authority is the cluster's certificate authority.
type Authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Request names what a certificate is for.
type Request struct {
	CommonName    string
	Organizations []string
	DNS           []string
	IPs           []net.IP
	Server        bool          // may be shown by a server
	Client        bool          // may be shown by a client
	Lifetime      time.Duration // 0: one year
}

// Pair is a certificate with its private key, both PEM. A server's Cert holds
// the leaf followed by the CA, so that FetchCA can find the CA in the handshake.
type Pair struct {
	Cert, Key []byte
}

// Open loads the authority kept in dir, or creates it there.
func Open(dir string, now time.Time) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create pki directory: %w", err)
	}
	pair, err := load(dir, "ca")
	if errors.Is(err, fs.ErrNotExist) {
		return create(dir, now)
	}
	if err != nil {
		return nil, err
	}
	cert, err := ParseCertificate(pair.Cert)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", filepath.Join(dir, "ca.crt"), err)
	}
	key, err := parseKey(pair.Key)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", filepath.Join(dir, "ca.key"), err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("open CA in %s: ca.key does not belong to ca.crt", dir)
	}
	return &Authority{dir: dir, cert: cert, key: key}, nil
}

func create(dir string, now time.Time) (*Authority, error) {
	// A key without a certificate is left by a creation that was interrupted; it
	// signed nothing. A certificate without its key is a loss that must be seen.
	if _, err := os.Stat(filepath.Join(dir, "ca.crt")); err == nil {
		return nil, fmt.Errorf("open CA in %s: ca.crt exists but ca.key is missing", dir)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate CA key: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "perch-ca"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(authorityLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("create CA certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse CA certificate: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	if err := save(dir, "ca", Pair{Cert: EncodeCertificate(cert), Key: keyPEM}); err != nil {
		return nil, err
	}
	return &Authority{dir: dir, cert: cert, key: key}, nil
}

// Certificate is the authority's own certificate. It must not be changed.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// PEM is the authority's certificate in PEM, the content of ca.crt.
func (a *Authority) PEM() []byte { return EncodeCertificate(a.cert) }

// Pool holds the authority as the only root.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// CertFile and KeyFile are where Ensure keeps the pair of that name; the CA's
// own name is "ca".
func (a *Authority) CertFile(name string) string { return filepath.Join(a.dir, name+".crt") }

// KeyFile is the private key beside CertFile.
func (a *Authority) KeyFile(name string) string { return filepath.Join(a.dir, name+".key") }

// Issue makes a new key and a certificate for it. Nothing is written.
func (a *Authority) Issue(now time.Time, r Request) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("generate key for %s: %w", r.CommonName, err)
	}
	cert, err := a.Sign(now, r, key.Public())
	if err != nil {
		return Pair{}, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Cert: cert, Key: keyPEM}, nil
}

// Sign makes a certificate for somebody else's public key. The result is PEM:
// the leaf, and for servers the CA behind it.
func (a *Authority) Sign(now time.Time, r Request, public crypto.PublicKey) ([]byte, error) {
	if r.CommonName == "" {
		return nil, errors.New("sign certificate: the request has no common name")
	}
	if !r.Server && !r.Client {
		return nil, fmt.Errorf("sign certificate %s: neither server nor client use was requested", r.CommonName)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	lifetime := r.Lifetime
	if lifetime <= 0 {
		lifetime = leafLifetime
	}
	notAfter := now.Add(lifetime)
	if notAfter.After(a.cert.NotAfter) {
		notAfter = a.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: r.CommonName, Organization: r.Organizations},
		NotBefore:             now.Add(-backdate),
		NotAfter:              notAfter,
		DNSNames:              r.DNS,
		IPAddresses:           r.IPs,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           r.usages(),
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate %s: %w", r.CommonName, err)
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if r.Server {
		out = append(out, a.PEM()...)
	}
	return out, nil
}

func (r Request) usages() []x509.ExtKeyUsage {
	var out []x509.ExtKeyUsage
	if r.Server {
		out = append(out, x509.ExtKeyUsageServerAuth)
	}
	if r.Client {
		out = append(out, x509.ExtKeyUsageClientAuth)
	}
	return out
}

// Ensure returns the pair kept under name. It issues and writes a new one when
// there is none, when it no longer answers the request, or when it is due.
func (a *Authority) Ensure(now time.Time, name string, r Request) (Pair, error) {
	have, err := load(a.dir, name)
	if err == nil && a.usable(now, have, r) {
		return have, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Pair{}, err
	}
	pair, err := a.Issue(now, r)
	if err != nil {
		return Pair{}, err
	}
	return pair, save(a.dir, name, pair)
}

// usable reads a pair of our own directory; a pair that cannot be parsed is
// replaced, since it can be made again at any time.
func (a *Authority) usable(now time.Time, have Pair, want Request) bool {
	if _, err := tls.X509KeyPair(have.Cert, have.Key); err != nil {
		return false
	}
	cert, err := ParseCertificate(have.Cert)
	if err != nil || cert.CheckSignatureFrom(a.cert) != nil {
		return false
	}
	if due, _ := Due(now, cert); due {
		return false
	}
	return Answers(cert, want)
}

// Pin is the text by which a joining node recognises the authority.
func (a *Authority) Pin() string { return Pin(a.cert) }

// Pin is the SHA-256 of a certificate's DER form, 64 hexadecimal digits.
func Pin(ca *x509.Certificate) string {
	sum := sha256.Sum256(ca.Raw)
	return hex.EncodeToString(sum[:])
}

// SigningKey loads the key that signs ServiceAccount tokens from dir, or creates
// it. Tokens stay valid across restarts because the key does.
func SigningKey(dir string) (*ecdsa.PrivateKey, error) {
	path := filepath.Join(dir, "service-account.key")
	text, err := os.ReadFile(path)
	if err == nil {
		key, err := parseKey(text)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", path, err)
		}
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read token signing key: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate token signing key: %w", err)
	}
	text, err = encodeKey(key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create pki directory: %w", err)
	}
	return key, WriteFile(path, text)
}

func serialNumber() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, fmt.Errorf("draw serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

// Answers reports whether a certificate carries all that a request asks for.
func Answers(cert *x509.Certificate, want Request) bool {
	return cert.Subject.CommonName == want.CommonName &&
		slices.Equal(slices.Sorted(slices.Values(cert.Subject.Organization)), slices.Sorted(slices.Values(want.Organizations))) &&
		every(want.DNS, func(name string) bool { return slices.Contains(cert.DNSNames, name) }) &&
		every(want.IPs, func(ip net.IP) bool { return slices.ContainsFunc(cert.IPAddresses, ip.Equal) }) &&
		every(want.usages(), func(u x509.ExtKeyUsage) bool { return slices.Contains(cert.ExtKeyUsage, u) })
}

func every[T any](list []T, holds func(T) bool) bool {
	return !slices.ContainsFunc(list, func(v T) bool { return !holds(v) })
}

// EncodeCertificate is the certificate in PEM.
func EncodeCertificate(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

// ParseCertificate reads the first certificate of a PEM text.
func ParseCertificate(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(bytes.TrimSpace(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("no PEM block of type CERTIFICATE at its beginning")
	}
	return x509.ParseCertificate(block.Bytes)
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM block")
	}
	if block.Type == "EC PRIVATE KEY" {
		return x509.ParseECPrivateKey(block.Bytes)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key is a %T, want an ECDSA key", key)
	}
	return ec, nil
}

package pki

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

const joinPrefix = "perch1"

// Join is what a machine needs to become a node: how to recognise the cluster,
// and a credential that is good for one certificate.
type Join struct {
	Pin    string // of the CA, see Pin
	ID     string // six of a–z0–9, names the credential
	Secret string // sixteen of a–z0–9
}

// NewJoin draws a credential for the cluster whose CA has that pin.
func NewJoin(pin string) (Join, error) {
	id, err := draw(6)
	if err != nil {
		return Join{}, err
	}
	secret, err := draw(16)
	if err != nil {
		return Join{}, err
	}
	return Join{Pin: pin, ID: id, Secret: secret}, nil
}

// String is the token's text: perch1.<pin>.<id>.<secret>.
func (j Join) String() string {
	return strings.Join([]string{joinPrefix, j.Pin, j.ID, j.Secret}, ".")
}

// Bearer is the credential as the API server takes it in an Authorization header.
func (j Join) Bearer() string { return j.ID + "." + j.Secret }

// ParseJoin reads a join token. Its errors are sentences for the person who
// typed the token; none of them repeats the secret.
func ParseJoin(text string) (Join, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return Join{}, errors.New("the join token is empty; make one on a server with `perch node token`")
	}
	if looksLikeJWT(text) {
		return Join{}, errors.New("this is an admin bearer token (from `perch token`), not a join token; make one with `perch node token`")
	}
	parts := strings.Split(text, ".")
	if parts[0] != joinPrefix {
		if strings.HasPrefix(parts[0], "perch") && len(parts) == 4 {
			return Join{}, fmt.Errorf("the join token has version %.16q, this perch reads %q; make a token with the perch of the server you join", parts[0], joinPrefix)
		}
		return Join{}, fmt.Errorf("a join token begins with %q; make one on a server with `perch node token`", joinPrefix+".")
	}
	if len(parts) != 4 {
		return Join{}, fmt.Errorf("the join token has %d parts between dots, want 4; was it copied whole?", len(parts))
	}
	j := Join{Pin: parts[1], ID: parts[2], Secret: parts[3]}
	if len(j.Pin) != 64 || !madeOf(j.Pin, "0123456789abcdef") {
		return Join{}, errors.New("the join token's second part is not 64 hexadecimal digits; was it copied whole?")
	}
	if !ValidBootstrap(j.ID, j.Secret) {
		return Join{}, errors.New("the join token ends in something else than six and sixteen letters or digits; was it copied whole?")
	}
	return j, nil
}

// CheckBearer refuses a join token where a bearer token is asked for.
func CheckBearer(text string) error {
	text = strings.TrimSpace(text)
	if text == "" {
		return errors.New("the bearer token is empty; make one with `perch token`")
	}
	if strings.HasPrefix(text, joinPrefix+".") {
		return errors.New("this is a join token (from `perch node token`), not a bearer token; make one with `perch token`")
	}
	if id, secret, ok := strings.Cut(text, "."); ok && ValidBootstrap(id, secret) {
		return errors.New("this is the credential of a join token, not a bearer token; make one with `perch token`")
	}
	return nil
}

// ValidBootstrap reports whether the two halves have the form of a bootstrap credential.
func ValidBootstrap(id, secret string) bool {
	return len(id) == 6 && len(secret) == 16 && madeOf(id+secret, drawAlphabet)
}

func looksLikeJWT(text string) bool {
	return strings.HasPrefix(text, "ey") && strings.Count(text, ".") == 2
}

func madeOf(text, alphabet string) bool {
	for _, r := range text {
		if !strings.ContainsRune(alphabet, r) {
			return false
		}
	}
	return true
}

const drawAlphabet = "0123456789abcdefghijklmnopqrstuvwxyz"

// draw picks n characters with equal chances: bytes beyond the largest multiple
// of the alphabet's length are thrown away.
func draw(n int) (string, error) {
	limit := byte(256 - 256%len(drawAlphabet))
	out := make([]byte, 0, n)
	var buffer [32]byte
	for {
		if _, err := rand.Read(buffer[:]); err != nil {
			return "", fmt.Errorf("draw token: %w", err)
		}
		for _, b := range buffer {
			if b >= limit {
				continue
			}
			out = append(out, drawAlphabet[int(b)%len(drawAlphabet)])
			if len(out) == n {
				return string(out), nil
			}
		}
	}
}

// FetchCA asks the server at address (host:port) for its certificates and
// returns the CA in PEM, if it is the one with that pin and signed the server's
// certificate. Nothing else the server says is trusted.
func FetchCA(ctx context.Context, address, pin string) ([]byte, error) {
	dialer := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS12,
		// The chain is checked below against the pin, which is all we know yet.
		InsecureSkipVerify: true,
	}}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("fetch CA from %s: %w", address, err)
	}
	defer conn.Close()
	ca, err := pinned(conn.(*tls.Conn).ConnectionState().PeerCertificates, pin)
	if err != nil {
		return nil, fmt.Errorf("fetch CA from %s: %w", address, err)
	}
	return EncodeCertificate(ca), nil
}

// pinned finds the CA in a server's chain and proves that it vouches for the leaf.
func pinned(chain []*x509.Certificate, pin string) (*x509.Certificate, error) {
	if len(chain) == 0 {
		return nil, errors.New("the server showed no certificate")
	}
	var shown []string
	for _, cert := range chain[1:] {
		have := Pin(cert)
		shown = append(shown, have)
		if subtle.ConstantTimeCompare([]byte(have), []byte(pin)) != 1 {
			continue
		}
		roots, between := x509.NewCertPool(), x509.NewCertPool()
		roots.AddCert(cert)
		for _, c := range chain[1:] {
			between.AddCert(c)
		}
		if _, err := chain[0].Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: between,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}); err != nil {
			return nil, fmt.Errorf("the pinned CA does not vouch for the server's certificate: %w", err)
		}
		return cert, nil
	}
	if len(shown) == 0 {
		return nil, fmt.Errorf("the server showed its own certificate without a CA; want the CA with pin %s", pin)
	}
	return nil, fmt.Errorf("the server belongs to another cluster, or somebody is in between: its CA has pin %s, the token wants %s",
		strings.Join(shown, ", "), pin)
}

package ingest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

var errTLS = errors.New("TLS failed")

// tlsHello is the first byte of a TLS connection. No Forward message begins
// with it: they are arrays.
const tlsHello = 0x16

// helloWait is how long a sender that has to show a key may take to begin with
// TLS. One that speaks clearly waits for our HELO meanwhile.
const helloWait = 500 * time.Millisecond

// secure puts TLS under the reader if the sender begins with it. speaks says
// that the sender speaks first in any case.
func (f *Forward) secure(r *reader, speaks bool) (bool, error) {
	if f.cfg.Certificate == nil {
		return false, nil
	}
	if !speaks {
		wait := helloWait
		if f.cfg.OnlyTLS {
			wait = f.cfg.Greeting // nothing else is waited for
		}
		r.until = time.Now().Add(wait)
	}
	err := r.fill()
	r.until = time.Time{}
	if !speaks && errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	if err != nil || r.buf[0] != tlsHello {
		return false, err
	}
	c := tls.Server(&resumed{r.c, r.buf}, &tls.Config{MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.cfg.Certificate() }})
	if err := c.SetDeadline(time.Now().Add(f.cfg.Greeting)); err != nil {
		return false, err
	}
	if err := c.Handshake(); err != nil {
		return false, fmt.Errorf("%w: %w", errTLS, err)
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return false, err
	}
	r.c, r.buf, r.small, r.at = c, nil, nil, 0 // what was read belongs to resumed
	return true, nil
}

// resumed is a connection of which the first bytes were read already.
type resumed struct {
	net.Conn
	first []byte
}

func (r *resumed) Read(b []byte) (int, error) {
	if len(r.first) == 0 {
		return r.Conn.Read(b)
	}
	n := copy(b, r.first)
	r.first = r.first[n:]
	return n, nil
}

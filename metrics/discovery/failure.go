package discovery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"syscall"

	"perch/metrics/target"
)

var (
	errGuarded = errors.New("the address is guarded")
	errUnnamed = errors.New("the cluster has no such name")
)

// late is the only word for what takes too long: which step of it was the last may
// be another one each time.
const late = "there was no answer in time"

// unreached is why a connection was not made.
type unreached struct {
	to  string // an address that the object names, or words
	err error
}

// Error has the same text for the same cause: no port of this machine.
func (e *unreached) Error() string {
	var name *net.DNSError
	var number syscall.Errno
	switch {
	case errors.Is(e.err, errGuarded):
		return e.to + " is the machine that asks, which objects may not name"
	case errors.As(e.err, &name):
		return e.to + ": " + unnamed(name)
	case isLate(e.err):
		return late
	case errors.Is(e.err, errUnnamed):
		return e.to + ": " + errUnnamed.Error()
	case errors.As(e.err, &number):
		return e.to + ": " + number.Error()
	}
	return e.to + ": it cannot be connected"
}

// unnamed says why a name was not found. The library's text may have the address
// and port that asked in it.
func unnamed(err *net.DNSError) string {
	switch {
	case err.IsNotFound:
		return "no such host"
	case err.IsTimeout:
		return "the name was not answered for in time"
	case err.Err == "server misbehaving", err.Err == "lame referral":
		return err.Err
	case strings.Contains(err.Err, "refused"):
		return "the server of names refuses the connection"
	}
	return "the name cannot be asked for"
}

func isLate(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

// failure says in fixed words why a client has no answer. Its own words are those of
// who answered: a line that is no HTTP, where it redirects to, what a server of
// tokens complains of. What it says of them decides nothing but the words here.
func failure(ctx context.Context, err error) error {
	for u := (*url.Error)(nil); errors.As(err, &u); {
		err = u.Err
	}
	var where *unreached
	if ctx.Err() != nil || !errors.As(err, &where) && isLate(err) {
		return errors.New(late)
	}
	switch {
	case where != nil:
		return errors.New(where.Error())
	case errors.Is(err, errLong):
		return errLong
	}
	for _, why := range []string{target.NoToken(err), ofTLS(err), ofHTTP(err)} {
		if why != "" {
			return errors.New(why)
		}
	}
	return errors.New("it cannot be asked")
}

func ofTLS(err error) string {
	var (
		certificate *tls.CertificateVerificationError
		signer      x509.UnknownAuthorityError
		other       x509.HostnameError
		invalid     x509.CertificateInvalidError
		head        tls.RecordHeaderError
		op          *net.OpError
	)
	switch {
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &head):
		return "it does not speak TLS"
	case errors.As(err, &signer):
		return "its certificate is signed by an authority that is not known"
	case errors.As(err, &other):
		return "its certificate is for another name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate has expired or does not hold yet"
	case errors.As(err, &certificate):
		return "its certificate is not good"
	case errors.As(err, &op) && op.Op == "remote error": // an alert, one of a list
		return "it refuses TLS: " + op.Err.Error()
	case strings.HasPrefix(err.Error(), "tls: "):
		return "it speaks TLS in another way"
	}
	return ""
}

func ofHTTP(err error) string {
	var protocol textproto.ProtocolError
	text := err.Error()
	switch {
	case text == "stopped after 10 redirects":
		return "it redirects more than 10 times"
	case strings.HasPrefix(text, "failed to parse Location"), strings.HasPrefix(text, "unsupported protocol scheme"):
		return "it redirects to what is no http or https URL"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "it ends the connection without an answer"
	case errors.As(err, &protocol), strings.Contains(text, "malformed HTTP"), strings.HasPrefix(text, "net/http: HTTP/1.x transport connection broken"):
		return "it does not speak HTTP"
	}
	for code := http.StatusMultipleChoices; code < 600; code++ {
		if text == http.StatusText(code) && text != "" { // all that the library tells of it
			return fmt.Sprintf("the proxy answers with status %d", code)
		}
	}
	return ""
}

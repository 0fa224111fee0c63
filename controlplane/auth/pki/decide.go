package pki

import (
	"crypto/x509"
	"fmt"
	"time"
)

// Due decides whether a certificate should be replaced: when two thirds of its
// life are over, which leaves a third for the replacement to succeed.
func Due(now time.Time, cert *x509.Certificate) (due bool, reason string) {
	if now.Before(cert.NotBefore) {
		return true, fmt.Sprintf("certificate %s is not valid before %s", cert.Subject.CommonName, cert.NotBefore.Format(time.RFC3339))
	}
	if !now.Before(cert.NotAfter) {
		return true, fmt.Sprintf("certificate %s expired at %s", cert.Subject.CommonName, cert.NotAfter.Format(time.RFC3339))
	}
	if at := DueAt(cert); !now.Before(at) {
		return true, fmt.Sprintf("two thirds of the life of certificate %s ended at %s", cert.Subject.CommonName, at.Format(time.RFC3339))
	}
	return false, ""
}

// DueAt is the moment at which two thirds of a certificate's life are over.
func DueAt(cert *x509.Certificate) time.Time {
	return cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) / 3 * 2)
}

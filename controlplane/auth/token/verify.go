package token

import (
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Verifier knows what an issuer has signed. It asks nobody, so whether all that a
// token names is still there it does not know: the API server does.
type Verifier struct {
	url    string
	public *ecdsa.PublicKey
	now    func() time.Time
}

// NewVerifier knows tokens signed in the name of url by the key that public is of.
func NewVerifier(url string, public *ecdsa.PublicKey) *Verifier {
	return &Verifier{url: url, public: public, now: time.Now}
}

// Signed tells whether text is a ServiceAccount token of this issuer whose time has
// not ended. Of one that is not, the API server says that nobody has it.
func (v *Verifier) Signed(text string) bool {
	_, _, ours, err := v.read(text, v.now())
	return ours && err == nil
}

// read takes a token apart. A text that is not one of ours is nobody's fault: another
// authenticator may know it.
func (v *Verifier) read(text string, now time.Time) (public jwt.Claims, private privateClaims, ours bool, err error) {
	if !v.isOurs(text) {
		return public, private, false, nil
	}
	parsed, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return public, private, false, nil // not a JWT after all
	}
	if err := parsed.Claims(v.public, &public, &private); err != nil {
		return public, private, true, fmt.Errorf("check signature of a serviceaccount token: %w", err)
	}
	if err := public.ValidateWithLeeway(jwt.Expected{Issuer: v.url, Time: now}, time.Minute/6); err != nil {
		return public, private, true, fmt.Errorf("check serviceaccount token of %s: %w", public.Subject, err)
	}
	return public, private, true, nil
}

// isOurs looks at the issuer before anything is verified, so that tokens of
// others cost nothing and are left to others.
func (v *Verifier) isOurs(text string) bool {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return false
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	return json.Unmarshal(payload, &claims) == nil && claims.Issuer == v.url
}

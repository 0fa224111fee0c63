package token

import (
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
)

func TestAVerifierKnowsWhatWasSignedHereAndStillCounts(t *testing.T) {
	_, issuer := world(t)
	_, other := world(t)
	good, foreign := request(t, issuer, authenticationv1.TokenRequestSpec{}), request(t, other, authenticationv1.TokenRequestSpec{})
	parts := strings.Split(good, ".")
	at := noon
	v := NewVerifier(URL("cluster.local"), issuer.public)
	v.now = func() time.Time { return at }
	for text, want := range map[string]bool{
		good: true, foreign: false, parts[0] + "." + parts[1] + ".": false, parts[0] + "." + parts[1] + "." + strings.Split(foreign, ".")[2]: false,
		"": false, "..": false, "abcdef.0123456789abcdef": false, strings.Repeat("x", 100): false,
	} {
		if got := v.Signed(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	if v := NewVerifier(URL("elsewhere"), issuer.public); v.Signed(good) {
		t.Error("a token of another issuer is known")
	}
	if at = noon.Add(2 * time.Hour); v.Signed(good) {
		t.Error("a token is known after its end")
	}
}

package token

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/fake"
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

func TestFewJoinTokensAreLookedUpAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBootstrap(fake.NewClientset())
		answer := make(chan struct{})
		var now, all atomic.Int64
		b.secret = func(context.Context, string) (*corev1.Secret, error) {
			now.Add(1)
			defer now.Add(-1)
			all.Add(1)
			<-answer
			return nil, nil
		}
		var callers sync.WaitGroup
		ask := func(ctx context.Context, i int, wantErr bool) {
			callers.Go(func() {
				if _, ok, err := b.AuthenticateToken(ctx, fmt.Sprintf("abc%03d.0123456789abcdef", i)); ok || (err != nil) != wantErr {
					t.Errorf("%v, %v", ok, err)
				}
			})
		}
		for i := range 100 {
			ask(t.Context(), i, false)
		}
		synctest.Wait()
		if n := now.Load(); n != maxAsking {
			t.Errorf("%d are looked up at once", n)
		}
		leaving, leave := context.WithCancel(t.Context())
		ask(leaving, 100, true)
		synctest.Wait()
		leave()
		synctest.Wait()
		close(answer)
		callers.Wait()
		if n := all.Load(); n != 100 {
			t.Errorf("%d were looked up", n)
		}
	})
}

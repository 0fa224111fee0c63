package token

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func world(t *testing.T) (*fake.Clientset, *Issuer) {
	t.Helper()
	client := fake.NewClientset(
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart", UID: "sa1"}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "other", UID: "sa2"}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart-0", UID: "p1"}, Spec: corev1.PodSpec{ServiceAccountName: "cart", NodeName: "n1"}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "node1"}},
	)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// The informers never start: every look-up takes the way around the cache.
	issuer, err := NewIssuer(URL("cluster.local"), key, Cached(informers.NewSharedInformerFactory(client, 0), client))
	if err != nil {
		t.Fatal(err)
	}
	issuer.now = func() time.Time { return noon }
	return client, issuer
}

func request(t *testing.T, i *Issuer, spec authenticationv1.TokenRequestSpec) string {
	t.Helper()
	answer, err := i.Request(t.Context(), "shop", "cart", &authenticationv1.TokenRequest{Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Status.Token
}

func TestTokenIsIssuedAndRecognised(t *testing.T) {
	_, issuer := world(t)
	text := request(t, issuer, authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "cart-0", UID: "p1"}})
	answer, ok, err := issuer.AuthenticateToken(t.Context(), text)
	if err != nil || !ok {
		t.Fatalf("ok %v, %v", ok, err)
	}
	if got := answer.User.GetName(); got != "system:serviceaccount:shop:cart" {
		t.Errorf("user is %s", got)
	}
	for key, want := range map[string]string{
		serviceaccount.PodNameKey: "cart-0", serviceaccount.PodUIDKey: "p1",
		serviceaccount.NodeNameKey: "n1", serviceaccount.NodeUIDKey: "node1",
	} {
		if got := answer.User.GetExtra()[key]; len(got) != 1 || got[0] != want {
			t.Errorf("extra %s is %v, want %s", key, got, want)
		}
	}
	parsed, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := parsed.UnsafeClaimsWithoutVerification(&claims); err != nil {
		t.Fatal(err)
	}
	inside := claims["kubernetes.io"].(map[string]any)
	if inside["namespace"] != "shop" || inside["pod"].(map[string]any)["uid"] != "p1" || inside["serviceaccount"].(map[string]any)["uid"] != "sa1" {
		t.Errorf("claims are %v", inside)
	}
	if parsed.Headers[0].KeyID != issuer.keyID {
		t.Errorf("kid is %q", parsed.Headers[0].KeyID)
	}
}

func TestTokenEndsWithWhatItIsBoundTo(t *testing.T) {
	boundToPod := authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "cart-0", UID: "p1"}}
	for _, c := range []struct {
		name    string
		spec    authenticationv1.TokenRequestSpec
		change  func(ctx context.Context, t *testing.T, c *fake.Clientset, i *Issuer)
		problem string
	}{
		{"an untouched token is good", boundToPod, func(context.Context, *testing.T, *fake.Clientset, *Issuer) {}, ""},
		{"after an hour it is expired", boundToPod, func(_ context.Context, _ *testing.T, _ *fake.Clientset, i *Issuer) {
			i.now = func() time.Time { return noon.Add(61 * time.Minute) }
		}, "expired"},
		{"a deleted pod takes its token along", boundToPod, func(ctx context.Context, t *testing.T, c *fake.Clientset, _ *Issuer) {
			must(t, c.CoreV1().Pods("shop").Delete(ctx, "cart-0", metav1.DeleteOptions{}))
		}, "pod cart-0 does not exist"},
		{"a new pod of the same name does not inherit it", boundToPod, func(ctx context.Context, t *testing.T, c *fake.Clientset, _ *Issuer) {
			must(t, c.CoreV1().Pods("shop").Delete(ctx, "cart-0", metav1.DeleteOptions{}))
			_, err := c.CoreV1().Pods("shop").Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "cart-0", Namespace: "shop", UID: "p2"}}, metav1.CreateOptions{})
			must(t, err)
		}, "replaced"},
		{"a deleted account takes its tokens along", authenticationv1.TokenRequestSpec{}, func(ctx context.Context, t *testing.T, c *fake.Clientset, _ *Issuer) {
			must(t, c.CoreV1().ServiceAccounts("shop").Delete(ctx, "cart", metav1.DeleteOptions{}))
		}, "serviceaccount cart does not exist"},
		{"a token for somebody else does not open the API", authenticationv1.TokenRequestSpec{Audiences: []string{"vault"}}, func(context.Context, *testing.T, *fake.Clientset, *Issuer) {}, "meant for"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, issuer := world(t)
			text := request(t, issuer, c.spec)
			c.change(t.Context(), t, client, issuer)
			_, ok, err := issuer.AuthenticateToken(t.Context(), text)
			if (c.problem == "") != ok || c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)) {
				t.Fatalf("ok %v, %v; want %q", ok, err, c.problem)
			}
		})
	}
}

func TestTokenForAnAudienceIsGoodThere(t *testing.T) {
	_, issuer := world(t)
	text := request(t, issuer, authenticationv1.TokenRequestSpec{Audiences: []string{"vault", "mail"}})
	ctx := authenticator.WithAudiences(t.Context(), authenticator.Audiences{"vault"})
	answer, ok, err := issuer.AuthenticateToken(ctx, text)
	if err != nil || !ok || len(answer.Audiences) != 1 || answer.Audiences[0] != "vault" {
		t.Fatalf("%v %v %v", answer, ok, err)
	}
}

func TestForgedTokenIsRefused(t *testing.T) {
	_, mine := world(t)
	_, foreign := world(t)
	text := request(t, foreign, authenticationv1.TokenRequestSpec{})
	if _, ok, err := mine.AuthenticateToken(t.Context(), text); ok || err == nil || !strings.Contains(err.Error(), "signature") {
		t.Fatalf("ok %v, %v", ok, err)
	}
	for _, text := range []string{"", "abc", "a.b.c", "abc123.0123456789abcdef"} {
		if _, ok, err := mine.AuthenticateToken(t.Context(), text); ok || err != nil {
			t.Errorf("%q: ok %v, %v; want no opinion", text, ok, err)
		}
	}
}

func TestRequestIsChecked(t *testing.T) {
	_, issuer := world(t)
	short := int64(60)
	for _, c := range []struct {
		name    string
		account string
		spec    authenticationv1.TokenRequestSpec
		is      func(error) bool
	}{
		{"an unknown account is not found", "nobody", authenticationv1.TokenRequestSpec{}, apierrors.IsNotFound},
		{"a minute is too short", "cart", authenticationv1.TokenRequestSpec{ExpirationSeconds: &short}, apierrors.IsBadRequest},
		{"a pod of another account cannot be bound", "other", authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "cart-0"}}, apierrors.IsBadRequest},
		{"an old uid conflicts", "cart", authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "cart-0", UID: "p0"}}, apierrors.IsConflict},
		{"a deployment cannot be bound", "cart", authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "x"}}, apierrors.IsBadRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := issuer.Request(t.Context(), "shop", c.account, &authenticationv1.TokenRequest{Spec: c.spec}); !c.is(err) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestPublishedKeyVerifiesTokens(t *testing.T) {
	_, issuer := world(t)
	text := request(t, issuer, authenticationv1.TokenRequestSpec{})
	w := httptest.NewRecorder()
	issuer.Keys().ServeHTTP(w, httptest.NewRequest(http.MethodGet, KeysPath, nil))
	var set jose.JSONWebKeySet
	must(t, json.Unmarshal(w.Body.Bytes(), &set))
	if strings.Contains(w.Body.String(), `"d":`) {
		t.Fatal("the private key is published")
	}
	parsed, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.ES256})
	must(t, err)
	var claims jwt.Claims
	must(t, parsed.Claims(set.Key(parsed.Headers[0].KeyID)[0].Key, &claims))

	w = httptest.NewRecorder()
	issuer.Configuration("https://192.0.2.1:6443").ServeHTTP(w, httptest.NewRequest(http.MethodGet, ConfigurationPath, nil))
	if !strings.Contains(w.Body.String(), `"jwks_uri":"https://192.0.2.1:6443/openid/v1/jwks"`) {
		t.Errorf("configuration is %s", w.Body)
	}
}

func TestJoinTokenIsGoodForOneNode(t *testing.T) {
	client := fake.NewClientset()
	ctx := t.Context()
	now := noon
	b := NewBootstrap(client)
	b.now = func() time.Time { return now }
	join, err := CreateJoin(ctx, client, strings.Repeat("0a", 32), now, time.Hour)
	must(t, err)

	answer, ok, err := b.AuthenticateToken(ctx, join.Bearer())
	if err != nil || !ok || answer.User.GetName() != "system:bootstrap:"+join.ID {
		t.Fatalf("%v %v %v", answer, ok, err)
	}
	if groups := answer.User.GetGroups(); len(groups) != 2 || groups[1] != JoinGroup {
		t.Fatalf("groups %v", groups)
	}
	if _, ok, err := b.AuthenticateToken(ctx, join.ID+".0000000000000000"); ok || err != nil {
		t.Fatalf("a wrong secret: %v %v", ok, err)
	}
	must(t, ClaimJoin(ctx, client, join.ID, "w1", "key1", now))
	must(t, ClaimJoin(ctx, client, join.ID, "w1", "key1", now)) // the signer was restarted in between
	if err := ClaimJoin(ctx, client, join.ID, "w2", "key2", now); !errors.Is(err, ErrClaimed) || !strings.Contains(err.Error(), "node w1 has it") {
		t.Fatalf("second node: %v", err)
	}
	sweep := func() {
		t.Helper()
		list, err := Joins(ctx, client)
		must(t, err)
		for _, s := range list {
			spend, remove, _ := Spent(now, &s)
			if spend {
				must(t, SpendJoin(ctx, client, now, &s))
			}
			if remove {
				must(t, DeleteJoin(ctx, client, join.ID))
			}
		}
	}
	sweep()
	if _, ok, _ := b.AuthenticateToken(ctx, join.Bearer()); !ok {
		t.Fatal("the node cannot read its certificate any more")
	}
	now = now.Add(2 * time.Minute)
	sweep()
	if _, ok, _ := b.AuthenticateToken(ctx, join.Bearer()); ok {
		t.Fatal("a spent token was accepted")
	}
	if got := explain(b, join.Bearer()); !strings.Contains(got, "was used before, by node w1") {
		t.Errorf("explained as %s", got)
	}
	if got := explain(b, join.ID+".0000000000000000"); got != "next" {
		t.Errorf("who guesses learns %s", got)
	}
	if got := explain(b, join.String()); !strings.Contains(got, "this is a join token") {
		t.Errorf("explained as %s", got)
	}
	now = now.Add(26 * time.Hour)
	sweep()
	if list, _ := Joins(ctx, client); len(list) != 0 {
		t.Errorf("%d tokens are left", len(list))
	}
}

func TestExpiredJoinToken(t *testing.T) {
	client := fake.NewClientset()
	b := NewBootstrap(client)
	b.now = func() time.Time { return noon.Add(2 * time.Hour) }
	join, err := CreateJoin(t.Context(), client, strings.Repeat("0a", 32), noon, time.Hour)
	must(t, err)
	if _, ok, err := b.AuthenticateToken(t.Context(), join.Bearer()); ok || err != nil {
		t.Fatalf("%v %v", ok, err)
	}
	if got := explain(b, join.Bearer()); !strings.Contains(got, "expired at 2026-11-21T13:00:00Z") {
		t.Errorf("explained as %s", got)
	}
}

func TestBootstrapSecretCannotMakeAnAdmin(t *testing.T) {
	secret := &corev1.Secret{Type: secretType, Data: map[string][]byte{
		"token-id": []byte("abc123"), "token-secret": []byte("0123456789abcdef"), "usage-bootstrap-authentication": []byte("true"),
		"auth-extra-groups": []byte("system:masters, system:bootstrappers:perch"),
	}}
	groups, v, _ := judge(noon, secret, "abc123", "0123456789abcdef")
	if v != good || strings.Join(groups, " ") != "system:bootstrappers system:bootstrappers:perch" {
		t.Fatalf("%v %v", v, groups)
	}
}

func explain(b *Bootstrap, bearer string) string {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/api", nil)
	r.Header.Set("Authorization", "Bearer "+bearer)
	b.Explain(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("next")) })).ServeHTTP(w, r)
	return w.Body.String()
}

func FuzzAuthenticateToken(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	client := fake.NewClientset()
	issuer, err := NewIssuer(URL("cluster.local"), key, Cached(informers.NewSharedInformerFactory(client, 0), client))
	if err != nil {
		f.Fatal(err)
	}
	bootstrap := NewBootstrap(client)
	f.Add("eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2t1YmVybmV0ZXMuZGVmYXVsdC5zdmMuY2x1c3Rlci5sb2NhbCJ9.")
	f.Add("abc123.0123456789abcdef")
	f.Fuzz(func(t *testing.T, text string) {
		if _, ok, _ := issuer.AuthenticateToken(t.Context(), text); ok {
			t.Fatal("the issuer accepted", text)
		}
		if _, ok, _ := bootstrap.AuthenticateToken(t.Context(), text); ok {
			t.Fatal("bootstrap accepted", text)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

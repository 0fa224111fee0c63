package auth

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"perch/controlplane/auth/node"
	"perch/controlplane/auth/pki"
	"perch/controlplane/auth/rbac"
	"perch/controlplane/auth/token"
)

type door struct {
	client    *fake.Clientset
	authority *pki.Authority
	issuer    *token.Issuer
	authn     authenticator.Request
}

func open(t *testing.T) door {
	t.Helper()
	dir := t.TempDir()
	authority, err := pki.Open(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.SigningKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart", UID: "sa1"}})
	issuer, err := token.NewIssuer(token.URL("cluster.local"), key, token.Cached(informers.NewSharedInformerFactory(client, 0), client))
	if err != nil {
		t.Fatal(err)
	}
	verify := func() (x509.VerifyOptions, bool) {
		return x509.VerifyOptions{Roots: authority.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, true
	}
	return door{client, authority, issuer, Authenticator(verify, issuer, token.NewBootstrap(client))}
}

func (d door) withCert(t *testing.T, authority *pki.Authority, cn string, orgs ...string) *http.Request {
	t.Helper()
	pair, err := authority.Issue(time.Now(), pki.Request{CommonName: cn, Organizations: orgs, Client: true})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.ParseCertificate(pair.Cert)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/api", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	return r
}

func withBearer(path, text string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if text != "" {
		r.Header.Set("Authorization", "Bearer "+text)
	}
	return r
}

func TestAuthenticator(t *testing.T) {
	d := open(t)
	ctx := t.Context()
	answer, err := d.issuer.Request(ctx, "shop", "cart", &authenticationv1.TokenRequest{})
	if err != nil {
		t.Fatal(err)
	}
	join, err := token.CreateJoin(ctx, d.client, d.authority.Pin(), time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.Open(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		r     *http.Request
		user  string
		group string
	}{
		{"a certificate of the CA", d.withCert(t, d.authority, "alice", "devs"), "alice", "devs"},
		{"a certificate of another CA", d.withCert(t, other, "alice", "devs"), "", ""},
		{"a serviceaccount token", withBearer("/api", answer.Status.Token), "system:serviceaccount:shop:cart", "system:serviceaccounts:shop"},
		{"a serviceaccount token with one letter changed", withBearer("/api", answer.Status.Token[:len(answer.Status.Token)-6]+"AAAAAA"), "", ""},
		{"the credential of a join token", withBearer("/api", join.Bearer()), "system:bootstrap:" + join.ID, token.JoinGroup},
		{"a whole join token is no bearer token", withBearer("/api", join.String()), "", ""},
		{"nobody on a health path", withBearer("/readyz", ""), "system:anonymous", user.AllUnauthenticated},
		{"nobody elsewhere", withBearer("/api", ""), "", ""},
		{"a bad token is not anonymous, even there", withBearer("/readyz", "garbage"), "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok, err := d.authn.AuthenticateRequest(c.r)
			if ok != (c.user != "") {
				t.Fatalf("ok %v, %v", ok, err)
			}
			if !ok {
				return
			}
			if got.User.GetName() != c.user || !slices.Contains(got.User.GetGroups(), c.group) {
				t.Fatalf("%s %v", got.User.GetName(), got.User.GetGroups())
			}
			if known := slices.Contains(got.User.GetGroups(), user.AllAuthenticated); known == (c.user == user.Anonymous) {
				t.Errorf("groups %v", got.User.GetGroups())
			}
		})
	}
}

func TestReviewForAnotherAudience(t *testing.T) {
	d := open(t)
	answer, err := d.issuer.Request(t.Context(), "shop", "cart", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"vault"}}})
	if err != nil {
		t.Fatal(err)
	}
	r := withBearer("/", answer.Status.Token)
	if _, ok, _ := d.authn.AuthenticateRequest(r); ok {
		t.Error("a token for vault opened the API")
	}
	r = withBearer("/", answer.Status.Token)
	r = r.WithContext(authenticator.WithAudiences(t.Context(), authenticator.Audiences{"vault"}))
	got, ok, err := d.authn.AuthenticateRequest(r)
	if err != nil || !ok || !slices.Equal(got.Audiences, []string{"vault"}) {
		t.Errorf("%v %v %v", got, ok, err)
	}
}

func TestAuthorizerOrder(t *testing.T) {
	f := informers.NewSharedInformerFactory(fake.NewClientset(), 0)
	roles, err := rbac.New(f)
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := node.New(f)
	if err != nil {
		t.Fatal(err)
	}
	a, err := Authorizer(nodes, roles)
	if err != nil {
		t.Fatal(err)
	}
	someone := func(name string, groups ...string) user.Info { return &user.DefaultInfo{Name: name, Groups: groups} }
	for _, c := range []struct {
		name  string
		a     authorizer.AttributesRecord
		allow bool
	}{
		{"health is open", authorizer.AttributesRecord{User: someone("system:anonymous"), Verb: "get", Path: "/readyz/etcd"}, true},
		{"the rest is not", authorizer.AttributesRecord{User: someone("system:anonymous"), Verb: "get", Path: "/metrics"}, false},
		{"masters do all", authorizer.AttributesRecord{User: someone("root", "system:masters"), Verb: "delete", Resource: "nodes", Name: "n1", ResourceRequest: true}, true},
		{"a node reads services", authorizer.AttributesRecord{User: someone("system:node:n1", "system:nodes"), Verb: "list", Resource: "services", ResourceRequest: true}, true},
		{"a node is told why not", authorizer.AttributesRecord{User: someone("system:node:n1", "system:nodes"), Verb: "list", Resource: "secrets", ResourceRequest: true}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, reason, err := a.Authorize(t.Context(), c.a)
			if err != nil || (d == authorizer.DecisionAllow) != c.allow {
				t.Fatalf("%v %s %v", d, reason, err)
			}
			if c.a.Resource == "secrets" && !strings.Contains(reason, "one by one") {
				t.Errorf("reason is %q", reason)
			}
		})
	}
}

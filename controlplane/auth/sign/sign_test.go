package sign

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"perch/controlplane/auth/pki"
	"perch/controlplane/auth/token"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

type ask struct {
	signer, user, cn string
	groups, orgs     []string
	dns              []string
	ips              []net.IP
	usages           []certificatesv1.KeyUsage
}

func (a ask) csr(t *testing.T, name string) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: a.cn, Organization: a.orgs}, DNSNames: a.dns, IPAddresses: a.ips,
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: "u", CreationTimestamp: metav1.NewTime(noon)},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: a.signer, Username: a.user, Groups: a.groups, Usages: a.usages,
		},
	}
}

func clientAsk(user string, groups ...string) ask {
	return ask{
		signer: certificatesv1.KubeAPIServerClientKubeletSignerName, user: user, groups: groups, cn: "system:node:w1", orgs: []string{"system:nodes"},
		usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature},
	}
}

func servingAsk(user string) ask {
	a := clientAsk(user, "system:nodes")
	a.signer, a.usages = certificatesv1.KubeletServingSignerName, []certificatesv1.KeyUsage{certificatesv1.UsageServerAuth}
	a.dns, a.ips = []string{"w1"}, []net.IP{net.IPv4(192, 0, 2, 7)}
	return a
}

func worker(address string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "w1"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}}}}
}

func alive(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}
}

func TestDecide(t *testing.T) {
	bootstrap := clientAsk("system:bootstrap:abc123", token.JoinGroup)
	others := []*corev1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "s1"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Address: "192.0.2.1"}}}}}
	reserved := map[string]string{"10.43.0.1": "the API"}
	with := func(a ask, change func(*ask)) ask { change(&a); return a }
	for _, c := range []struct {
		name   string
		ask    ask
		node   *corev1.Node
		want   Act
		reason string
	}{
		{"a join token buys a node's certificate", bootstrap, nil, Approve, "joined with token abc123"},
		{"but not that of a node that is alive", bootstrap, alive("w1"), Deny, "exists and is ready"},
		{"a machine may come back under the name of a dead node", bootstrap, worker("192.0.2.7"), Approve, "joined with token abc123"},
		{"a bootstrap user of another group waits for a person", clientAsk("system:bootstrap:abc123", "system:bootstrappers"), nil, Leave, ""},
		{"a node renews its own", clientAsk("system:node:w1", "system:nodes"), nil, Approve, "renews"},
		{"not another's", clientAsk("system:node:w2", "system:nodes"), nil, Deny, "node w2 asked for the certificate of node w1"},
		{"an admin's group is not for sale", with(bootstrap, func(a *ask) { a.orgs = []string{"system:nodes", "system:masters"} }), nil, Deny, "one organization"},
		{"nor another name", with(bootstrap, func(a *ask) { a.cn = "admin" }), nil, Deny, "common name"},
		{"nor server use", with(bootstrap, func(a *ask) { a.usages = append(a.usages, certificatesv1.UsageServerAuth) }), nil, Deny, "spec.usages has"},
		{"nor names", with(bootstrap, func(a *ask) { a.dns = []string{"kubernetes"} }), nil, Deny, "no names"},
		{"a server's certificate with own address", servingAsk("system:node:w1"), worker("192.0.2.7"), Approve, "its own names"},
		{"a joining machine has no Node yet", servingAsk("system:node:w1"), nil, Approve, "its own names"},
		{"but not with another node's address", with(servingAsk("system:node:w1"), func(a *ask) { a.ips = []net.IP{net.IPv4(192, 0, 2, 1)} }), nil, Deny, "belongs to node s1"},
		{"nor the API's", with(servingAsk("system:node:w1"), func(a *ask) { a.ips = []net.IP{net.IPv4(10, 43, 0, 1)} }), nil, Deny, "belongs to the API"},
		{"nor everybody's", with(servingAsk("system:node:w1"), func(a *ask) { a.ips = []net.IP{net.IPv4(127, 0, 0, 1)} }), nil, Deny, "nobody's own"},
		{"an address of somebody else", servingAsk("system:node:w1"), worker("192.0.2.8"), Deny, "not in its status"},
		{"a name of somebody else", with(servingAsk("system:node:w1"), func(a *ask) { a.dns = []string{"kubernetes.default.svc"} }), worker("192.0.2.7"), Deny, "not its own"},
		{"a server's certificate for another node", servingAsk("system:node:w2"), worker("192.0.2.7"), Deny, "node w2 asked"},
		{"a join token does not buy a server's certificate", with(servingAsk("system:bootstrap:abc123"), func(a *ask) { a.groups = []string{token.JoinGroup} }), worker("192.0.2.7"), Leave, ""},
		{"a person's certificate waits for a person", ask{
			signer: certificatesv1.KubeAPIServerClientSignerName, user: "alice", cn: "alice", usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
		}, nil, Leave, ""},
		{"signers of others are left to them", ask{signer: "example.org/x", cn: "x"}, nil, Leave, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Decide(noon, c.ask.csr(t, "r"), Facts{Node: c.node, Longest: time.Hour, Taken: Taken("w1", others, reserved)})
			if got.Act != c.want || !strings.Contains(got.Reason, c.reason) {
				t.Fatalf("got %v because %q", got.Act, got.Reason)
			}
		})
	}
	broken := bootstrap.csr(t, "r")
	broken.Spec.Request = []byte("no PEM")
	if got := Decide(noon, broken, Facts{}); got.Act != Deny {
		t.Errorf("broken request: %v", got)
	}
	old := bootstrap.csr(t, "r")
	if got := Decide(noon.Add(25*time.Hour), old, Facts{}); got.Act != Forget {
		t.Errorf("old request: %v", got)
	}
}

func TestNodeJoinsOnce(t *testing.T) {
	now := time.Now()
	authority, err := pki.Open(t.TempDir(), now)
	if err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset()
	ctx, cancel := context.WithCancel(t.Context())
	join, err := token.CreateJoin(ctx, client, authority.Pin(), now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	f := informers.NewSharedInformerFactory(client, 0)
	c := New(Default(), client, f, authority, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	f.Start(ctx.Done())
	f.WaitForCacheSync(ctx.Done())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()

	requests := client.CertificatesV1().CertificateSigningRequests()
	post := func(name string) {
		t.Helper()
		csr := clientAsk("system:bootstrap:"+join.ID, token.JoinGroup).csr(t, name)
		csr.CreationTimestamp = metav1.NewTime(now)
		if _, err := requests.Create(ctx, csr, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	get := func(name string) *certificatesv1.CertificateSigningRequest {
		csr, err := requests.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return csr
	}
	post("first")
	eventually(t, "the first machine has its certificate", func() bool { return len(get("first").Status.Certificate) > 0 })
	cert, err := pki.ParseCertificate(get("first").Status.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: authority.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if cert.Subject.CommonName != "system:node:w1" || len(cert.Subject.Organization) != 1 || cert.Subject.Organization[0] != "system:nodes" {
		t.Errorf("subject is %s", cert.Subject)
	}
	post("second") // another machine, the same token, even the same node name
	eventually(t, "the second machine is refused", func() bool { return is(get("second"), certificatesv1.CertificateDenied) })
	if got := get("second").Status.Conditions[0].Message; !strings.Contains(got, "used before: node w1 has it; make another") {
		t.Errorf("reason is %s", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatal("never happened:", what)
		case <-tick.C:
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		csr := &certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{Request: text, SignerName: certificatesv1.KubeletServingSignerName}}
		if d := Decide(time.Time{}, csr, Facts{}); d.Act == Approve || d.Act == Sign {
			t.Fatalf("%q gets %v", text, d)
		}
	})
}

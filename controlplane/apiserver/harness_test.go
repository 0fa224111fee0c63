package apiserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	x509request "k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"

	"perch/controlplane/store"
)

// One server serves all tests of this package; each test has its own namespace.
type world struct {
	server *Server
	store  *store.Store
	config *restclient.Config // an administrator over HTTPS, JSON
	client kubernetes.Interface
	dyn    dynamic.Interface
	agent  *httptest.Server // stands in for the kubelet API of every node
	mu     sync.Mutex
	asked  []string // what the agent was asked for
	warned *warnings

	accepted atomic.Int64 // connections
}

// warnings collects Warning headers.
type warnings struct {
	mu  sync.Mutex
	all []string
}

func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, text)
}

func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.all
	w.all = nil
	return out
}

var shared *world //nolint:gochecknoglobals // one server per test binary

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "perch-apiserver")
	if err != nil {
		panic(err)
	}
	w, stop, err := start(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	shared = w
	code := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop:", err)
		code = 1
	}
	_ = os.RemoveAll(dir) // a leftover in the temporary directory is harmless
	os.Exit(code)
}

// counted counts connections, and gives them out as something else than TCP's.
type counted struct {
	net.Listener
	accepted *atomic.Int64
}

func (c *counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.accepted.Add(1)
	return struct{ net.Conn }{conn}, nil
}

func start(dir string) (*world, func() error, error) {
	ca, err := newCA(dir)
	if err != nil {
		return nil, nil, err
	}
	if err := ca.issue("server", nil); err != nil {
		return nil, nil, err
	}
	if err := ca.issue("admin", []string{"system:masters"}); err != nil {
		return nil, nil, err
	}
	if err := ca.issue("nobody", nil); err != nil {
		return nil, nil, err
	}
	log := slog.New(slog.DiscardHandler)
	sc := store.Default()
	sc.Dir, sc.UnsafeNoSync = filepath.Join(dir, "etcd"), true
	objects, err := store.Open(sc, log, prometheus.NewRegistry())
	if err != nil {
		return nil, nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	address := l.Addr().String()
	_ = l.Close() // only to learn a free port
	w := &world{store: objects, warned: &warnings{}}
	w.agent = httptest.NewTLSServer(http.HandlerFunc(w.answer))
	agentCA := x509.NewCertPool()
	agentCA.AddCert(w.agent.Certificate())

	cfg := Default()
	cfg.Listen, cfg.Advertise = address, "192.0.2.10"
	cfg.ClientCA, cfg.ServingCert, cfg.ServingKey = filepath.Join(dir, "ca.crt"), filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	cfg.SecretsKey = filepath.Join(dir, "secrets.key")
	cfg.Bound = func(l net.Listener) net.Listener { return &counted{l, &w.accepted} }
	w.server, err = New(cfg, Collaborators{
		Authenticator: func(p Parts) (authenticator.Request, error) {
			return group.NewAuthenticatedGroupAdder(x509request.NewDynamic(p.VerifyClient, x509request.CommonNameUserConversion)), nil
		},
		Front: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") == "Bearer spent" {
					http.Error(rw, "this was spent", http.StatusUnauthorized)
					return
				}
				next.ServeHTTP(rw, r)
			})
		},
		Authorizer: func(Parts) (authorizer.Authorizer, authorizer.RuleResolver, error) {
			return authorizerfactory.NewPrivilegedGroups("system:masters"), nil, nil
		},
		Kubelet: &tls.Config{RootCAs: agentCA, MinVersion: tls.VersionTLS12},
	}, objects, log, prometheus.NewRegistry())
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- w.server.Run(ctx)
		cancel() // ends the wait below when the server ended by itself
	}()
	if !waitReady(ctx, w.server.Client()) {
		cancel()
		return nil, nil, <-done
	}
	w.config = ca.config(address, "admin")
	w.config.WarningHandler = w.warned
	w.client = kubernetes.NewForConfigOrDie(w.config)
	w.dyn = dynamic.NewForConfigOrDie(w.config)
	return w, func() error {
		cancel()
		err := <-done
		w.agent.Close()
		return errors.Join(err, objects.Close(context.Background()))
	}, nil
}

func (w *world) answer(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	w.asked = append(w.asked, r.URL.String())
	w.mu.Unlock()
	if w.stream(rw, r) {
		return
	}
	_, _ = fmt.Fprintf(rw, "agent %s\n", r.URL.Path)
}

// namespace makes a namespace for one test.
func namespace(t *testing.T) string {
	t.Helper()
	n, err := shared.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "t-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return n.Name
}

// eventually asks until the answer is yes or two minutes have passed.
func eventually(t *testing.T, what string, ask func() bool) {
	t.Helper()
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ask() {
		select {
		case <-deadline.C:
			t.Fatalf("not within two minutes: %s", what)
		case <-tick.C:
		}
	}
}

type testCA struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	last int64
}

func newCA(dir string) (*testCA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	ca := &testCA{dir: dir, cert: cert, key: key, last: 1}
	return ca, ca.write("ca", der, key)
}

func (ca *testCA) issue(name string, groups []string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca.last++
	c := &x509.Certificate{
		SerialNumber: big.NewInt(ca.last), Subject: pkix.Name{CommonName: name, Organization: groups},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, ca.cert, key.Public(), ca.key)
	if err != nil {
		return err
	}
	return ca.write(name, der, key)
}

func (ca *testCA) write(name string, der []byte, key *ecdsa.PrivateKey) error {
	b, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(ca.dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: b}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(ca.dir, name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
}

func (ca *testCA) config(address, user string) *restclient.Config {
	return &restclient.Config{Host: "https://" + address, QPS: -1, TLSClientConfig: restclient.TLSClientConfig{
		CAFile: filepath.Join(ca.dir, "ca.crt"), CertFile: filepath.Join(ca.dir, user+".crt"), KeyFile: filepath.Join(ca.dir, user+".key"),
	}}
}

func (w *world) agentPort() int32 {
	_, port, err := net.SplitHostPort(w.agent.Listener.Addr().String())
	if err != nil {
		panic(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		panic(err)
	}
	return int32(n)
}

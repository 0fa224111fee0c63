package daemon

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"perch/cmd/perch/daemon/config"
	"perch/controlplane/auth/pki"
	"perch/controlplane/auth/rbac"
)

// kubeletClient is the API server towards the nodes.
const kubeletClient = "perch-apiserver"

// certificates are the key pairs of a server's machine by file name in D/pki.
func certificates(cfg config.Config) map[string]pki.Request {
	self := cfg.AdvertiseAddress.AsSlice()
	names := []string{"localhost", cfg.NodeName, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + cfg.ClusterDomain}
	ips := []net.IP{net.IPv4(127, 0, 0, 1), self, cfg.ServiceIP(1).AsSlice()}
	for _, n := range cfg.TLSNames {
		if ip := net.ParseIP(n); ip != nil {
			ips = append(ips, ip)
		} else {
			names = append(names, n)
		}
	}
	node := "system:node:" + cfg.NodeName
	return map[string]pki.Request{
		"server":         {CommonName: "perch-server", DNS: names, IPs: ips, Server: true},
		"admin":          {CommonName: "admin", Organizations: []string{"system:masters"}, Client: true},
		"kubelet-client": {CommonName: kubeletClient, Organizations: []string{"system:masters"}, Client: true},
		"telemetry":      {CommonName: rbac.TelemetryUser, Client: true},
		"peer":           {CommonName: "perch-peer", DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1), self}, Server: true, Client: true},
		"node":           {CommonName: node, Organizations: []string{"system:nodes"}, Client: true},
		"node-serving":   {CommonName: node, Organizations: []string{"system:nodes"}, DNS: []string{cfg.NodeName}, IPs: []net.IP{net.IPv4(127, 0, 0, 1), self}, Server: true},
	}
}

// prepareIdentity makes sure that every certificate and kubeconfig of this
// machine exists and is not due.
func prepareIdentity(_ context.Context, cfg config.Config) error {
	if cfg.Kind == config.Agent {
		for _, name := range []string{"node", "node-serving"} {
			if _, err := os.Stat(cfg.Path("pki", name+".crt")); err != nil {
				return fmt.Errorf("this machine has not joined a cluster: run `perch agent --server … --token …`, the token from `perch node token` on a server (%w)", err)
			}
		}
		return nil
	}
	ca, err := pki.Open(cfg.Path("pki"), time.Now())
	if err != nil {
		return err
	}
	if _, err := pki.SigningKey(cfg.Path("pki")); err != nil {
		return err
	}
	if err := ca.EnsureAll(time.Now(), certificates(cfg)); err != nil {
		return err
	}
	if err := pki.WriteFile(cfg.Path("ca.crt"), ca.PEM()); err != nil {
		return fmt.Errorf("write ca.crt: %w", err)
	}
	for path, name := range map[string]string{cfg.Path("kubeconfig"): "admin", cfg.Path("pki", "telemetry.kubeconfig"): "telemetry", cfg.Path("pki", "node.kubeconfig"): "node"} {
		if err := writeKubeconfig(cfg, path, name); err != nil {
			return err
		}
	}
	return nil
}

func writeKubeconfig(cfg config.Config, path, name string) error {
	var parts [3][]byte
	for i, file := range []string{cfg.Path("ca.crt"), cfg.Path("pki", name+".crt"), cfg.Path("pki", name+".key")} {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("write kubeconfig: %w", err)
		}
		parts[i] = text
	}
	server := cfg.APIServer()
	if name == "admin" { // this one travels
		server = adminURL(cfg)
	}
	if err := pki.WriteFile(path, pki.Kubeconfig(server, parts[0], parts[1], parts[2])); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}

// adminURL is the API as other machines reach it.
func adminURL(cfg config.Config) string {
	return fmt.Sprintf("https://%s:%d", cfg.AdvertiseAddress, cfg.APIPort)
}

// joinLimit is how long a machine waits for its certificates.
const joinLimit = 60 * time.Second

// join gets a worker's certificates with a one-use token. A machine that has
// them already needs no token.
func join(ctx context.Context, cfg config.Config, text string) error {
	for _, dir := range []string{"", "pki"} {
		if err := os.MkdirAll(cfg.Path(dir), 0o700); err != nil {
			return refused{fmt.Errorf("make data directory: %w", err)}
		}
	}
	if _, err := os.Stat(cfg.Path("pki", "node-serving.crt")); err == nil {
		return nil
	}
	if text == "" {
		return refused{errors.New("--token: this machine has not joined yet; give the token that `perch node token` prints on a server")}
	}
	token, err := pki.ParseJoin(text)
	if err != nil {
		return refused{fmt.Errorf("--token: %w", err)}
	}
	ctx, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	host, err := hostOf(cfg.Server)
	if err != nil {
		return refused{err}
	}
	ca, err := pki.FetchCA(ctx, host, token.Pin)
	if err != nil {
		return refused{err}
	}
	if err := pki.WriteFile(cfg.Path("ca.crt"), ca); err != nil {
		return fmt.Errorf("write ca.crt: %w", err)
	}
	user := "system:node:" + cfg.NodeName
	if _, err := os.Stat(cfg.Path("pki", "node.crt")); err != nil { // an interrupted join has spent its token already
		asToken := &rest.Config{Host: cfg.Server, BearerToken: token.Bearer(), TLSClientConfig: rest.TLSClientConfig{CAData: ca}}
		if err := request(ctx, cfg, asToken, "node", certificatesv1.KubeAPIServerClientKubeletSignerName, x509.CertificateRequest{
			Subject: pkix.Name{CommonName: user, Organization: []string{"system:nodes"}}}); err != nil {
			return err
		}
	}
	asNode := &rest.Config{Host: cfg.Server, TLSClientConfig: rest.TLSClientConfig{CAData: ca, CertFile: cfg.Path("pki", "node.crt"), KeyFile: cfg.Path("pki", "node.key")}}
	if err := request(ctx, cfg, asNode, "node-serving", certificatesv1.KubeletServingSignerName, x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: user, Organization: []string{"system:nodes"}},
		DNSNames: []string{cfg.NodeName}, IPAddresses: []net.IP{cfg.AdvertiseAddress.AsSlice()}}); err != nil {
		return err
	}
	return writeKubeconfig(cfg, cfg.Path("pki", "node.kubeconfig"), "node")
}

// request asks the API for a certificate and keeps it as D/pki/<name>.
func request(ctx context.Context, cfg config.Config, as *rest.Config, name, signer string, want x509.CertificateRequest) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &want, key)
	if err != nil {
		return fmt.Errorf("make certificate request: %w", err)
	}
	client, err := kubernetes.NewForConfig(as)
	if err != nil {
		return refused{fmt.Errorf("reach %s: %w", cfg.Server, err)}
	}
	usages := []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}
	if signer == certificatesv1.KubeletServingSignerName {
		usages[1] = certificatesv1.UsageServerAuth
	}
	api := client.CertificatesV1().CertificateSigningRequests()
	asked, err := api.Create(ctx, &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "node-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: signer, Usages: usages,
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})}}, metav1.CreateOptions{})
	if err != nil {
		return refused{fmt.Errorf("join %s: %w", cfg.Server, err)}
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := api.Get(ctx, asked.Name, metav1.GetOptions{})
		if err == nil && len(got.Status.Certificate) > 0 {
			return keepPair(cfg, name, got.Status.Certificate, key)
		}
		if err == nil {
			for _, c := range got.Status.Conditions {
				if c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed {
					return refused{fmt.Errorf("join %s: the server refused: %s", cfg.Server, c.Message)}
				}
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("join %s: no certificate within %s (%v)", cfg.Server, joinLimit, err)
		case <-tick.C:
		}
	}
}

func keepPair(cfg config.Config, name string, cert []byte, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	if err := pki.WriteFile(cfg.Path("pki", name+".key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})); err != nil {
		return fmt.Errorf("keep key: %w", err)
	}
	if err := pki.WriteFile(cfg.Path("pki", name+".crt"), cert); err != nil {
		return fmt.Errorf("keep certificate: %w", err)
	}
	return nil
}

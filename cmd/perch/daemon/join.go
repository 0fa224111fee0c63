package daemon

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"perch/cmd/perch/daemon/config"
	"perch/cmd/perch/daemon/preflight"
	"perch/controlplane/auth/pki"
	"perch/controlplane/auth/rbac"
)

const (
	joinLimit  = 60 * time.Second // for the certificates, once there is a token
	tokenLimit = 5 * time.Minute  // for a token to appear in --token-file
	learnLimit = 3 * time.Second  // for news of the cluster, when the old ones are known
)

// spent is the refusal of a token that another token may overcome.
type spent struct{ error }

// tokens gives the token to try next. refusal is nil at first, later why the
// token before was not taken.
type tokens func(ctx context.Context, refusal error) (pki.Join, error)

// givenToken is one that was typed: there is no second.
func givenToken(text string) tokens {
	return func(_ context.Context, refusal error) (pki.Join, error) {
		if refusal != nil {
			return pki.Join{}, refused{refusal}
		}
		if text == "" {
			return pki.Join{}, refused{errors.New("--token: this machine has not joined yet; give the token that `perch node token` prints on a server")}
		}
		j, err := pki.ParseJoin(text)
		if err != nil {
			return j, refused{fmt.Errorf("--token: %w", err)}
		}
		return j, nil
	}
}

// fileToken waits for a token in a file that `perch server --join-token-file`
// writes. When another machine was faster it waits for the next one.
func fileToken(path string, progress io.Writer) tokens {
	tried := ""
	return func(ctx context.Context, refusal error) (pki.Join, error) {
		ctx, cancel := context.WithTimeout(ctx, tokenLimit)
		defer cancel()
		if refusal != nil {
			fmt.Fprintf(progress, "  waiting for another token in %s: %v\n", path, refusal)
		} else if _, err := os.Stat(path); err != nil {
			fmt.Fprintf(progress, "  waiting for a token in %s\n", path)
		}
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			text, err := os.ReadFile(path)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return pki.Join{}, refused{fmt.Errorf("--token-file: %w", err)}
			}
			if now := strings.TrimSpace(string(text)); now != "" && now != tried {
				j, err := pki.ParseJoin(now)
				if err != nil {
					return j, refused{fmt.Errorf("--token-file %s: %w", path, err)}
				}
				tried = now
				return j, nil
			}
			select {
			case <-ctx.Done():
				if refusal != nil {
					return pki.Join{}, fmt.Errorf("--token-file %s: no other token came within %s: %w", path, tokenLimit, refusal)
				}
				return pki.Join{}, fmt.Errorf("--token-file %s: no token came within %s; write one with `perch server --join-token-file`", path, tokenLimit)
			case <-tick.C:
			}
		}
	}
}

// join makes this machine a node of a cluster, or, when it is one already,
// renews what is due and asks what changed. It returns the configuration with
// what the cluster said, saved. A join that fails leaves nothing behind.
func join(ctx context.Context, cfg config.Config, next tokens) (_ config.Config, failed error) {
	host, err := hostOf(cfg.Server)
	if err != nil {
		return cfg, refused{err}
	}
	cfg.Server = "https://" + host
	if _, err := os.Stat(cfg.Path("pki", "node.crt")); err != nil {
		created := firstMissing(cfg.DataDir)
		defer func() {
			if _, err := os.Stat(cfg.Path("pki", "node.crt")); err == nil || failed == nil {
				return // the token is spent: keep what it bought
			}
			if created != "" {
				failed = errors.Join(failed, os.RemoveAll(created))
				return
			}
			_ = os.Remove(cfg.Path("lock")) // it locks nothing any more
		}()
		// What would stop the node must not cost the token.
		if err := look(cfg); err != nil {
			return cfg, err
		}
		if err := joinFirst(ctx, cfg, host, next); err != nil {
			return cfg, err
		}
	}
	return settle(ctx, cfg)
}

// firstMissing is the topmost directory of a path that does not exist.
func firstMissing(path string) (out string) {
	for ; path != "/" && path != "."; path = filepath.Dir(path) {
		if _, err := os.Stat(path); err == nil {
			break
		}
		out = path
	}
	return out
}

func look(cfg config.Config) error {
	if err := preflight.Host(cfg.DataDir); err != nil {
		return refused{err}
	}
	// Its networks are not known yet.
	if _, err := preflight.Room(preflight.Networks{Cluster: cfg.Name}, cfg.Ports()); err != nil {
		return refused{err}
	}
	lock, err := preflight.TakeLock(cfg.DataDir)
	if err != nil {
		return refused{err}
	}
	return lock.Close()
}

// joinFirst spends a token for the node's client certificate.
func joinFirst(ctx context.Context, cfg config.Config, host string, next tokens) error {
	var refusal error
	for {
		token, err := next(ctx, refusal)
		if err != nil {
			return err
		}
		err = joinWith(ctx, cfg, host, token)
		if again := (spent{}); errors.As(err, &again) {
			refusal = again.error
			continue
		}
		return err
	}
}

func joinWith(ctx context.Context, cfg config.Config, host string, token pki.Join) error {
	ctx, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	ca, err := pki.FetchCA(ctx, host, token.Pin)
	var unreachable *net.OpError
	switch {
	case errors.As(err, &unreachable) && unreachable.Op == "dial":
		return fmt.Errorf("join %s: %w: is the server running, and is this its address?", cfg.Server, unreachable)
	case err != nil:
		return refused{fmt.Errorf("join %s: %w", cfg.Server, err)}
	}
	as := &rest.Config{Host: cfg.Server, BearerToken: token.Bearer(), TLSClientConfig: rest.TLSClientConfig{CAData: ca}}
	pair, err := request(ctx, cfg, as, certificatesv1.KubeAPIServerClientKubeletSignerName, x509.CertificateRequest{Subject: subject(cfg)})
	if err != nil {
		return err
	}
	if err := pki.WriteFile(cfg.Path("ca.crt"), ca); err != nil {
		return fmt.Errorf("write ca.crt: %w", err)
	}
	return pair.keep(cfg, "node")
}

func subject(cfg config.Config) pkix.Name {
	return pkix.Name{CommonName: "system:node:" + cfg.NodeName, Organization: []string{"system:nodes"}}
}

// settle gets, as the node, what else the machine needs: its certificates as
// long as they are good, its kubeconfig, and how the cluster is set up. Where
// all of it is there, an API that does not answer is no obstacle.
func settle(ctx context.Context, cfg config.Config) (config.Config, error) {
	reach := joinLimit
	serving, err := readCertificate(cfg.Path("pki", "node-serving.crt"))
	complete := err == nil && covers(serving, cfg.AdvertiseAddress) && cfg.Web != ""
	if complete {
		reach = learnLimit
	}
	ctx, cancel := context.WithTimeout(ctx, reach)
	defer cancel()
	as := &rest.Config{Host: cfg.Server, Timeout: reach,
		TLSClientConfig: nodeTLS(cfg)}
	own, err := readCertificate(cfg.Path("pki", "node.crt"))
	if err != nil {
		return cfg, refused{err}
	}
	if name := strings.TrimPrefix(own.Subject.CommonName, "system:node:"); name != cfg.NodeName {
		return cfg, refused{fmt.Errorf("--node-name %s: %s belongs to node %s; leave the name, or join with another --data-dir", cfg.NodeName, cfg.DataDir, name)}
	}
	if due, _ := pki.Due(time.Now(), own); due {
		if err := renew(ctx, cfg, as, "node", certificatesv1.KubeAPIServerClientKubeletSignerName, x509.CertificateRequest{Subject: subject(cfg)}); err != nil && time.Now().After(own.NotAfter) {
			return cfg, refused{fmt.Errorf("the node's certificate ended at %s and was not renewed (%w): join again with a new token and another --data-dir", own.NotAfter.Format(time.RFC3339), err)}
		}
	}
	due := !complete
	if !due {
		due, _ = pki.Due(time.Now(), serving)
	}
	if due {
		if err := renew(ctx, cfg, as, "node-serving", certificatesv1.KubeletServingSignerName, x509.CertificateRequest{Subject: subject(cfg),
			DNSNames: []string{cfg.NodeName}, IPAddresses: []net.IP{cfg.AdvertiseAddress.AsSlice()}}); err != nil && !complete {
			return cfg, err
		}
	}
	if now, err := learn(ctx, cfg, as, complete); err == nil {
		cfg = now
	} else if !complete {
		return cfg, err
	}
	if err := writeKubeconfig(cfg, cfg.Path("pki", "node.kubeconfig"), "node"); err != nil {
		return cfg, err
	}
	return cfg, cfg.Save()
}

func readCertificate(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	cert, err := pki.ParseCertificate(text)
	if err != nil {
		return nil, fmt.Errorf("read certificate %s: %w", path, err)
	}
	return cert, nil
}

func covers(cert *x509.Certificate, a netip.Addr) bool {
	return slices.ContainsFunc(cert.IPAddresses, net.IP(a.AsSlice()).Equal)
}

// learn asks how the cluster is set up: where samples go and which networks
// pods and Services use. Unless once is set it asks until ctx ends, since a
// server that just started may not have written it yet.
func learn(ctx context.Context, cfg config.Config, as *rest.Config, once bool) (config.Config, error) {
	client, err := kubernetes.NewForConfig(as)
	if err != nil {
		return cfg, refused{fmt.Errorf("reach %s: %w", cfg.Server, err)}
	}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, rbac.ClusterConfigMap, metav1.GetOptions{})
		if err == nil {
			return told(cfg, got.Data)
		}
		if once {
			return cfg, err
		}
		select {
		case <-ctx.Done():
			return cfg, fmt.Errorf("join %s: the server does not tell how its cluster is set up: %w", cfg.Server, err)
		case <-tick.C:
		}
	}
}

// told puts what the cluster says of itself into the configuration.
func told(cfg config.Config, say map[string]string) (config.Config, error) {
	cluster, err := netip.ParsePrefix(say["clusterCIDR"])
	services, err2 := netip.ParsePrefix(say["serviceCIDR"])
	if err := errors.Join(err, err2); err != nil {
		return cfg, refused{fmt.Errorf("read ConfigMap %s: %w", rbac.ClusterConfigMap, err)}
	}
	cfg.ClusterCIDR, cfg.ServiceCIDR, cfg.ClusterDomain, cfg.Web = cluster, services, say["clusterDomain"], say["web"]
	if cfg.ClusterDomain == "" || cfg.Web == "" {
		return cfg, refused{fmt.Errorf("read ConfigMap %s: clusterDomain or web is missing", rbac.ClusterConfigMap)}
	}
	return cfg, nil
}

// keyPair is a certificate in PEM and its key.
type keyPair struct {
	cert []byte
	key  *ecdsa.PrivateKey
}

func renew(ctx context.Context, cfg config.Config, as *rest.Config, name, signer string, want x509.CertificateRequest) error {
	pair, err := request(ctx, cfg, as, signer, want)
	if err != nil {
		return err
	}
	return pair.keep(cfg, name)
}

// request asks the API for a certificate.
func request(ctx context.Context, cfg config.Config, as *rest.Config, signer string, want x509.CertificateRequest) (keyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return keyPair{}, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &want, key)
	if err != nil {
		return keyPair{}, fmt.Errorf("make certificate request: %w", err)
	}
	client, err := kubernetes.NewForConfig(as)
	if err != nil {
		return keyPair{}, refused{fmt.Errorf("reach %s: %w", cfg.Server, err)}
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
	switch {
	case apierrors.IsUnauthorized(err):
		return keyPair{}, spent{fmt.Errorf("join %s: %s", cfg.Server, whyUnauthorized(err))}
	case err != nil:
		return keyPair{}, refused{fmt.Errorf("join %s: %w", cfg.Server, err)}
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := api.Get(ctx, asked.Name, metav1.GetOptions{})
		if err == nil && len(got.Status.Certificate) > 0 {
			return keyPair{got.Status.Certificate, key}, nil
		}
		if err == nil {
			for _, c := range got.Status.Conditions {
				if c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed {
					return keyPair{}, spent{fmt.Errorf("join %s: the server refused: %s", cfg.Server, c.Message)}
				}
			}
		}
		select {
		case <-ctx.Done():
			return keyPair{}, fmt.Errorf("join %s: no certificate within %s: %w", cfg.Server, joinLimit, cmp.Or(err, ctx.Err()))
		case <-tick.C:
		}
	}
}

// whyUnauthorized is the server's reason, or all that the plain answer can mean.
func whyUnauthorized(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Message != "Unauthorized" {
		return status.Status().Message
	}
	return "the server does not take this token: it was used before (one token is good for one machine), has expired, or was removed; make another with `perch node token`"
}

func (p keyPair) keep(cfg config.Config, name string) error {
	if err := os.MkdirAll(cfg.Path("pki"), 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(p.key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	if err := pki.WriteFile(cfg.Path("pki", name+".key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})); err != nil {
		return fmt.Errorf("keep key: %w", err)
	}
	if err := pki.WriteFile(cfg.Path("pki", name+".crt"), p.cert); err != nil {
		return fmt.Errorf("keep certificate: %w", err)
	}
	return nil
}

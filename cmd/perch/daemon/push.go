package daemon

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"

	"perch/cmd/perch/daemon/config"
	"perch/cmd/perch/daemon/door"
	"perch/controlplane/auth/token"
	"perch/logs/ingest"
	"perch/logs/ingest/onward"
	"perch/logs/ingest/push"
	"perch/logs/record"
)

// servePushes opens the ways by which lines come in over the web door.
func (l *lines) servePushes(r role, web *door.Door, pods corelisters.PodLister) error {
	limits := push.Default()
	p, err := push.New(limits, push.Parts{Identify: pushers(r.cfg, pods), Sink: l.outside, Seen: l.seen, Sources: l.sources}, r.part("push"), r.reg)
	if err != nil {
		return err
	}
	// A sender whose bodies come slowly must not hold up the others.
	turns := door.NewTurns("push", door.Limit{All: limits.MaxRequests, Each: limits.MaxRequests / 3, Wait: limits.Patience, Exchange: 2 * limits.Arrival}, r.reg)
	elastic := turns.Limit(p.Elastic(), func(req *http.Request) bool { return req.Method == http.MethodGet || req.Method == http.MethodHead })
	web.Handle("POST /loki/api/v1/push", door.Push("/loki/api/v1/push"), turns.Limit(p.Loki(), nil))
	web.Handle("POST /otlp/v1/logs", door.Push("/otlp/v1/logs"), turns.Limit(p.OTLP(), nil))
	web.Handle("POST /v1/logs", door.Push("/v1/logs"), turns.Limit(p.OTLP(), nil))
	web.Handle("POST /logs/api/v1/push", door.Push("/logs/api/v1/push"), turns.Limit(p.Lines(), nil))
	web.Handle("/elastic/", door.Push("/elastic"), http.StripPrefix("/elastic", elastic))
	for _, path := range []string{"/_bulk", "/_license", "/_cluster/health", "/_cat/health"} { // of shippers that take no prefix
		web.Handle(path, door.Push("/elastic"), elastic)
	}
	return nil
}

// pushers tells whose the lines are that come over the web door: of the
// namespace the caller chose and may write to, else of the pod at the source
// address, else of the service account's namespace, else of no namespace.
func pushers(cfg config.Config, pods corelisters.PodLister) func(*http.Request) (push.Caller, error) {
	return func(req *http.Request) (push.Caller, error) {
		u := door.UserOf(req.Context())
		s := record.Stream{Namespace: record.HostNamespace, Node: cfg.NodeName}
		if into := door.Into(req.Context()); into != "" {
			s.Namespace = into
			return push.Caller{Stream: s, Name: "user " + u.Name}, nil
		}
		if from, err := netip.ParseAddrPort(req.RemoteAddr); err == nil && cfg.ClusterCIDR.Contains(from.Addr().Unmap()) {
			if p := podAt(pods, from.Addr().Unmap()); p != nil {
				return push.Caller{Stream: record.Stream{Namespace: p.Namespace, Pod: p.Name, UID: string(p.UID), Node: p.Spec.NodeName}, Name: "pod " + string(p.UID)}, nil
			}
		}
		ns, name, ok := door.ServiceAccount(u)
		admin := ns == metav1.NamespaceSystem && name == token.AdminAccount // a person with `perch token`
		if ok && !admin {
			s.Namespace = ns
		}
		return push.Caller{Stream: s, Name: "user " + u.Name}, nil
	}
}

// podAt is the pod that has an address of its own, nil if none has it.
func podAt(pods corelisters.PodLister, a netip.Addr) *corev1.Pod {
	for _, p := range all(pods.List) {
		ended := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed // its address may be another's
		if !ended && !p.Spec.HostNetwork && p.Status.PodIP == a.String() {
			return p
		}
	}
	return nil
}

// forwardDoor is the Forward door with its keys and its certificate: the given
// one, else that of this machine.
func forwardDoor(c config.Config) (ingest.Config, error) {
	out := ingest.Default(net.JoinHostPort("", strconv.Itoa(c.ForwardPort)), c.NodeName)
	var err error
	if out.Keys, err = forwardKeys(c.ForwardKeys); err != nil {
		return out, err
	}
	name := "node-serving"
	if c.Kind == config.Server {
		name = "server" // has the names of --tls-san too
	}
	cert, key := cmp.Or(c.ForwardTLSCert, c.Path("pki", name+".crt")), cmp.Or(c.ForwardTLSKey, c.Path("pki", name+".key"))
	out.Certificate, out.OnlyTLS = reloading(cert, key), c.ForwardTLSOnly
	if _, err := out.Certificate(); err != nil {
		return out, fmt.Errorf("open forward door: %w", err)
	}
	return out, nil
}

// forwardKeys reads lines of "NAME SECRET [NAMESPACE]"; # begins a comment.
func forwardKeys(path string) ([]ingest.Key, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read --forward-keys: %w", err)
	}
	var out []ingest.Key
	in := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; in.Scan(); n++ {
		f := strings.Fields(in.Text())
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) < 2 || len(f) > 3 {
			return nil, fmt.Errorf("--forward-keys %s: line %d is not \"NAME SECRET [NAMESPACE]\"", path, n)
		}
		k := ingest.Key{Name: f[0], Secret: f[1]}
		if len(f) == 3 {
			k.Namespace = f[2]
		}
		out = append(out, k)
	}
	return out, in.Err()
}

// clusterMark tells lines that this cluster sent on from others.
func clusterMark(cfg config.Config) (string, error) {
	text, err := os.ReadFile(cfg.Path("ca.crt"))
	if err != nil {
		return "", fmt.Errorf("read CA: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8]), nil
}

// sendOn sends all lines of this node to an external receiver, if there is one.
func (l *lines) sendOn(r role) error {
	if r.cfg.ForwardTo == "" {
		return nil
	}
	address, secret := r.cfg.Onward()
	cfg := onward.Default(address, r.cfg.NodeName)
	cfg.FromNow, cfg.OwnPort = r.cfg.ForwardToStart != config.StartBeginning, r.cfg.ForwardPort
	var err error
	if cfg.Mark, err = clusterMark(r.cfg); err != nil {
		return err
	}
	if secret {
		cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		if r.cfg.ForwardToCA != "" {
			text, err := os.ReadFile(r.cfg.ForwardToCA)
			if err != nil {
				return refused{fmt.Errorf("read --forward-to-ca: %w", err)}
			}
			cfg.TLS.RootCAs = x509.NewCertPool()
			if !cfg.TLS.RootCAs.AppendCertsFromPEM(text) {
				return refused{fmt.Errorf("--forward-to-ca %s holds no certificate", r.cfg.ForwardToCA)}
			}
		}
	}
	if r.cfg.ForwardToKey != "" {
		text, err := os.ReadFile(r.cfg.ForwardToKey)
		if err != nil {
			return refused{fmt.Errorf("read --forward-to-key: %w", err)}
		}
		cfg.Key = strings.TrimSpace(string(text))
	}
	o, err := onward.New(cfg, l.store, r.part("onward"), r.reg)
	if err != nil {
		return err
	}
	r.group.Go("forward out", o.Run)
	return nil
}

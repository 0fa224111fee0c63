package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

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

package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"

	"perch/cmd/perch/daemon/config"
)

// clusterName finds the address behind a name of a Service: the machine's own
// resolver does not know the cluster's names.
func clusterName(services corelisters.ServiceLister, domain string) func(string) (string, bool) {
	return func(host string) (string, bool) {
		host = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(host, "."), "."+domain), ".svc")
		name, namespace, ok := strings.Cut(host, ".")
		if !ok || strings.Contains(namespace, ".") {
			return "", false
		}
		s, err := services.Services(namespace).Get(name)
		if err != nil || s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone {
			return "", false
		}
		return s.Spec.ClusterIP, true
	}
}

// clusterDNS asks the cluster's own DNS, whatever resolvers the machine has.
func clusterDNS(cfg config.Config) *net.Resolver {
	at := net.JoinHostPort(cfg.ServiceIP(10).String(), "53")
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, at)
	}}
}

// clusterHost finds more than clusterName: pods behind a headless Service, and what
// else the cluster's DNS knows in its domain.
func (r role) clusterHost(services corelisters.ServiceLister) func(context.Context, string) (string, bool, error) {
	return knownHost(clusterName(services, r.cfg.ClusterDomain), clusterDNS(r.cfg), r.cfg.ClusterDomain)
}

// knownHost asks named first, and dns for names of the cluster. These are ours, found
// or not: another resolver might answer for them what it likes, and would be told what
// is asked for.
func knownHost(named func(string) (string, bool), dns *net.Resolver, domain string) func(context.Context, string) (ip string, ours bool, err error) {
	return func(ctx context.Context, host string) (string, bool, error) {
		if ip, ok := named(host); ok {
			return ip, true, nil
		}
		host = strings.ToLower(strings.TrimSuffix(host, "."))
		if strings.HasSuffix(host, ".svc") {
			host += "." + domain
		}
		if !strings.HasSuffix(host, "."+domain) {
			return "", false, nil
		}
		ips, err := dns.LookupNetIP(ctx, "ip", host+".")
		if err == nil && len(ips) == 0 {
			err = errors.New("it has no address")
		}
		if err != nil {
			return "", true, fmt.Errorf("resolve %s: %w", host, err)
		}
		slices.SortStableFunc(ips, func(a, b netip.Addr) int { return cmp.Compare(a.Unmap().BitLen(), b.Unmap().BitLen()) }) // IPv4 first
		return ips[0].Unmap().String(), true, nil
	}
}

package apiserver

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// registerMetrics adds what the library's own metrics (apiserver_*, in its
// registry, served at /metrics) do not say.
func registerMetrics(reg prometheus.Registerer, s *Server) {
	if reg == nil {
		return
	}
	gauge := func(name, help string, value func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	a := s.install.services
	gauge("perch_apiserver_kinds", "Kinds that are served, custom resources apart.", func() float64 { return float64(len(s.install.stores)) })
	gauge("perch_apiserver_cluster_ips", "Cluster IPs in use.", func() float64 { return a.used(a.ips) })
	gauge("perch_apiserver_cluster_ips_limit", "Cluster IPs of the range; beyond that services are refused.", func() float64 { return float64(a.ips.size - a.ips.low) })
	gauge("perch_apiserver_node_ports", "Node ports in use.", func() float64 { return a.used(a.ports) })
	gauge("perch_apiserver_node_ports_limit", "Node ports of the range; beyond that services are refused.", func() float64 { return float64(a.ports.size - a.ports.low) })
}

// used counts the claims of a pool; zero when etcd does not answer soon.
func (a *allocator) used(p pool) float64 {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	r, err := a.etcd.Get(ctx, claimsPrefix+p.name+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return 0
	}
	return float64(r.Count)
}

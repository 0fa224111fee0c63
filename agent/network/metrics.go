package network

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	peers, routes             prometheus.Gauge
	errors, opened, collected prometheus.Counter
	took                      prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		peers:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_network_peers", Help: "Other nodes with an address and a pod CIDR."}),
		routes:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_network_routes", Help: "Other nodes whose pods are routed to."}),
		errors:    prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_network_sync_errors_total", Help: "Times the pod network could not be set up."}),
		opened:    prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_network_firewalls_opened_total", Help: "Times a dropping chain was opened for pods."}),
		collected: prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_network_addresses_collected_total", Help: "Leaked pod addresses that were freed."}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "perch_network_sync_duration_seconds", Help: "Time of one look at the node's network.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 7)}),
	}
	reg.MustRegister(m.peers, m.routes, m.errors, m.opened, m.collected, m.took)
	return m
}

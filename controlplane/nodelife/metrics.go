package nodelife

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	nodes     *prometheus.GaugeVec
	evictions prometheus.Counter
	errors    prometheus.Counter
	success   prometheus.Gauge
	duration  prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		nodes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "perch_nodelife_nodes", Help: "Nodes by state: ready, not_ready, silent.",
		}, []string{"state"}),
		evictions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "perch_nodelife_evictions_total", Help: "Pods deleted because their node was given up.",
		}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "perch_nodelife_errors_total", Help: "Writes that failed; each is tried again with the next look.",
		}),
		success: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "perch_nodelife_last_success_seconds", Help: "Unix time of the last look at all nodes without an error.",
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "perch_nodelife_duration_seconds", Help: "Time of one look at all nodes.", Buckets: []float64{0.001, 0.01, 0.1, 1, 10},
		}),
	}
	if reg != nil {
		reg.MustRegister(m.nodes, m.evictions, m.errors, m.success, m.duration)
	}
	return m
}

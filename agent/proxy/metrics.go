package proxy

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	elements, frontends, skipped, lastSync prometheus.Gauge
	errors, flows, replaced                prometheus.Counter
	took                                   prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_proxy_" + name, Help: help})
		reg.MustRegister(g)
		return g
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_proxy_" + name, Help: help})
		reg.MustRegister(c)
		return c
	}
	took := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "perch_proxy_sync_duration_seconds", Help: "Time from snapshot to kernel.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
	})
	reg.MustRegister(took)
	return &metrics{
		elements:  gauge("elements", "Elements in the node's service table."),
		frontends: gauge("frontends", "Addresses and ports that are served."),
		skipped:   gauge("skipped", "Things that could not be served."),
		lastSync:  gauge("last_sync_timestamp_seconds", "Time of the last successful write."),
		errors:    counter("sync_errors_total", "Writes that failed; each is followed by a comparison with the kernel."),
		flows:     counter("forgotten_flows_total", "UDP flows deleted because their endpoint is gone."),
		replaced:  counter("tables_replaced_total", "Times the table was missing or of another layout."),
		took:      took,
	}
}

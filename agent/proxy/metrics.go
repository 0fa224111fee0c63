package proxy

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	elements, frontends, skipped, lastSync prometheus.Gauge
	errors, flows, replaced                prometheus.Counter
	took                                   prometheus.Histogram

	// The same under kube-proxy's names, which dashboards know.
	proxyTook, programmed prometheus.Histogram
	proxyLast             prometheus.Gauge
	since                 time.Time // of the oldest change that is not in the kernel; zero: none. Run's own.
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
	seconds := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kubeproxy_" + name + "_duration_seconds", Help: help, Buckets: buckets})
		reg.MustRegister(h)
		return h
	}
	last := prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubeproxy_sync_proxy_rules_last_timestamp_seconds", Help: "Time of the last successful write."})
	reg.MustRegister(last)
	return &metrics{
		proxyTook: seconds("sync_proxy_rules", "Time from snapshot to kernel.", prometheus.ExponentialBuckets(0.001, 2, 15)),
		programmed: seconds("network_programming", "Time from hearing of a change of a Service or endpoint to its being in the kernel.",
			[]float64{.01, .025, .05, .1, .25, .5, 1, 2, 5, 10, 30, 60, 120, 300}),
		proxyLast: last,
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

// changed notes when a change came that is yet to be written.
func (m *metrics) changed(now time.Time) {
	if m.since.IsZero() {
		m.since = now
	}
}

// wrote counts a write that began at start.
func (m *metrics) wrote(start, now time.Time) {
	m.lastSync.SetToCurrentTime()
	m.proxyLast.SetToCurrentTime()
	m.took.Observe(now.Sub(start).Seconds())
	m.proxyTook.Observe(now.Sub(start).Seconds())
	if !m.since.IsZero() && m.since.Before(start) {
		m.programmed.Observe(now.Sub(m.since).Seconds())
	}
	m.since = time.Time{}
}

package discovery

import (
	"github.com/prometheus/client_golang/prometheus"

	"perch/metrics/target"
)

type metrics struct {
	searches, leftOut, targets prometheus.Gauge
	asked                      *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		searches: gauge("perch_discovery_searches", "Services over HTTP and names of DNS that are asked for targets of objects."),
		leftOut:  gauge("perch_discovery_left_out", "Those for which there is no room."),
		targets:  gauge("perch_discovery_targets", "Targets that they found, before relabelling."),
		asked:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_discovery_asked_total", Help: "Questions by kind (http, dns) and outcome (ok, failed)."}, []string{"kind", "outcome"}),
	}
	for _, k := range []string{"http", "dns"} {
		for _, o := range []string{"ok", "failed"} {
			m.asked.WithLabelValues(k, o)
		}
	}
	reg.MustRegister(m.searches, m.leftOut, m.targets, m.asked)
	return m
}

func kind(s target.Search) string {
	if s.URL != "" {
		return "http"
	}
	return "dns"
}

func outcome(err error) string {
	if err != nil {
		return "failed"
	}
	return "ok"
}

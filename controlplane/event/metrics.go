package event

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	told    *prometheus.CounterVec
	dropped *prometheus.CounterVec
	queued  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		told: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "perch_events_total", Help: "Events told, by reason and type.",
		}, []string{"reason", "type"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "perch_events_dropped_total", Help: "Events that were logged but did not become an Event object: queue_full, rate, rejected, stopped.",
		}, []string{"reason"}),
		queued: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "perch_events_queue_length", Help: "Events waiting to be posted.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.told, m.dropped, m.queued)
	}
	return m
}

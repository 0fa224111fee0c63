package store

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	appended *prometheus.CounterVec // by inlet
	refused  *prometheus.CounterVec // by reason
	overrun  *prometheus.CounterVec // by namespace, maxNamed of them
	crowded  *prometheus.CounterVec // by namespace, maxNamed of them
	repairs  prometheus.Counter
	room     prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		appended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "perch_store_samples_appended_total", Help: "Samples committed, by the part that wrote them.",
		}, []string{"inlet"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "perch_store_samples_refused_total", Help: "Samples and series that were not stored, by reason.",
		}, []string{"reason"}),
		overrun: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "perch_store_namespace_series_refused_total", Help: "New series refused because their namespace has as many as it may.",
		}, []string{"offender"}),
		crowded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "perch_store_limit_series_refused_total", Help: "New series refused because the store has as many as it may, by their namespace.",
		}, []string{"offender"}),
		repairs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "perch_store_wal_repairs_total", Help: "Times a damaged WAL was cut when the store was opened.",
		}),
		room: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "perch_store_room_bytes", Help: "What may still be written to the disk of the store; at 0 samples are refused.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.appended, m.refused, m.overrun, m.crowded, m.repairs, m.room)
	}
	return m
}

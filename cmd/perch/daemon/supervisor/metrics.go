package supervisor

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	restarts *prometheus.CounterVec
	ready    *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer, roles []Role) *metrics {
	m := &metrics{
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_supervisor_restarts_total",
			Help: "Restarts of a role by reason: ended by itself, or hung and was ended."}, []string{"role", "reason"}),
		ready: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "perch_supervisor_role_ready", Help: "1 while a role is ready."}, []string{"role"}),
	}
	reg.MustRegister(m.restarts, m.ready)
	for _, r := range roles { // zero is said, too
		m.ready.WithLabelValues(r.Name)
		for _, reason := range []string{"ended", "hung"} {
			m.restarts.WithLabelValues(r.Name, reason)
		}
	}
	return m
}

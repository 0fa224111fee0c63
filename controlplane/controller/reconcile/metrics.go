package reconcile

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the numbers of all loops of one process; make them once per registry.
type Metrics struct {
	duration    *prometheus.HistogramVec
	errors      *prometheus.CounterVec
	lastSuccess *prometheus.GaugeVec
	queue       *prometheus.GaugeVec
	works       works
}

// NewMetrics registers the numbers of the loops; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	label := []string{"controller"}
	m := &Metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "perch_reconcile_duration_seconds", Help: "Time to bring one object closer to what is wanted.",
			Buckets: []float64{0.001, 0.005, 0.02, 0.1, 0.5, 2, 10},
		}, label),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "perch_reconcile_errors_total", Help: "Attempts that failed and were put back with a delay.",
		}, label),
		lastSuccess: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "perch_reconcile_last_success_seconds", Help: "Unix time of the last attempt that ended well.",
		}, label),
		queue: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "perch_reconcile_queue_length", Help: "Objects waiting; bounded by the number of objects.",
		}, label),
	}
	m.works = newWorks()
	if reg != nil {
		reg.MustRegister(m.duration, m.errors, m.lastSuccess, m.queue)
		reg.MustRegister(m.works.all()...)
	}
	return m
}

package autoscale

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	duration prometheus.Histogram
	errors   *prometheus.CounterVec
	rescales *prometheus.CounterVec
	success  prometheus.Gauge
	targets  prometheus.Gauge
	partial  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "perch_autoscale_duration_seconds", Help: "Time to judge one autoscaler.", Buckets: []float64{0.001, 0.005, 0.02, 0.1, 0.5, 2},
		}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "perch_autoscale_errors_total", Help: "Judgements that failed: scale, query, status.",
		}, []string{"step"}),
		rescales: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "perch_autoscale_rescales_total", Help: "Changes of replicas by direction: out, in.",
		}, []string{"direction"}),
		success: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "perch_autoscale_last_success_seconds", Help: "Unix time of the last look at all autoscalers.",
		}),
		targets: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "perch_autoscale_targets", Help: "Autoscalers that are judged.",
		}),
		partial: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "perch_autoscale_partial_answers_total", Help: "Answers that lacked the numbers of some nodes.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.duration, m.errors, m.rescales, m.success, m.targets, m.partial)
	}
	return m
}

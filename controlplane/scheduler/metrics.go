package scheduler

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	attempts *prometheus.CounterVec
	duration prometheus.Histogram
	latency  prometheus.Histogram
	queue    *prometheus.GaugeVec
	success  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "perch_scheduler_attempts_total", Help: "Tries to find a node: bound, unschedulable, error.",
		}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "perch_scheduler_decision_duration_seconds", Help: "Time of one decision.",
			Buckets: []float64{0.0001, 0.0005, 0.002, 0.01, 0.05, 0.25, 1},
		}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "perch_scheduler_bind_latency_seconds", Help: "Time from the first sight of a pod to its binding.",
			Buckets: []float64{0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600},
		}),
		queue: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "perch_scheduler_queue_length", Help: "Waiting pods: ready or backing off (waiting), or until something changes (parked).",
		}, []string{"state"}),
		success: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "perch_scheduler_last_success_seconds", Help: "Unix time of the last binding.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.attempts, m.duration, m.latency, m.queue, m.success)
	}
	return m
}

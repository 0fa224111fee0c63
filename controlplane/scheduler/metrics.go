package scheduler

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	attempts *prometheus.CounterVec
	duration prometheus.Histogram
	latency  prometheus.Histogram
	queue    *prometheus.GaugeVec
	success  prometheus.Gauge

	// The same under kube-scheduler's names.
	tried     *prometheus.CounterVec
	attempt   *prometheus.HistogramVec
	algorithm prometheus.Histogram
	sli       *prometheus.HistogramVec
	tries     prometheus.Histogram
	pending   *prometheus.GaugeVec
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
	m.tried = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "scheduler_schedule_attempts_total", Help: "Tries to find a node and bind: scheduled, unschedulable, error.",
	}, []string{"profile", "result"})
	m.attempt = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "scheduler_scheduling_attempt_duration_seconds", Help: "Time of one try: decision and binding.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
	}, []string{"profile", "result"})
	m.algorithm = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "scheduler_scheduling_algorithm_duration_seconds", Help: "Time of one decision.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
	})
	m.sli = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "scheduler_pod_scheduling_sli_duration_seconds", Help: "Time from the first sight of a pod to its binding, by tries.", Buckets: prometheus.ExponentialBuckets(0.01, 2, 20),
	}, []string{"attempts"})
	m.tries = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "scheduler_pod_scheduling_attempts", Help: "Tries a pod needed to be bound.", Buckets: prometheus.ExponentialBuckets(1, 2, 5),
	})
	m.pending = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "scheduler_pending_pods", Help: "Waiting pods: ready (active), backing off (backoff), or until something changes (unschedulable).",
	}, []string{"queue"})
	if reg != nil {
		reg.MustRegister(m.attempts, m.duration, m.latency, m.queue, m.success, m.tried, m.attempt, m.algorithm, m.sli, m.tries, m.pending)
	}
	return m
}

// lengths shows how many pods wait.
func (m metrics) lengths(active, backoff, parked int) {
	m.queue.WithLabelValues("waiting").Set(float64(active + backoff))
	m.queue.WithLabelValues("parked").Set(float64(parked))
	m.pending.WithLabelValues("active").Set(float64(active))
	m.pending.WithLabelValues("backoff").Set(float64(backoff))
	m.pending.WithLabelValues("unschedulable").Set(float64(parked))
}

// ended counts one try of a pod: bound, unschedulable or error.
func (m metrics) ended(profile, result string, next item) {
	m.attempts.WithLabelValues(result).Inc()
	word := result
	if result == "bound" {
		word = "scheduled"
		m.latency.Observe(time.Since(next.since).Seconds())
		m.success.Set(float64(time.Now().Unix()))
		tries := strconv.Itoa(next.attempts + 1)
		if next.attempts >= 14 { // kube-scheduler's bound, too
			tries = "15+"
		}
		m.sli.WithLabelValues(tries).Observe(time.Since(next.since).Seconds())
		m.tries.Observe(float64(next.attempts + 1))
	}
	m.tried.WithLabelValues(profile, word).Inc()
	m.attempt.WithLabelValues(profile, word).Observe(time.Since(next.began).Seconds())
}

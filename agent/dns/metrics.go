package dns

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	answers   *prometheus.CounterVec
	took      prometheus.Histogram
	resolvers prometheus.Gauge
	synced    prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_dns_answers_total", Help: "Questions by the code of their answer."}, []string{"rcode"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "perch_dns_answer_duration_seconds", Help: "Time from question to answer.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9)}),
		resolvers: prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_dns_resolvers", Help: "Resolvers of the machine that are asked."}),
		synced:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_dns_synced", Help: "1 when the cluster's names are known."}),
	}
	reg.MustRegister(m.answers, m.took, m.resolvers, m.synced)
	return m
}

func (m *metrics) answered(rcode int, start time.Time) {
	m.answers.WithLabelValues(answerLabel(rcode)).Inc()
	m.took.Observe(time.Since(start).Seconds())
}

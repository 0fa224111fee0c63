package dns

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

type metrics struct {
	answers   *prometheus.CounterVec
	took      prometheus.Histogram
	resolvers prometheus.Gauge
	synced    prometheus.Gauge
	waited    prometheus.Counter
	impatient prometheus.Counter
	refused   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, dropped func() float64) *metrics {
	m := &metrics{
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_dns_answers_total", Help: "Questions by the code of their answer."}, []string{"rcode"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "perch_dns_answer_duration_seconds", Help: "Time from question to answer.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9)}),
		resolvers: prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_dns_resolvers", Help: "Resolvers of the machine that are asked."}),
		synced:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_dns_synced", Help: "1 when the cluster's names are known."}),
		waited: prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_dns_waited_total",
			Help: "Questions that waited for the cluster's names to be known."}),
		impatient: prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_dns_impatient_total",
			Help: "Questions that did not wait for the cluster's names, because too many waited."}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_dns_refused_connections_total",
			Help: "Connections over TCP that were closed because there are too many, or too many of one address."}),
	}
	reg.MustRegister(m.answers, m.took, m.resolvers, m.synced, m.waited, m.impatient, m.refused, prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "perch_dns_dropped_total", Help: "Questions that found the socket's buffer full, since the socket was made; clients ask again."}, dropped))
	return m
}

// Library are the numbers that CoreDNS itself keeps, under its own names. It
// keeps them for the whole process, in the default registry.
func Library() prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		all, err := prometheus.DefaultGatherer.Gather()
		return slices.DeleteFunc(all, func(f *dto.MetricFamily) bool { return !strings.HasPrefix(f.GetName(), "coredns_") }), err
	})
}

func (m *metrics) answered(rcode int, start time.Time) {
	m.answers.WithLabelValues(answerLabel(rcode)).Inc()
	m.took.Observe(time.Since(start).Seconds())
}

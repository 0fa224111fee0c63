package recorded

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	rules, refused, series prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_recorded_" + name, Help: help})
	}
	m := &metrics{
		rules:   gauge("rules", "Log queries that are counted."),
		refused: gauge("refused_rules", "Log queries that are not counted: broken ones, and those beyond the limit."),
		series:  gauge("series", "Series of counted log queries."),
	}
	reg.MustRegister(m.rules, m.refused, m.series)
	return m
}

// help is the same for all rules: series of one name must agree on it.
const help = "Lines that a LogRule counts."

// Describe implements prometheus.Collector: what is collected is not known.
func (r *Recorded) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector. A new series is 0 once.
func (r *Recorded) Collect(out chan<- prometheus.Metric) {
	rules := r.rules.Load()
	if rules == nil {
		return
	}
	overflow := prometheus.NewDesc("perch_recorded_overflow_lines_total", "Lines a LogRule counts under (others), because it has all the series it may have.", []string{"namespace", "logrule", "record"}, nil)
	slow := prometheus.NewDesc("perch_recorded_slow_lines_total", "Lines a LogRule does not count, because its expression takes too long on them.", []string{"namespace", "logrule", "record"}, nil)
	r.mu.Lock()
	defer r.mu.Unlock()
	over, late := map[[3]string]uint64{}, map[[3]string]uint64{}
	for _, x := range *rules {
		desc := prometheus.NewDesc(x.Record, help, x.names, nil)
		for _, s := range x.series {
			n := s.total()
			if !s.born {
				s.born, n = true, 0
			}
			out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), slices.Concat(s.values, x.fixed)...)
		}
		of := [3]string{x.Namespace, x.Object, x.Record}
		over[of] += x.overflow
		late[of] += x.slow
	}
	for of, n := range over {
		out <- prometheus.MustNewConstMetric(overflow, prometheus.CounterValue, float64(n), of[:]...)
	}
	for of, n := range late {
		out <- prometheus.MustNewConstMetric(slow, prometheus.CounterValue, float64(n), of[:]...)
	}
}

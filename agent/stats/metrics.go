package stats

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	waiting  prometheus.Gauge
	dropped  prometheus.Counter
	sent     prometheus.Counter
	failures prometheus.Counter
	watched  prometheus.Gauge
	refused  prometheus.Counter
	ended    prometheus.Counter
	late     prometheus.Counter
	round    prometheus.Histogram
	rest     prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_stats_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_stats_" + name, Help: help})
	}
	seconds := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "perch_stats_" + name, Help: help, Buckets: []float64{.001, .005, .02, .1, .5, 2}})
	}
	m := &metrics{
		waiting:  gauge("outbox_samples", "Samples that wait for the sink."),
		dropped:  counter("samples_dropped_total", "Samples dropped because the sink was away too long."),
		sent:     counter("samples_sent_total", "Samples the sink took."),
		failures: counter("sink_failures_total", "Batches the sink did not take at once."),
		watched:  gauge("cgroups", "Cgroups that are watched."),
		refused:  counter("cgroups_refused_total", "Cgroups not watched because there are too many."),
		ended:    counter("cgroups_ended_total", "Cgroups that ended with a last sample."),
		late:     counter("cgroups_lost_total", "Containers whose cgroup was gone before a last sample was taken."),
		round:    seconds("round_seconds", "Time to read all cgroups once."),
		rest:     seconds("look_seconds", "Time to look at network, disks and processes once."),
	}
	if reg != nil {
		reg.MustRegister(m.waiting, m.dropped, m.sent, m.failures, m.watched, m.refused, m.ended, m.late, m.round, m.rest)
	}
	return m
}

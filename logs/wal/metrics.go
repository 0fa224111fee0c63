package wal

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	bytes    prometheus.Gauge
	entries  prometheus.Counter
	fsync    prometheus.Histogram
	failures prometheus.Counter
	broken   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		bytes:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_wal_size_bytes", Help: "Bytes in write-ahead segments."}),
		entries:  prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_wal_entries_total", Help: "Entries made durable."}),
		fsync:    prometheus.NewHistogram(prometheus.HistogramOpts{Name: "perch_wal_commit_seconds", Help: "Time to write and fsync one group of entries.", Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .5, 2}}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_wal_failures_total", Help: "Groups of entries the disk refused; their callers were told."}),
		broken:   prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_wal_broken_segments_total", Help: "Segments found damaged before their end when opened."}),
	}
	reg.MustRegister(m.bytes, m.entries, m.fsync, m.failures, m.broken)
	return m
}

package ingest

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	lines       prometheus.Counter
	bytes       prometheus.Counter
	bad         prometheus.Counter
	fields      prometheus.Counter
	refused     prometheus.Counter
	rejected    *prometheus.CounterVec
	connections prometheus.Gauge
	pending     prometheus.Gauge
	large       prometheus.Gauge
	waits       prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		lines:       prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_ingest_lines_total", Help: "Lines received over Forward and made durable."}),
		bytes:       prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_ingest_bytes_total", Help: "Bytes received over Forward."}),
		bad:         prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_ingest_bad_entries_total", Help: "Entries over Forward that were not [time, map]; the others of their message are stored."}),
		fields:      prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_ingest_fields_left_out_total", Help: "Fields of entries over Forward beyond the cap; the line and the others are stored."}),
		refused:     prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_ingest_refused_batches_total", Help: "Batches the store refused; they are tried again."}),
		rejected:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_ingest_rejected_connections_total", Help: "Connections closed because of what they sent."}, []string{"reason"}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_ingest_connections", Help: "Open Forward connections."}),
		pending:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_ingest_pending_bytes", Help: "Memory of messages over 64 KB that are being received or stored over Forward."}),
		large:       prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_ingest_large_messages", Help: "Messages over Forward being stored that take much memory when taken apart; at most two do at a time."}),
		waits:       prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_ingest_pending_waits_total", Help: "Messages over Forward that waited for others to be stored, because of their memory."}),
	}
	for _, r := range []string{"format", "large", "key", "many", "unknown", "accept", "tls"} {
		m.rejected.WithLabelValues(r)
	}
	reg.MustRegister(m.lines, m.bytes, m.bad, m.fields, m.refused, m.rejected, m.connections, m.pending, m.large, m.waits)
	return m
}

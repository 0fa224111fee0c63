package syslog

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	lines       *prometheus.CounterVec
	lost        *prometheus.CounterVec
	rejected    *prometheus.CounterVec
	refused     prometheus.Counter
	fields      prometheus.Counter
	connections prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		lines:       prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_syslog_lines_total", Help: "Lines received and made durable, by transport."}, []string{"transport"}),
		lost:        prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_syslog_udp_lost_total", Help: "Datagrams lost: the kernel's buffer or ours was full, or the sender may not send or is over its limits. UDP has no way to say so."}, []string{"reason"}),
		rejected:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_syslog_rejected_connections_total", Help: "Connections closed because of what they sent."}, []string{"reason"}),
		refused:     prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_syslog_refused_batches_total", Help: "Batches the store refused; they are tried again."}),
		fields:      prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_syslog_fields_left_out_total", Help: "Fields beyond the cap; the line and the others are stored."}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_syslog_connections", Help: "Open TCP connections."}),
	}
	for _, r := range []string{"kernel", "buffer", "unknown", "limited"} {
		m.lost.WithLabelValues(r)
	}
	for _, r := range []string{"format", "many", "unknown"} {
		m.rejected.WithLabelValues(r)
	}
	reg.MustRegister(m.lines, m.lost, m.rejected, m.refused, m.fields, m.connections)
	return m
}

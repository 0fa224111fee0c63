package tail

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	read      prometheus.Counter
	stored    prometheus.Counter
	dropped   *prometheus.CounterVec
	bytes     prometheus.Counter
	cutBytes  prometheus.Counter
	refused   prometheus.Counter
	files     prometheus.Gauge
	lag       prometheus.Gauge
	rescanned prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		read:      prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_tail_read_lines_total", Help: "Source lines read; read = stored + dropped + those under way."}),
		stored:    prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_tail_stored_lines_total", Help: "Source lines made durable."}),
		dropped:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_tail_dropped_lines_total", Help: "Source lines that are not stored."}, []string{"reason"}),
		bytes:     prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_tail_read_bytes_total", Help: "Bytes read from log files."}),
		cutBytes:  prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_tail_cut_bytes_total", Help: "Bytes left out of lines that were too long; the line says so."}),
		refused:   prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_tail_refused_batches_total", Help: "Batches the sink refused; they are tried again."}),
		files:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_tail_files", Help: "Log files followed."}),
		lag:       prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_tail_unread_bytes", Help: "Bytes in log files that are not stored yet, at the last poll."}),
		rescanned: prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_tail_watch_overflows_total", Help: "Times the kernel dropped notifications and everything was looked at."}),
	}
	for _, reason := range []string{reasonFormat, reasonGone, reasonTruncated} {
		m.dropped.WithLabelValues(reason)
	}
	reg.MustRegister(m.read, m.stored, m.dropped, m.bytes, m.cutBytes, m.refused, m.files, m.lag, m.rescanned)
	return m
}

// Reasons for source lines that are not stored.
const (
	reasonFormat    = "format"    // empty lines and those cut short by a crash
	reasonGone      = "gone"      // the file was removed before its end was read
	reasonTruncated = "truncated" // the file became shorter
)

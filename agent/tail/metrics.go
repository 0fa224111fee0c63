package tail

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/record"
)

type metrics struct {
	bytes     prometheus.Counter
	cutBytes  prometheus.Counter
	refused   prometheus.Counter
	files     prometheus.Gauge
	open      prometheus.Gauge
	reopened  prometheus.Counter
	lag       prometheus.Gauge
	rescanned prometheus.Counter
}

func newMetrics(cfg Config, reg prometheus.Registerer) *metrics {
	m := &metrics{
		bytes:     prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_tail_read_bytes_total", Help: "Bytes read from log files."}),
		cutBytes:  prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_tail_cut_bytes_total", Help: "Bytes left out of lines that were too long; the line says so."}),
		refused:   prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_tail_refused_batches_total", Help: "Batches the sink refused; they are tried again."}),
		files:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_tail_files", Help: "Log files followed."}),
		open:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_tail_open_files", Help: "Log files that are open."}),
		reopened:  prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_tail_reopened_files_total", Help: "Log files that were closed for the limit and had to be opened again."}),
		lag:       prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_tail_unread_bytes", Help: "Bytes in log files that are not stored yet, at the last poll."}),
		rescanned: prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_tail_watch_overflows_total", Help: "Times the kernel dropped notifications and everything was looked at."}),
	}
	limit := prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_tail_open_files_limit", Help: "Most log files that are open at the same time; past it the one used longest ago is closed."})
	limit.Set(float64(cfg.OpenFiles))
	reg.MustRegister(m.bytes, m.cutBytes, m.refused, m.files, m.open, m.reopened, limit, m.lag, m.rescanned)
	return m
}

type ledgerMetrics struct {
	containers prometheus.Gauge
	refused    prometheus.Counter
	unsampled  prometheus.Counter
}

func newLedgerMetrics(reg prometheus.Registerer) ledgerMetrics {
	m := ledgerMetrics{
		containers: prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_tail_ledgers", Help: "Containers whose lines are counted by themselves."}),
		refused:    prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_tail_ledgers_refused_total", Help: "Containers beyond the limit, whose lines only the node counts."}),
		unsampled:  prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_tail_ledgers_unsampled_total", Help: "Containers that were gone and whose last counts nobody took before they made room."}),
	}
	reg.MustRegister(m.containers, m.refused, m.unsampled)
	return m
}

// shown is what the ledger shows. None of it goes back when perch is restarted.
type shown struct {
	read, stored, dropped                            *prometheus.Desc
	containerRead, containerStored, containerDropped *prometheus.Desc
	delay                                            *prometheus.Desc
}

func newShown() shown {
	container := []string{"namespace", "pod", "container"}
	return shown{
		read:             prometheus.NewDesc("perch_tail_read_lines_total", "Source lines read: read = stored + dropped.", nil, nil),
		stored:           prometheus.NewDesc("perch_tail_stored_lines_total", "Source lines made durable; a joined line counts each.", nil, nil),
		dropped:          prometheus.NewDesc("perch_tail_dropped_lines_total", "Source lines that are not stored.", []string{"reason"}, nil),
		containerRead:    prometheus.NewDesc("perch_tail_container_read_lines_total", "Source lines read of a container: read = stored + dropped.", container, nil),
		containerStored:  prometheus.NewDesc("perch_tail_container_stored_lines_total", "Source lines of a container made durable.", container, nil),
		containerDropped: prometheus.NewDesc("perch_tail_container_dropped_lines_total", "Source lines of a container that are not stored; there once there is one.", append(container, "reason"), nil),
		delay:            prometheus.NewDesc("perch_tail_delay_seconds", "From when a line was written until it was durable and could be found.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (l *ledger) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{l.read, l.stored, l.dropped, l.containerRead, l.containerStored, l.containerDropped, l.shown.delay} {
		ch <- d
	}
}

// Collect implements prometheus.Collector: one moment of all counts.
func (l *ledger) Collect(ch chan<- prometheus.Metric) {
	var out []prometheus.Metric
	show := func(d *prometheus.Desc, n int64, labels ...string) {
		out = append(out, prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...))
	}
	l.mu.Lock()
	show(l.read, l.node.now.read)
	show(l.stored, l.node.now.stored)
	for r, n := range l.node.now.dropped {
		show(l.dropped, n, reason(r).String())
	}
	for _, a := range l.containers {
		show(l.containerRead, a.now.read, a.labels...)
		show(l.containerStored, a.now.stored, a.labels...)
		for r, n := range a.now.dropped {
			if n > 0 {
				show(l.containerDropped, n, append(a.labels[:3:3], reason(r).String())...)
			}
		}
		a.sampled = true
	}
	out = append(out, l.delays.metric(l.shown.delay))
	l.mu.Unlock()
	for _, m := range out {
		ch <- m
	}
}

// delays is a histogram that takes whole batches.
type delays struct {
	bounds []time.Duration
	in     []uint64 // not summed up
	count  uint64
	sum    time.Duration
}

func newDelays() delays {
	const ms = time.Millisecond
	bounds := []time.Duration{5 * ms, 10 * ms, 20 * ms, 50 * ms, 100 * ms, 200 * ms, 500 * ms, time.Second, 2 * time.Second, 5 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute, time.Hour}
	return delays{bounds: bounds, in: make([]uint64, len(bounds)+1)}
}

// add counts records that became durable at now, in ns.
func (d *delays) add(now int64, records []record.Record) {
	for i := range records {
		took := time.Duration(max(0, now-records[i].Time))
		b := 0
		for b < len(d.bounds) && took > d.bounds[b] {
			b++
		}
		d.in[b]++
		d.count++
		d.sum += took
	}
}

func (d *delays) metric(desc *prometheus.Desc) prometheus.Metric {
	buckets, sum := make(map[float64]uint64, len(d.bounds)), uint64(0)
	for i, bound := range d.bounds {
		sum += d.in[i]
		buckets[bound.Seconds()] = sum
	}
	return prometheus.MustNewConstHistogram(desc, d.count, d.sum.Seconds(), buckets)
}

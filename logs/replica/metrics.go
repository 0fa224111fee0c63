package replica

import "github.com/prometheus/client_golang/prometheus"

type shipMetrics struct {
	lagSeconds prometheus.Gauge
	lagBytes   prometheus.Gauge
	sent       prometheus.Counter
	failures   *prometheus.CounterVec
	placed     prometheus.Counter
}

func newShipMetrics(reg prometheus.Registerer) *shipMetrics {
	m := &shipMetrics{
		lagSeconds: prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_replica_lag_seconds", Help: "How old the newest acknowledged state of this node's log copy is."}),
		lagBytes:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_replica_lag_bytes", Help: "Bytes of this node's log store that its follower does not have yet."}),
		sent:       prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_replica_sent_bytes_total", Help: "Bytes of files sent to followers."}),
		failures:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_replica_ship_failures_total", Help: "Shipments that failed; what they had is sent again."}, []string{"reason"}),
		placed:     prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_replica_placements_total", Help: "Times the copy of this node's log store was placed on another follower."}),
	}
	reg.MustRegister(m.lagSeconds, m.lagBytes, m.sent, m.failures, m.placed)
	return m
}

type keepMetrics struct {
	copies   prometheus.Gauge
	bytes    prometheus.Gauge
	limit    prometheus.Gauge
	received prometheus.Counter
	refused  *prometheus.CounterVec
	dropped  *prometheus.CounterVec
	opened   prometheus.Gauge
	opens    prometheus.Counter
}

func newKeepMetrics(reg prometheus.Registerer) *keepMetrics {
	m := &keepMetrics{
		copies:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_replica_copies", Help: "Copies of other nodes' log stores kept here."}),
		bytes:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_replica_kept_bytes", Help: "Bytes of these copies."}),
		limit:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_replica_kept_limit_bytes", Help: "Bytes these copies may have; then the oldest partitions go."}),
		received: prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_replica_received_bytes_total", Help: "Bytes received and fsynced for other nodes."}),
		refused:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_replica_refused_shipments_total", Help: "Shipments refused; their owners keep them."}, []string{"reason"}),
		dropped:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_replica_dropped_total", Help: "Copies, or partitions of copies, that were removed."}, []string{"what", "reason"}),
		opened:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_replica_opened_copies", Help: "Copies that are open to be read."}),
		opens:    prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_replica_opens_total", Help: "Times a copy was opened to be read."}),
	}
	reg.MustRegister(m.copies, m.bytes, m.limit, m.received, m.refused, m.dropped, m.opened, m.opens)
	return m
}

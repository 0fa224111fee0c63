package store

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	lines       prometheus.Counter
	raw         prometheus.Counter
	refused     *prometheus.CounterVec
	blocks      prometheus.Counter
	blockBytes  prometheus.Counter
	cutFailures prometheus.Counter
	headBytes   prometheus.Gauge
	knownBytes  prometheus.Gauge
	diskBytes   prometheus.Gauge
	partitions  prometheus.Gauge
	unindexed   prometheus.Gauge
	rebuilds    prometheus.Counter
	removed     *prometheus.CounterVec
	followDrop  prometheus.Counter
	followers   prometheus.Gauge
	followBytes prometheus.Gauge
	damaged     prometheus.Counter
	positions   prometheus.Gauge
	sealed      prometheus.Counter
	sealFailed  prometheus.Counter
	dropped     *prometheus.CounterVec
	checkpoints *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_logs_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_logs_" + name, Help: help})
	}
	m := &metrics{
		lines:       counter("stored_lines_total", "Lines made durable."),
		raw:         counter("stored_bytes_total", "Bytes of line text made durable."),
		refused:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_logs_refused_batches_total", Help: "Batches refused; their senders keep them."}, []string{"reason"}),
		blocks:      counter("blocks_total", "Blocks cut."),
		blockBytes:  counter("block_bytes_total", "Compressed bytes of blocks cut."),
		cutFailures: counter("cut_failures_total", "Blocks that could not be written."),
		headBytes:   gauge("head_bytes", "Memory of lines not yet cut into blocks."),
		knownBytes:  gauge("known_bytes", "Memory of what is told of blocks, about; that of blocks that were not asked for lately is let go of."),
		diskBytes:   gauge("disk_bytes", "Bytes of all blocks and their indexes."),
		partitions:  gauge("partitions", "Partitions kept."),
		unindexed:   gauge("unindexed_blocks", "Blocks that are searched by scanning."),
		rebuilds:    counter("index_rebuilds_total", "Indexes built anew because they were missing or broken."),
		removed:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_logs_removed_partitions_total", Help: "Partitions removed by retention: for their age, for the bytes of all, or for these before their age."}, []string{"reason"}),
		followDrop:  counter("follow_dropped_lines_total", "Lines not shown to slow followers."),
		followers:   gauge("followers", "Live followers."),
		followBytes: gauge("follow_waiting_bytes", "Memory of lines that wait for live followers."),
		damaged:     counter("damaged_bytes_total", "Bytes of damaged blocks, cut off when opened or found later."),
		positions:   gauge("source_positions", "Source files whose position is remembered."),
		sealed:      counter("sealed_partitions_total", "Closed partitions written anew, smaller."),
		sealFailed:  counter("seal_failures_total", "Closed partitions that stayed as they were."),
		dropped:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_logs_removed_blocks_total", Help: "Blocks removed by the retention of their namespace."}, []string{"reason"}),
		checkpoints: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_logs_damaged_checkpoints_total", Help: "Checkpoints that could not be read, by what was used instead: the one before, or none."}, []string{"used"}),
	}
	for _, used := range []string{"before", "none"} {
		m.checkpoints.WithLabelValues(used)
	}
	for _, reason := range []string{removedForAge, removedForBytes, removedEarly} { // so that the first one is an increase
		m.removed.WithLabelValues(reason)
	}
	reg.MustRegister(m.lines, m.raw, m.refused, m.blocks, m.blockBytes, m.cutFailures, m.headBytes, m.knownBytes, m.diskBytes, m.partitions,
		m.unindexed, m.rebuilds, m.removed, m.followDrop, m.followers, m.followBytes, m.damaged, m.positions, m.sealed, m.sealFailed, m.dropped, m.checkpoints)
	return m
}

package stream

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func counter(name, help, who string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{
		Name: "perch_stream_" + name, Help: help, ConstLabels: prometheus.Labels{"stream": who},
	})
}

func gauge(name, help, who string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "perch_stream_" + name, Help: help, ConstLabels: prometheus.Labels{"stream": who},
	})
}

type clientMetrics struct {
	samples, histograms, exemplars, unread, illegible, bytes, failures, sessions prometheus.Counter
}

func newClientMetrics(who string, reg prometheus.Registerer) *clientMetrics {
	m := &clientMetrics{
		samples:    counter("sent_samples_total", "Samples the receiver acknowledged.", who),
		histograms: counter("sent_histograms_total", "Native histograms the receiver acknowledged.", who),
		exemplars:  counter("sent_exemplars_total", "Exemplars the receiver acknowledged.", who),
		unread:     counter("unread_total", "Histograms and exemplars that were not sent because the receiver is of a version that does not read them.", who),
		illegible:  counter("illegible_samples_total", "Samples, histograms and exemplars that were left out, because their series have more than 128 labels or labels longer than 16 KiB.", who),
		bytes:      counter("sent_bytes_total", "Bytes of batches sent.", who),
		failures:   counter("send_failures_total", "Batches that must be sent again.", who),
		sessions:   counter("sessions_restarted_total", "Sessions the receiver did not know any more.", who),
	}
	if reg != nil {
		reg.MustRegister(m.samples, m.histograms, m.exemplars, m.unread, m.illegible, m.bytes, m.failures, m.sessions)
	}
	return m
}

type receiverMetrics struct {
	name                      string
	samples, skipped, repeats prometheus.Counter
	refused                   *prometheus.CounterVec
	sessions                  prometheus.Gauge
	ahead                     *prometheus.Desc // see clocks
}

func newReceiverMetrics(who string, reg prometheus.Registerer) *receiverMetrics {
	m := &receiverMetrics{
		name:    who,
		samples: counter("received_samples_total", "Samples, histograms and exemplars committed.", who),
		skipped: counter("received_samples_refused_total", "Samples, histograms and exemplars of accepted batches that the store refused.", who),
		repeats: counter("received_repeats_total", "Batches that came twice and were stored once.", who),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "perch_stream_batches_refused_total", Help: "Batches not taken, by HTTP status.",
			ConstLabels: prometheus.Labels{"stream": who},
		}, []string{"code"}),
		sessions: gauge("sessions", "Senders that are known.", who),
		ahead: prometheus.NewDesc("perch_stream_sender_ahead_seconds", "How far the clock of a sender is ahead whose samples are refused for that.",
			[]string{"sender"}, prometheus.Labels{"stream": who}),
	}
	if reg != nil {
		reg.MustRegister(m.samples, m.skipped, m.repeats, m.refused, m.sessions)
	}
	return m
}

type forwardMetrics struct {
	behind atomic.Int64 // ns
	lost   prometheus.Counter
}

func newForwardMetrics(who string, reg prometheus.Registerer) *forwardMetrics {
	m := &forwardMetrics{lost: counter("lost_segments_total", "WAL segments that were deleted before they were sent.", who)}
	if reg != nil {
		reg.MustRegister(m.lost, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "perch_stream_behind_seconds", Help: "Age of the newest sample the receiver has acknowledged.", ConstLabels: prometheus.Labels{"stream": who},
		}, func() float64 { return time.Duration(m.behind.Load()).Seconds() }))
	}
	return m
}

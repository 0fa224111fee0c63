package push

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	lines    *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	requests *prometheus.CounterVec
	bad      *prometheus.CounterVec
	fields   prometheus.Counter
	flight   prometheus.Gauge
}

// Results of requests.
const (
	resultStored  = "stored"
	resultFormat  = "format"  // cannot be read
	resultLarge   = "large"   // more than a request may have
	resultUnknown = "unknown" // who sends it may not
	resultLimited = "limited" // the sender is over its limits
	resultBusy    = "busy"    // too many at once
	resultRefused = "refused" // the store did not take it
)

func newMetrics(reg prometheus.Registerer) *metrics {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_push_" + name, Help: help}, labels)
	}
	m := &metrics{
		lines:    vec("lines_total", "Lines received over HTTP and made durable, by door.", "door"),
		bytes:    vec("bytes_total", "Bytes of bodies as sent, by door.", "door"),
		requests: vec("requests_total", "Requests by door and how they ended.", "door", "result"),
		bad:      vec("bad_entries_total", "Entries that could not be read; the others of their request are stored.", "door"),
		fields:   prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_push_fields_left_out_total", Help: "Fields beyond the cap; the line and the others are stored."}),
		flight:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_push_requests_under_way", Help: "Requests being read or stored."}),
	}
	reg.MustRegister(m.lines, m.bytes, m.requests, m.bad, m.fields, m.flight)
	return m
}

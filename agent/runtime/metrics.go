package runtime

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// metrics are the numbers of this package. The label method is the name of a
// CRI call, code a gRPC code: both come from finite lists.
type metrics struct {
	calls *prometheus.HistogramVec
	fails *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "perch_runtime_call_duration_seconds",
			Help:    "How long calls to the container runtime took.",
			Buckets: []float64{.001, .005, .02, .05, .1, .2, .5, 1, 5, 30, 120},
		}, []string{"method"}),
		fails: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "perch_runtime_call_errors_total",
			Help: "Calls to the container runtime that failed, by gRPC code.",
		}, []string{"method", "code"}),
	}
	reg.MustRegister(m.calls, m.fails)
	return m
}

func (m *metrics) observe(method string, took time.Duration, err error) {
	m.calls.WithLabelValues(method).Observe(took.Seconds())
	if code := status.Code(err); code != codes.OK {
		m.fails.WithLabelValues(method, code.String()).Inc()
	}
}

package runtime

import (
	"strings"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// metrics are the numbers of this package. The label method is the name of a
// CRI call, code a gRPC code: both come from finite lists.
type metrics struct {
	calls *prometheus.HistogramVec
	fails *prometheus.CounterVec

	waiting prometheus.Gauge
	resets  prometheus.Counter

	// The same under kubelet's names and words.
	total, errors *prometheus.CounterVec
	took          *prometheus.HistogramVec
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
	m.waiting = prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_runtime_calls_waiting", Help: "Calls to the container runtime that wait because enough are under way."})
	m.resets = prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_runtime_connection_resets_total", Help: "Connections to the container runtime that were closed because they answered nothing."})
	label := []string{"operation_type"}
	m.total = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubelet_runtime_operations_total", Help: "Calls to the container runtime."}, label)
	m.errors = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubelet_runtime_operations_errors_total", Help: "Calls to the container runtime that failed."}, label)
	m.took = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kubelet_runtime_operations_duration_seconds",
		Help: "How long calls to the container runtime took.", Buckets: prometheus.ExponentialBuckets(.005, 2.5, 14)}, label)
	reg.MustRegister(m.calls, m.fails, m.waiting, m.resets, m.total, m.errors, m.took)
	return m
}

func (m *metrics) observe(method string, took time.Duration, err error) {
	m.calls.WithLabelValues(method).Observe(took.Seconds())
	if code := status.Code(err); code != codes.OK {
		m.fails.WithLabelValues(method, code.String()).Inc()
		m.errors.WithLabelValues(operation(method)).Inc()
	}
	m.total.WithLabelValues(operation(method)).Inc()
	m.took.WithLabelValues(operation(method)).Observe(took.Seconds())
}

// operation is kubelet's word for a CRI call: list_podsandbox for
// ListPodSandbox, pull_image for PullImage.
func operation(method string) string {
	switch method { // words that are not the call's own
	case "PortForward":
		return "port_forward"
	case "ImageFsInfo":
		return "image_fs_info"
	case "UpdateContainerResources":
		return "update_container"
	}
	method = strings.Replace(method, "PodSandbox", "Podsandbox", 1)
	var out strings.Builder
	for i, c := range method {
		if unicode.IsUpper(c) && i > 0 {
			out.WriteByte('_')
		}
		out.WriteRune(unicode.ToLower(c))
	}
	return out.String()
}

package agent

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/agent/pod"
)

type metrics struct {
	kubelet         *kubelet
	steps           *prometheus.HistogramVec
	stepErrors      *prometheus.CounterVec
	failures        *prometheus.CounterVec
	observeErrors   prometheus.Counter
	containerStarts prometheus.Counter
	relist          prometheus.Histogram
	relistErrors    prometheus.Counter
	heartbeats      *prometheus.CounterVec
	logsRotated     prometheus.Counter
	logsRemoved     prometheus.Counter
	logsDropped     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, a *Agent) *metrics {
	m := &metrics{
		kubelet: newKubelet(reg, a),
		steps: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "perch_agent_step_seconds", Help: "Time one step of a pod's life took, by verb.",
			Buckets: []float64{.001, .005, .02, .1, .3, 1, 5, 30, 120},
		}, []string{"verb"}),
		stepErrors:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_agent_step_errors_total", Help: "Steps of pods that failed, by verb."}, []string{"verb"}),
		failures:        prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_agent_failures_total", Help: "Failures that a pod's status shows, by reason."}, []string{"reason"}),
		observeErrors:   prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_agent_observe_errors_total", Help: "Looks at a pod that the runtime did not answer."}),
		containerStarts: prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_agent_container_starts_total", Help: "Containers started."}),
		relist: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "perch_agent_relist_seconds", Help: "Time to list what the runtime has.", Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 5},
		}),
		relistErrors: prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_agent_relist_errors_total", Help: "Lists that the runtime did not answer."}),
		heartbeats:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perch_agent_heartbeats_total", Help: "Renewals of the node's lease, by result."}, []string{"result"}),
		logsRotated:  prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_agent_logs_rotated_total", Help: "Log files of containers that were rotated."}),
		logsRemoved:  prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_agent_logs_removed_total", Help: "Log files removed after all their lines were stored."}),
		logsDropped:  prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_agent_logs_dropped_bytes_total", Help: "Bytes of log files removed although not all lines were stored."}),
	}
	pods := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "perch_agent_pods", Help: "Pods this agent takes care of."}, func() float64 {
		a.mu.Lock()
		defer a.mu.Unlock()
		return float64(len(a.workers))
	})
	reg.MustRegister(m.steps, m.stepErrors, m.failures, m.observeErrors, m.containerStarts, m.relist, m.relistErrors, m.heartbeats,
		m.logsRotated, m.logsRemoved, m.logsDropped, pods)
	return m
}

func (m *metrics) step(verb string, took time.Duration, err error) {
	m.steps.WithLabelValues(verb).Observe(took.Seconds())
	m.kubelet.worker.WithLabelValues(operation(pod.Verb(verb))).Observe(took.Seconds())
	if err != nil && !errors.Is(err, context.Canceled) {
		m.stepErrors.WithLabelValues(verb).Inc()
	}
}

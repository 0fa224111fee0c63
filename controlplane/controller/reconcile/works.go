package reconcile

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/util/workqueue"
)

// works are the numbers of the queues under the names they have in
// kube-controller-manager.
type works struct {
	depth, unfinished, longest *prometheus.GaugeVec
	adds, retries              *prometheus.CounterVec
	latency, duration          *prometheus.HistogramVec
}

var _ workqueue.MetricsProvider = works{}

func newWorks() works {
	label := []string{"name"}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "workqueue_" + name, Help: help}, label)
	}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "workqueue_" + name, Help: help}, label)
	}
	seconds := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "workqueue_" + name, Help: help, Buckets: prometheus.ExponentialBuckets(1e-5, 10, 8)}, label)
	}
	return works{
		depth:      gauge("depth", "Objects that wait in a queue."),
		unfinished: gauge("unfinished_work_seconds", "Time spent on what is under way and not done."),
		longest:    gauge("longest_running_processor_seconds", "Time spent on what is under way longest."),
		adds:       counter("adds_total", "Objects put into a queue."),
		retries:    counter("retries_total", "Objects put back into a queue."),
		latency:    seconds("queue_duration_seconds", "How long objects wait in a queue."),
		duration:   seconds("work_duration_seconds", "How long work on an object takes."),
	}
}

func (w works) all() []prometheus.Collector {
	return []prometheus.Collector{w.depth, w.unfinished, w.longest, w.adds, w.retries, w.latency, w.duration}
}

// The methods of workqueue.MetricsProvider.

// NewDepthMetric counts what waits.
func (w works) NewDepthMetric(name string) workqueue.GaugeMetric {
	w.depth.DeleteLabelValues(name) // a new term begins with an empty queue
	return w.depth.WithLabelValues(name)
}

// NewAddsMetric counts what came.
func (w works) NewAddsMetric(name string) workqueue.CounterMetric {
	return w.adds.WithLabelValues(name)
}

// NewLatencyMetric takes waits.
func (w works) NewLatencyMetric(name string) workqueue.HistogramMetric {
	return w.latency.WithLabelValues(name)
}

// NewWorkDurationMetric takes durations.
func (w works) NewWorkDurationMetric(name string) workqueue.HistogramMetric {
	return w.duration.WithLabelValues(name)
}

// NewUnfinishedWorkSecondsMetric takes what is under way.
func (w works) NewUnfinishedWorkSecondsMetric(name string) workqueue.SettableGaugeMetric {
	return w.unfinished.WithLabelValues(name)
}

// NewLongestRunningProcessorSecondsMetric takes the longest under way.
func (w works) NewLongestRunningProcessorSecondsMetric(name string) workqueue.SettableGaugeMetric {
	return w.longest.WithLabelValues(name)
}

// NewRetriesMetric counts what came back.
func (w works) NewRetriesMetric(name string) workqueue.CounterMetric {
	return w.retries.WithLabelValues(name)
}

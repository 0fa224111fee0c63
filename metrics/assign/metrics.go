package assign

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	objects, targets, nodes prometheus.Gauge
	took                    prometheus.Summary
}

func newMetrics(reg prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		objects: gauge("perch_assign_objects", "Objects that ask for scrapes."),
		targets: gauge("perch_assign_targets", "Targets of objects on all nodes."),
		nodes:   gauge("perch_assign_nodes", "Other nodes that asked for their targets lately."),
		took:    prometheus.NewSummary(prometheus.SummaryOpts{Name: "perch_assign_plan_duration_seconds", Help: "Time to plan for all nodes."}),
	}
	reg.MustRegister(m.objects, m.targets, m.nodes, m.took)
	return m
}

package apiserver

import "github.com/prometheus/client_golang/prometheus"

// registerMetrics adds what the library's own metrics (apiserver_*, in its
// registry, served at /metrics) do not say.
func registerMetrics(reg prometheus.Registerer, s *Server) {
	if reg == nil {
		return
	}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "perch_apiserver_kinds", Help: "Kinds that are served, custom resources apart.",
	}, func() float64 { return float64(len(s.install.stores)) }))
}

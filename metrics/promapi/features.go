package promapi

import (
	"github.com/prometheus/prometheus/template"
	"github.com/prometheus/prometheus/util/features"
)

// abilities are what /api/v1/features tells: of the doors and of templates here,
// of PromQL by the engine that registers itself.
func abilities() features.Collector {
	r := features.NewRegistry()
	for _, name := range []string{"label_values_match", "query_warnings", "query_stats", "time_range_series", "time_range_labels", "exclude_alerts",
		"remote_write_receiver", "otlp_write_receiver"} {
		r.Enable(features.API, name)
	}
	for _, name := range []string{"admin", "lifecycle", "search"} {
		r.Disable(features.API, name)
	}
	for _, name := range []string{"delta_conversion", "native_delta_ingestion"} {
		r.Disable(features.OTLPReceiver, name)
	}
	for _, name := range []string{"native_histograms", "exemplar_storage"} {
		r.Enable(features.TSDB, name)
	}
	for _, name := range []string{"query_offset", "keep_firing_for"} {
		r.Enable(features.Rules, name)
	}
	r.Enable(features.Prometheus, "server_mode")
	template.RegisterFeatures(r)
	return r
}

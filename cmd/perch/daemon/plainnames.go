package daemon

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// plainNames leaves out what libraries count a second time, under names of which
// promtool complains: histograms beside the summary of the same, gauges that are
// called a count. No rule and no dashboard reads them.
func plainNames(all prometheus.Gatherer) prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		families, err := all.Gather()
		return slices.DeleteFunc(families, func(f *dto.MetricFamily) bool {
			return f.GetType() == dto.MetricType_HISTOGRAM && strings.Contains(f.GetName(), "_histogram_") ||
				f.GetType() == dto.MetricType_GAUGE && strings.HasSuffix(f.GetName(), "_count")
		}), err
	})
}

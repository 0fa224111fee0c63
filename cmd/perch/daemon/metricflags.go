package daemon

import (
	"github.com/spf13/pflag"

	"perch/cmd/perch/daemon/config"
	metricstore "perch/metrics/store"
)

// metricFlags are those of the store of series.
func metricFlags(fs *pflag.FlagSet, cfg *config.Config) {
	of := ""
	if cfg.Kind == config.Agent {
		of = ", with --series-store"
	}
	fs.StringVar(&cfg.MetricRetention, "metric-retention", cfg.MetricRetention, "how long samples are kept"+of+" (default: 15d)")
	fs.StringVar(&cfg.MetricBytes, "metric-bytes", cfg.MetricBytes, "how many bytes samples may take on disk"+of+"; the oldest go first (default: 8Gi)")
	fs.IntVar(&cfg.MetricSeries, "metric-series", cfg.MetricSeries, "how many series may be in memory, about 3 KB each, half of them of one namespace"+of+"; new ones are refused then (default: 200000)")
}

// seriesStore is how large the store of a server is, and that of second copies.
func seriesStore(cfg config.Config) (metricstore.Config, error) {
	kept, err := cfg.Metrics()
	if err != nil {
		return metricstore.Config{}, err
	}
	out := metricstore.Default()
	out.Retention, out.MaxBytes, out.SeriesLimit, out.NamespaceLimit = kept.Age, kept.Bytes, kept.Series, kept.Series/2
	return out, nil
}

// seriesBytes is what a series takes in memory, with what the collector leaves.
const seriesBytes = 4 << 10

// memoryOf is a role's memory limit: who asks for more series than the default gets
// the memory for them too.
func memoryOf(cfg config.Config, role string) int64 {
	most := roleMemory[role]
	if kept, err := cfg.Metrics(); err == nil && role == "telemetry" {
		most += int64(max(0, kept.Series-config.DefaultMetrics().Series)) * seriesBytes
	}
	return most
}

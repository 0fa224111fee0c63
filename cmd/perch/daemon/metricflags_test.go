package daemon

import (
	"testing"
	"time"

	"github.com/spf13/pflag"

	"perch/cmd/perch/daemon/config"
	metricstore "perch/metrics/store"
)

func TestTheStoreOfSeriesIsAsLargeAsTheFlagsSay(t *testing.T) {
	for _, tc := range []struct {
		about string
		args  []string
		want  func(*metricstore.Config)
	}{
		{"no flag", nil, func(*metricstore.Config) {}},
		{"all flags", []string{"--metric-retention=30d", "--metric-bytes=20Gi", "--metric-series=500000"}, func(c *metricstore.Config) {
			c.Retention, c.MaxBytes, c.SeriesLimit, c.NamespaceLimit = 30*24*time.Hour, 20<<30, 500_000, 250_000
		}},
	} {
		t.Run(tc.about, func(t *testing.T) {
			cfg := config.Default()
			fs := pflag.NewFlagSet("", pflag.ContinueOnError)
			metricFlags(fs, &cfg)
			if err := fs.Parse(tc.args); err != nil {
				t.Fatal(err)
			}
			want := metricstore.Default()
			tc.want(&want)
			if got, err := seriesStore(cfg); err != nil || got != want {
				t.Errorf("got %+v, want %+v, %v", got, want, err)
			}
			if got, more := memoryOf(cfg, "telemetry"), int64(want.SeriesLimit-metricstore.Default().SeriesLimit); got != roleMemory["telemetry"]+more*seriesBytes || memoryOf(cfg, "agent") != roleMemory["agent"] {
				t.Errorf("%d bytes of memory for %d more series", got, more)
			}
		})
	}
}

package config

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/common/model"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Numbers is how much the store of series keeps: of a server its own, of a worker
// with --series-store the second copies.
type Numbers struct {
	MetricRetention string `json:"metricRetention,omitempty"` // AGE; empty: DefaultMetrics
	MetricBytes     string `json:"metricBytes,omitempty"`     // SIZE
	MetricSeries    int    `json:"metricSeries,omitempty"`    // 0: DefaultMetrics
}

// KeptSeries is how much of series is kept.
type KeptSeries struct {
	Age    time.Duration
	Bytes  int64 // on disk
	Series int   // in memory, about 3 KB each
}

// DefaultMetrics is what is kept as long as no flag says otherwise.
func DefaultMetrics() KeptSeries {
	return KeptSeries{Age: 15 * 24 * time.Hour, Bytes: 8 << 30, Series: 200_000}
}

// Limits of what may be asked for.
const (
	minMetricAge  = 2 * time.Hour
	minMetricSize = 256 << 20
	minSeries     = 10_000
	maxSeries     = 10_000_000
)

// Metrics reads --metric-retention, --metric-bytes and --metric-series.
func (n Numbers) Metrics() (KeptSeries, error) {
	out := DefaultMetrics()
	var errs []error
	if n.MetricRetention != "" {
		d, err := model.ParseDuration(n.MetricRetention)
		if out.Age = time.Duration(d); err != nil || out.Age < minMetricAge || out.Age > maxAge {
			errs = append(errs, fmt.Errorf("--metric-retention %s: write how long samples are kept as 72h or 30d, from 2h to 10y", n.MetricRetention))
		}
	}
	if n.MetricBytes != "" {
		q, err := resource.ParseQuantity(n.MetricBytes)
		if out.Bytes = q.Value(); err != nil || out.Bytes < minMetricSize {
			errs = append(errs, fmt.Errorf("--metric-bytes %s: write how many bytes samples may take on disk as 500Mi or 20Gi, from 256Mi on", n.MetricBytes))
		}
	}
	if n.MetricSeries != 0 {
		if out.Series = n.MetricSeries; out.Series < minSeries || out.Series > maxSeries {
			errs = append(errs, fmt.Errorf("--metric-series %d: write how many series may be in memory, about 3 KB each, from %d to %d", n.MetricSeries, minSeries, maxSeries))
		}
	}
	return out, errors.Join(errs...)
}

func (c Config) validateNumbers(bad func(format string, a ...any)) {
	if _, err := c.Metrics(); err != nil {
		bad("%w", err)
	}
	if c.Kind == Agent && !c.SeriesStore && c.Numbers != (Numbers{}) {
		bad("--metric-retention, --metric-bytes and --metric-series are for servers, and for workers with --series-store: others keep samples for two hours, on their way to the server")
	}
}

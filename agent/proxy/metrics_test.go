package proxy

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

func TestAChangeCountsFromWhenItWasHeardOfUntilItIsWritten(t *testing.T) {
	m := newMetrics(prometheus.NewRegistry())
	start := time.Unix(1000, 0)
	m.wrote(start, start.Add(time.Millisecond)) // the first write follows no change
	m.changed(start.Add(time.Second))
	m.changed(start.Add(2 * time.Second)) // joins the first
	m.wrote(start.Add(3*time.Second), start.Add(4*time.Second))
	for name, c := range map[string]struct {
		of    prometheus.Histogram
		count uint64
		sum   float64
	}{
		"kubeproxy_network_programming": {m.programmed, 1, 3},
		"kubeproxy_sync_proxy_rules":    {m.proxyTook, 2, 1.001},
	} {
		var got dto.Metric
		if err := c.of.Write(&got); err != nil {
			t.Fatal(err)
		}
		if h := got.Histogram; h.GetSampleCount() != c.count || h.GetSampleSum() != c.sum {
			t.Errorf("%s: %d in %g s, want %d in %g s", name, h.GetSampleCount(), h.GetSampleSum(), c.count, c.sum)
		}
	}
}

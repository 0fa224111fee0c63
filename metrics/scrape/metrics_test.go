package scrape

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"perch/metrics/target"
)

func TestPoolsAreCountedAsADashboardOfPrometheusAsks(t *testing.T) {
	address, _, _ := apps(t)
	reg := prometheus.NewRegistry()
	var gone atomic.Bool
	runLoop(t, newStore(t), Default(), Parts{Jobs: func() ([]target.Job, []target.Dropped) {
		two := jobOf("two", address, "/many", "")
		two.Targets = append(two.Targets, jobOf("another", address, "/many", "").Targets...)
		if gone.Load() {
			return nil, nil
		}
		return []target.Job{two}, nil
	}}, reg)
	said := func(want string) func() bool {
		return func() bool {
			return testutil.GatherAndCompare(reg, strings.NewReader(`# HELP prometheus_sd_discovered_targets Current number of discovered targets.
# TYPE prometheus_sd_discovered_targets gauge
`+want), "prometheus_sd_discovered_targets") == nil
		}
	}
	const pods = `prometheus_sd_discovered_targets{config="pods",name="scrape"} 0
`
	have := func() string {
		n, err := testutil.GatherAndCount(reg, "prometheus_sd_discovered_targets")
		return fmt.Sprint(n, " pools, ", err)
	}
	eventually(t, time.Minute, said(pods+`prometheus_sd_discovered_targets{config="two",name="scrape"} 2
`), have)
	gone.Store(true)
	eventually(t, time.Minute, said(pods), have)
}

package daemon

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestNamesThatPromtoolRefusesAreLeftOutAndNoOthers(t *testing.T) {
	reg := prometheus.NewRegistry()
	opts := func(name string) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Name: name, Help: "Time."}
	}
	reg.MustRegister(
		prometheus.NewHistogram(opts("prometheus_rule_group_duration_histogram_seconds")),
		prometheus.NewHistogram(opts("perch_rule_prompt_seconds")),
		prometheus.NewGauge(prometheus.GaugeOpts{Name: "memberlist_client_kv_store_count", Help: "Keys."}),
		prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_store_series", Help: "Series."}),
		prometheus.NewSummary(prometheus.SummaryOpts{Name: "prometheus_rule_group_duration_seconds", Help: "Time."}),
	)
	families, err := plainNames(reg).Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	if got := strings.Join(names, " "); got != "perch_rule_prompt_seconds perch_store_series prometheus_rule_group_duration_seconds" {
		t.Errorf("left are %s", got)
	}
	problems, err := testutil.GatherAndLint(plainNames(reg))
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}

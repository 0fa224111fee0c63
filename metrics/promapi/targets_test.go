package promapi

import (
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/scrape"
)

type oneTarget struct{ *scrape.Target }

func (o oneTarget) TargetsActive() map[string][]*scrape.Target {
	return map[string][]*scrape.Target{"apiserver": {o.Target}}
}
func (oneTarget) TargetsDropped() map[string][]*scrape.Target { return nil }
func (oneTarget) TargetsDroppedCounts() map[string]int        { return nil }
func (oneTarget) ScrapePools() []string                       { return []string{"apiserver"} }
func (oneTarget) ScrapePoolConfig(string) (*config.ScrapeConfig, error) {
	return &config.ScrapeConfig{JobName: "apiserver"}, nil
}

func TestATargetOnLocalhostHasNoError(t *testing.T) {
	target := scrape.NewTarget(labels.FromStrings(model.SchemeLabel, "https", model.AddressLabel, "127.0.0.1:6443", model.MetricsPathLabel, "/metrics", "job", "apiserver"),
		&config.ScrapeConfig{JobName: "apiserver"}, model.LabelSet{}, nil)
	api, _ := newAPI(t, Parts{Targets: oneTarget{target}})
	code, body := get(t, api, Everything(), "/api/v1/targets")
	if code != 200 || !strings.Contains(body, `"lastError":""`) || !strings.Contains(body, `"globalUrl":"https://localhost:6443/metrics"`) {
		t.Error(code, body)
	}
}

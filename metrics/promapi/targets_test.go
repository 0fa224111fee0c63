package promapi

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
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

// twoTargets has a pool of red, two of blue, one without targets, and one of the
// machine. Their rules say a secret.
type twoTargets struct{}

func (twoTargets) TargetsActive() map[string][]*scrape.Target {
	out := map[string][]*scrape.Target{}
	for pool, namespace := range map[string]string{"podmonitor/red/a": "red", "podmonitor/blue/b": "blue", "kubelet": ""} {
		out[pool] = []*scrape.Target{scrape.NewTarget(labels.FromStrings(model.SchemeLabel, "http", model.AddressLabel, "192.0.2.1:80", model.MetricsPathLabel, "/metrics", "job", pool, "namespace", namespace),
			&config.ScrapeConfig{JobName: pool}, model.LabelSet{}, nil)}
	}
	return out
}
func (twoTargets) TargetsDropped() map[string][]*scrape.Target { return nil }
func (twoTargets) TargetsDroppedCounts() map[string]int        { return nil }
func (t twoTargets) ScrapePools() []string {
	return append(slices.Sorted(maps.Keys(t.TargetsActive())), "podmonitor/blue/empty")
}
func (twoTargets) ScrapePoolConfig(name string) (*config.ScrapeConfig, error) {
	return &config.ScrapeConfig{JobName: name, RelabelConfigs: []*relabel.Config{{TargetLabel: "secret", Replacement: "of " + name, Action: relabel.Replace, Regex: relabel.MustNewRegexp("(.*)"), NameValidationScheme: model.UTF8Validation}}}, nil
}

func TestPoolsAreThoseOfTheCallersTargets(t *testing.T) {
	api, _ := newAPI(t, Parts{Targets: twoTargets{}})
	for _, c := range []struct {
		who   Access
		pools string
	}{
		{Access{Namespaces: []string{"red"}}, `["podmonitor/red/a"]`},
		{Access{Namespaces: []string{"red"}, Unlabelled: true}, `["kubelet","podmonitor/red/a"]`},
		{Access{}, `[]`},
		{Everything(), `["kubelet","podmonitor/blue/b","podmonitor/blue/empty","podmonitor/red/a"]`},
	} {
		if code, body := get(t, api, c.who, "/api/v1/scrape_pools"); code != 200 || !strings.Contains(body, `"scrapePools":`+c.pools) {
			t.Errorf("%+v: %d %s, want %s", c.who, code, body, c.pools)
		}
		for _, pool := range (twoTargets{}).ScrapePools() {
			code, body := get(t, api, c.who, "/api/v1/targets/relabel_steps", "scrapePool", pool, "labels", `{"a":"b"}`)
			if may := strings.Contains(c.pools, `"`+pool+`"`); (code == 200) != may || strings.Contains(body, "of "+pool) != may {
				t.Errorf("%+v, %s: %d %s", c.who, pool, code, body)
			}
		}
	}
}

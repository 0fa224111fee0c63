package target

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	promlabels "github.com/prometheus/prometheus/model/labels"

	"perch/metrics/prober"
)

// probeSpec is the spec of a Probe: addresses that a prober looks at.
type probeSpec struct {
	JobName string `json:"jobName"`
	Prober  struct {
		URL    string `json:"url"` // host:port; empty means the one built in
		Scheme string `json:"scheme"`
		Path   string `json:"path"`
		proxySpec
	} `json:"prober"`
	Module  string `json:"module"`
	Targets struct {
		StaticConfig *struct {
			Static      []string          `json:"static"`
			Labels      map[string]string `json:"labels"`
			Relabelings []relabeling      `json:"relabelingConfigs"`
		} `json:"staticConfig"`
		Ingress map[string]any `json:"ingress"`
	} `json:"targets"`
	Interval          string       `json:"interval"`
	ScrapeTimeout     string       `json:"scrapeTimeout"`
	MetricRelabelings []relabeling `json:"metricRelabelings"`
	Params            []struct {
		Name   string   `json:"name"`
		Values []string `json:"values"`
	} `json:"params"`
	clientSpec
	limitSpec
}

func (s *probeSpec) settings() wireSettings {
	client := s.clientSpec
	client.proxySpec = s.Prober.proxySpec
	return wireSettings{interval: s.Interval, timeout: s.ScrapeTimeout, intervalField: "interval", timeoutField: "scrapeTimeout",
		metricRelabelings: s.MetricRelabelings, client: client, limits: s.limitSpec}
}

const staticRelabelings = "spec.targets.staticConfig.relabelingConfigs"

func (s *probeSpec) check(c *check) {
	if v := strings.ToLower(s.Prober.Scheme); v != "" && v != "http" && v != "https" {
		c.bad("spec.prober.scheme", "%q, want http or https", s.Prober.Scheme)
	}
	if s.Prober.URL == "" && s.Module != "" && !slices.Contains(prober.Modules(), s.Module) {
		c.bad("spec.module", "%q: the prober built in has %s; name another prober in spec.prober.url", s.Module, strings.Join(prober.Modules(), ", "))
	}
	if strings.Contains(s.Prober.URL, "/") {
		c.bad("spec.prober.url", "%q: write host:port, or leave it out for the prober built in", s.Prober.URL)
	}
	switch t := s.Targets; {
	case t.StaticConfig == nil && t.Ingress == nil:
		c.bad("spec.targets", "names no staticConfig")
	case t.StaticConfig == nil:
		c.does(true, "spec.targets.ingress", "Ingress objects are not probed; name their URLs in staticConfig")
	default:
		c.does(t.Ingress != nil, "spec.targets.ingress", "staticConfig counts")
		if len(t.StaticConfig.Static) == 0 {
			c.bad("spec.targets.staticConfig.static", "names no target")
		}
		if _, _, err := steps(staticRelabelings, t.StaticConfig.Relabelings); err != nil {
			c.wrong = append(c.wrong, err.Error())
		}
	}
	s.settings().check(c)
}

func (p *planner) probe(o Object) {
	s := o.probe
	if s.Targets.StaticConfig == nil {
		return // told by check
	}
	run, _, err := steps(staticRelabelings, s.Targets.StaticConfig.Relabelings)
	if err != nil {
		p.tell(o, "%v", err)
		return
	}
	address, scheme := cmp.Or(s.Prober.URL, p.Prober), cmp.Or(strings.ToLower(s.Prober.Scheme), "http")
	if address == "" {
		p.tell(o, "spec.prober.url is empty, and no prober is built in here")
		return
	}
	module := s.Module
	if s.Prober.URL == "" && module == "" {
		module = "http_2xx"
	}
	var found []candidate
	for _, one := range s.Targets.StaticConfig.Static {
		b := promlabels.NewBuilder(promlabels.EmptyLabels())
		b.Set("namespace", o.Namespace)
		for k, v := range s.Targets.StaticConfig.Labels {
			b.Set(safe(k), v)
		}
		for _, q := range s.Params {
			if len(q.Values) > 0 {
				b.Set("__param_"+q.Name, q.Values[0])
			}
		}
		b.Set("__param_target", one).Set("instance", one).Set("__param_module", module)
		b.Set("job", cmp.Or(s.JobName, o.pool())).Set("__address__", address).Set("__scheme__", scheme).Set("__metrics_path__", cmp.Or(s.Prober.Path, "/probe"))
		found = append(found, candidate{labels: b, node: p.Home, what: fmt.Sprintf("target %q", one)})
	}
	p.add(o, o.pool(), s.settings(), found, run)
}

package scrape

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/alecthomas/units"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"go.yaml.in/yaml/v2"

	"perch/metrics/target"
)

// fallbackProtocol is what an answer without a content type is read as.
const fallbackProtocol = "PrometheusText0.0.4"

// host stands for a socket in a URL. The word is this process' secret: an address
// in an object, a redirect or a proxy must not lead to perch's own sockets.
func (o Own) host(word string) string { return o.Name + "." + word }

func seconds(d time.Duration) string { return model.Duration(d).String() }

// prometheus is the configuration of the pools that are always there, in
// Prometheus' own words: its package takes only what went through its parser.
func (c Config) prometheus(log *slog.Logger) (*config.Config, error) {
	job := func(name string) map[string]any {
		return map[string]any{
			"job_name": name, "scrape_interval": seconds(c.Interval), "scrape_timeout": seconds(c.Timeout),
			"label_limit": c.LabelLimit, "label_name_length_limit": c.LabelLength, "label_value_length_limit": c.LabelLength, "body_size_limit": fmt.Sprintf("%dB", c.BodyLimit),
			"fallback_scrape_protocol": fallbackProtocol, "keep_dropped_targets": 100,
		}
	}
	jobs := []any{job(podPool)}
	for _, o := range c.Own {
		j := job(o.Name)
		j["enable_compression"] = false // it comes from this machine
		if o.Scheme != "" {
			j["scheme"] = o.Scheme
		}
		if o.Path != "" {
			j["metrics_path"] = o.Path
		}
		if o.TokenFile != "" {
			j["authorization"] = map[string]any{"credentials_file": o.TokenFile}
		}
		if o.Scheme == "https" {
			tls := map[string]any{}
			for key, v := range map[string]string{"ca_file": o.CA, "cert_file": o.Cert, "key_file": o.Key, "server_name": o.ServerName} {
				if v != "" {
					tls[key] = v
				}
			}
			j["tls_config"] = tls
		}
		if rules := o.relabelling(); len(rules) > 0 {
			j["metric_relabel_configs"] = rules
		}
		jobs = append(jobs, j)
	}
	text, err := yaml.Marshal(map[string]any{"scrape_configs": jobs})
	if err != nil {
		return nil, fmt.Errorf("write scrape configuration: %w", err)
	}
	full, err := config.Load(string(text), log)
	if err != nil {
		return nil, fmt.Errorf("read scrape configuration: %w", err)
	}
	return full, nil
}

// pool is a job's settings as Prometheus reads them.
type pool struct {
	settings target.Settings
	parsed   *config.ScrapeConfig
	most     uint // samples of one answer; gate looks after it
	err      error
}

// pool reads a job's settings, bounded by this node's limits.
func (c Config) pool(name string, s target.Settings, log *slog.Logger) pool {
	job := yaml.MapSlice{}
	if err := yaml.Unmarshal([]byte(s), &job); err != nil {
		return pool{settings: s, err: fmt.Errorf("read settings of %s: %w", name, err)}
	}
	if !slices.ContainsFunc(job, func(i yaml.MapItem) bool { return i.Key == "enable_http2" }) {
		// One answer after the other on a connection can be cut off, see metered.
		job = append(job, yaml.MapItem{Key: "enable_http2", Value: false})
	}
	text, err := yaml.Marshal(map[string]any{
		"global":         map[string]any{"scrape_interval": seconds(c.Interval), "scrape_timeout": seconds(c.Timeout)},
		"scrape_configs": []any{append(job, yaml.MapItem{Key: "job_name", Value: name})},
	})
	if err != nil {
		return pool{settings: s, err: fmt.Errorf("write settings of %s: %w", name, err)}
	}
	full, err := config.Load(string(text), log)
	if err != nil {
		return pool{settings: s, err: fmt.Errorf("read settings of %s: %w", name, err)}
	}
	p := full.ScrapeConfigs[0]
	if proxy := p.HTTPClientConfig.ProxyURL.URL; proxy != nil && target.GuardedAddress(proxy.Host) {
		return pool{settings: s, err: errors.New(notNamed(proxy.Host))}
	}
	most := tighter(p.SampleLimit, c.SampleLimit)
	return pool{settings: s, parsed: c.bound(p), most: most}
}

// bound lowers what a pool may take to this node's limits.
func (c Config) bound(p *config.ScrapeConfig) *config.ScrapeConfig {
	p.SampleLimit = 0 // see gate
	p.LabelLimit = tighter(p.LabelLimit, c.LabelLimit)
	p.LabelNameLengthLimit = tighter(p.LabelNameLengthLimit, c.LabelLength)
	p.LabelValueLengthLimit = tighter(p.LabelValueLengthLimit, c.LabelLength)
	p.BodySizeLimit = tighter(p.BodySizeLimit, units.Base2Bytes(c.BodyLimit))
	p.KeepDroppedTargets = tighter(p.KeepDroppedTargets, 100)
	p.ScrapeFallbackProtocol = cmp.Or(p.ScrapeFallbackProtocol, fallbackProtocol)
	return p
}

// tighter is the smaller of two limits where zero is none.
func tighter[T cmp.Ordered](asked, most T) T {
	var none T
	if asked == none {
		return most
	}
	return min(asked, most)
}

// plan is the configuration with the pools of all jobs, and whether it is
// another one than last time. Jobs that cannot be read are left out with the
// reason; the caller holds mu.
func (l *Loop) plan(jobs []target.Job, filesChanged bool) (*config.Config, bool, []target.Dropped) {
	now := make(map[string]pool, len(jobs))
	var left []target.Dropped
	// What a job of the file names on this machine is open for connections of all, the
	// library does not say whose they are: then nothing leads objects' requests there.
	near := l.files != nil && l.files.near()
	changed := l.current == nil || filesChanged || near != l.near
	l.near = near
	straight := func(p *config.ScrapeConfig) *config.ScrapeConfig {
		if !near {
			return p
		}
		p = new(*p)
		p.HTTPClientConfig.FollowRedirects = false
		return p
	}
	for _, j := range jobs {
		p, known := l.jobPools[j.Name]
		if !known || p.settings != j.Settings || p.err != nil && filesChanged {
			p, changed = l.cfg.pool(j.Name, j.Settings, l.log), true
		}
		if l.files != nil && l.files.has(j.Name) {
			p.err = fmt.Errorf("a job of %s is called %s, too", l.cfg.File, j.Name)
		}
		if p.err != nil {
			left = append(left, target.Dropped{From: j.From, Reason: p.err.Error()})
		}
		now[j.Name] = p
	}
	if changed = changed || len(now) != len(l.jobPools); !changed {
		return l.current, false, left
	}
	l.jobPools = now
	full := *l.pools
	full.ScrapeConfigs = slices.Clone(l.pools.ScrapeConfigs)
	for i, p := range full.ScrapeConfigs {
		if p.JobName == podPool {
			full.ScrapeConfigs[i] = straight(p)
		}
	}
	if l.files != nil {
		full.ScrapeConfigs = append(full.ScrapeConfigs, l.files.built()...)
	}
	for _, j := range jobs {
		if p := now[j.Name]; p.err == nil {
			full.ScrapeConfigs = append(full.ScrapeConfigs, straight(p.parsed))
		}
	}
	l.current = &full
	return l.current, true, left
}

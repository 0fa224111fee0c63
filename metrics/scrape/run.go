package scrape

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/scrape"
	"go.yaml.in/yaml/v2"

	"perch/metrics/target"
)

const (
	podPool   = "pods"
	firstPool = "pods-first-look" // the same targets while they are new

	firstInterval = 2 * time.Second
	firstSpan     = 2*firstInterval + time.Second
	lookInterval  = time.Second
)

// Loop scrapes. It implements what promapi asks of Targets.
type Loop struct {
	cfg     Config
	parts   Parts
	log     *slog.Logger
	manager *scrape.Manager
	pools   *config.Config
	targets prometheus.Gauge
	left    prometheus.Gauge

	mu      sync.Mutex
	dropped []target.Dropped
	since   map[string]time.Time // target key → first seen
}

// New reads the configuration; nothing is scraped yet.
func New(cfg Config, parts Parts, log *slog.Logger, reg prometheus.Registerer) (*Loop, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if parts.Into == nil || parts.Inlet == nil && len(cfg.Local) > 0 {
		return nil, errors.New("build scrape: Into is needed, and Inlet for local registries")
	}
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	sockets := map[string]string{}
	for _, o := range cfg.Own {
		if o.Socket != "" {
			sockets[o.host()+":80"] = o.Socket
			sockets[o.host()] = o.Socket
		}
	}
	dialer := &net.Dialer{Timeout: cfg.Timeout}
	manager, err := scrape.NewManager(&scrape.Options{
		DiscoveryReloadInterval:  model.Duration(lookInterval),
		DiscoveryReloadOnStartup: true,
		HTTPClientOptions: []config_util.HTTPClientOption{config_util.WithDialContextFunc(
			func(ctx context.Context, network, address string) (net.Conn, error) {
				if path, ok := sockets[address]; ok {
					return dialer.DialContext(ctx, "unix", path)
				}
				return dialer.DialContext(ctx, network, address)
			})},
	}, log, nil, nil, parts.Into, reg)
	if err != nil {
		return nil, fmt.Errorf("build scrape pools: %w", err)
	}
	full, err := cfg.prometheus(log)
	if err != nil {
		return nil, err
	}
	l := &Loop{
		cfg: cfg, parts: parts, log: log, manager: manager, pools: full, since: map[string]time.Time{},
		targets: prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_scrape_targets", Help: "Targets that are scraped."}),
		left:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_scrape_targets_left_out", Help: "Objects that ask to be scraped and are not."}),
	}
	reg.MustRegister(l.targets, l.left)
	return l, nil
}

// host stands for a socket in a URL.
func (o Own) host() string { return o.Name + ".socket" }

// prometheus is the configuration in Prometheus' own words: its package takes
// only what went through its parser.
func (c Config) prometheus(log *slog.Logger) (*config.Config, error) {
	seconds := func(d time.Duration) string { return model.Duration(d).String() }
	job := func(name string, interval, timeout time.Duration) map[string]any {
		return map[string]any{
			"job_name": name, "scrape_interval": seconds(interval), "scrape_timeout": seconds(timeout),
			"sample_limit": c.SampleLimit, "label_limit": c.LabelLimit, "body_size_limit": fmt.Sprintf("%dB", c.BodyLimit),
			"fallback_scrape_protocol": "PrometheusText0.0.4", "keep_dropped_targets": 100,
		}
	}
	jobs := []any{
		job(podPool, c.Interval, c.Timeout),
		job(firstPool, firstInterval, min(c.Timeout, firstInterval)),
	}
	for _, o := range c.Own {
		j := job(o.Name, c.Interval, c.Timeout)
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

// Run scrapes until ctx ends.
func (l *Loop) Run(ctx context.Context) error {
	sets := make(chan map[string][]*targetgroup.Group)
	var parts sync.WaitGroup
	broken := make(chan error, 1)
	parts.Go(func() {
		// The library asks DNS for this machine's full name here, which takes ten
		// seconds where no DNS answers. What comes from memory does not wait.
		if err := l.manager.ApplyConfig(l.pools); err != nil {
			broken <- fmt.Errorf("build scrape pools: %w", err)
			return
		}
		_ = l.manager.Run(sets) // ends with nil only
	})
	for i := range l.cfg.Local {
		parts.Go(func() { l.runLocal(ctx, l.cfg.Local[i]) })
	}
	defer parts.Wait()
	defer l.manager.Stop()
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	last := ""
	for {
		want, mark := l.look(time.Now())
		if mark != last {
			l.keepAlive(want)
			select {
			case sets <- want:
				last = mark
			case err := <-broken:
				return err
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-l.parts.Changed:
		}
	}
}

// look decides the targets of now. The mark differs when they differ.
func (l *Loop) look(now time.Time) (map[string][]*targetgroup.Group, string) {
	want := map[string][]*targetgroup.Group{podPool: {}, firstPool: {}}
	for _, o := range l.cfg.Own {
		address := o.Address
		if o.Socket != "" {
			address = o.host()
		}
		want[o.Name] = []*targetgroup.Group{group(o.Name, address, l.withNode(o.Labels), nil)}
	}
	var targets []target.Target
	var dropped []target.Dropped
	if l.parts.Objects != nil {
		pods, services := l.parts.Objects()
		targets, dropped = target.Decide(l.cfg.Node, pods, services)
		if l.parts.Monitors != nil {
			more, left := target.Monitored(l.cfg.Node, l.parts.Monitors(), pods, services)
			targets, dropped = append(targets, more...), append(dropped, left...)
		}
	}
	if n := len(targets); n > l.cfg.TargetLimit {
		for _, t := range targets[l.cfg.TargetLimit:] {
			dropped = append(dropped, target.Dropped{From: t.From, Reason: fmt.Sprintf("this node has %d targets, the limit is %d", n, l.cfg.TargetLimit)})
		}
		targets = targets[:l.cfg.TargetLimit]
	}
	mark := ""
	l.mu.Lock()
	defer l.mu.Unlock()
	live := make(map[string]bool, len(targets))
	for _, t := range targets {
		key := t.Key()
		if live[key] {
			dropped = append(dropped, target.Dropped{From: t.From, Reason: "scraped already: " + key})
			continue
		}
		live[key] = true
		if l.since[key].IsZero() {
			l.since[key] = now
		}
		pool := podPool
		if now.Sub(l.since[key]) < firstSpan {
			pool = firstPool
		}
		mark += pool + " " + key + fmt.Sprint(t.Labels) + "\n"
		want[pool] = append(want[pool], group(key, t.Address, t.Labels, map[string]string{
			"__scheme__": t.Scheme, "__metrics_path__": t.Path,
		}))
	}
	l.dropped = dropped
	maps.DeleteFunc(l.since, func(key string, _ time.Time) bool { return !live[key] })
	l.targets.Set(float64(len(targets) + len(l.cfg.Own) + len(l.cfg.Local)))
	l.left.Set(float64(len(dropped)))
	return want, mark + "."
}

// keepAlive tells the first-look pool which of its targets only change pools:
// their series go on, so they must not be marked as ended.
func (l *Loop) keepAlive(want map[string][]*targetgroup.Group) {
	stays := map[string]bool{}
	for _, g := range want[podPool] {
		stays[string(g.Targets[0][model.AddressLabel])] = true
	}
	var moving []*scrape.Target
	for _, t := range l.manager.TargetsActive()[firstPool] {
		if stays[t.URL().Host] {
			moving = append(moving, t)
		}
	}
	l.manager.DisableEndOfRunStalenessMarkers(firstPool, moving)
}

func (l *Loop) withNode(have map[string]string) map[string]string {
	out := map[string]string{"node": l.cfg.Node}
	maps.Copy(out, have)
	return out
}

func group(source, address string, lists ...map[string]string) *targetgroup.Group {
	one := model.LabelSet{model.AddressLabel: model.LabelValue(address)}
	for _, list := range lists {
		for k, v := range list {
			one[model.LabelName(k)] = model.LabelValue(v)
		}
	}
	return &targetgroup.Group{Source: source, Targets: []model.LabelSet{one}}
}

// TargetsActive, TargetsDropped, TargetsDroppedCounts, ScrapePoolConfig and
// ScrapePools are what Prometheus' API asks.
func (l *Loop) TargetsActive() map[string][]*scrape.Target { return l.manager.TargetsActive() }

// TargetsDropped are targets dropped by relabelling.
func (l *Loop) TargetsDropped() map[string][]*scrape.Target { return l.manager.TargetsDropped() }

// TargetsDroppedCounts counts them.
func (l *Loop) TargetsDroppedCounts() map[string]int { return l.manager.TargetsDroppedCounts() }

// ScrapePoolConfig is the configuration of one pool.
func (l *Loop) ScrapePoolConfig(name string) (*config.ScrapeConfig, error) {
	return l.manager.ScrapePoolConfig(name)
}

// ScrapePools lists the pools.
func (l *Loop) ScrapePools() []string { return l.manager.ScrapePools() }

// Dropped are the objects that ask to be scraped and are not, with reasons.
func (l *Loop) Dropped() []target.Dropped {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.dropped)
}

// Status is one row of the target listing.
type Status struct {
	URL    string            `json:"url"`
	Labels map[string]string `json:"labels"`
	Health string            `json:"health"`
	Last   time.Time         `json:"last"`
	Took   float64           `json:"took"` // seconds
	Error  string            `json:"error,omitempty"`
}

// ServeHTTP lists targets and what is left out as JSON:
// {"targets":[Status…],"leftOut":[{"from","reason"}…]}.
func (l *Loop) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	rows := []Status{}
	for _, list := range l.manager.TargetsActive() {
		for _, t := range list {
			s := Status{URL: t.URL().String(), Labels: t.Labels(labels.NewBuilder(labels.EmptyLabels())).Map(), Health: string(t.Health()), Last: t.LastScrape(), Took: t.LastScrapeDuration().Seconds()}
			if err := t.LastError(); err != nil {
				s.Error = err.Error()
			}
			rows = append(rows, s)
		}
	}
	slices.SortFunc(rows, func(a, b Status) int { return slices.Compare([]string{a.URL}, []string{b.URL}) })
	left := l.Dropped()
	if left == nil {
		left = []target.Dropped{}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"targets": rows, "leftOut": left}) // the client is gone otherwise
}

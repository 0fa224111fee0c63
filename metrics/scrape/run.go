package scrape

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/scrape"

	"perch/metrics/family"
	"perch/metrics/target"
)

const (
	podPool = "pods" // targets by annotation

	firstInterval = 2 * time.Second
	firstSpan     = 2*firstInterval + time.Second
	lookInterval  = time.Second

	// What the scraper tells itself about a target; not stored.
	fromLabel = "__perch_from" // the object that asks
	keyLabel  = "__perch_key"  // which target it is, whatever its interval
	homeLabel = "__perch_home" // the namespace it is in
)

// Loop scrapes. It implements what promapi asks of Targets.
type Loop struct {
	cfg     Config
	parts   Parts
	log     *slog.Logger
	manager *scrape.Manager
	gate    *gate
	pools   *config.Config // those that are always there
	sockets map[string]string
	word    string // see Own.host
	metrics *metrics
	cuts    cuts
	files   *fileJobs                         // nil without Config.File
	made    []atomic.Pointer[[]family.Family] // of each Local; nil: not gathered yet

	mu       sync.Mutex
	dropped  []target.Dropped
	since    map[string]time.Time      // target → first seen
	jobPools map[string]pool           // by name
	current  *config.Config            // with the pools of jobs
	near     bool                      // the file names this machine
	open     map[string]bool           // addresses that may be this machine
	newest   map[string]*scrape.Target // by key
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
	full, err := cfg.prometheus(log)
	if err != nil {
		return nil, err
	}
	l := &Loop{
		cfg: cfg, parts: parts, log: log, pools: full, gate: &gate{into: parts.Into, most: int(cfg.SampleLimit), known: map[*scrape.Target]answered{}}, sockets: map[string]string{}, word: rand.Text(),
		since: map[string]time.Time{}, jobPools: map[string]pool{}, metrics: newMetrics(reg), cuts: cuts{}, made: make([]atomic.Pointer[[]family.Family], len(cfg.Local)),
	}
	l.gate.wide, l.gate.foreign, l.gate.reserved = parts.Wide, l.metrics.foreign, l.metrics.reserved
	if cfg.File != "" {
		if l.files, err = newFileJobs(cfg, full.ScrapeConfigs, log, reg); err != nil {
			return nil, err
		}
		l.files.refused = parts.Refused
	}
	for _, o := range cfg.Own {
		if o.Socket != "" {
			l.sockets[o.host(l.word)+":80"] = o.Socket
		}
	}
	for name, path := range cfg.Sockets {
		l.sockets[name+":80"] = path
	}
	l.manager, err = scrape.NewManager(&scrape.Options{
		DiscoveryReloadInterval:  model.Duration(lookInterval),
		DiscoveryReloadOnStartup: true,
		PassMetadataInContext:    true, // names the target to gate
		HTTPClientOptions:        []config_util.HTTPClientOption{config_util.WithDialContextFunc(l.dial)},
	}, log, nil, nil, l.gate, reg)
	if err != nil {
		return nil, fmt.Errorf("build scrape pools: %w", err)
	}
	return l, nil
}

// Run scrapes until ctx ends.
func (l *Loop) Run(ctx context.Context) error {
	sets := make(chan map[string][]*targetgroup.Group)
	var parts sync.WaitGroup
	parts.Go(func() { _ = l.manager.Run(sets) }) // ends with nil only
	if l.files != nil {
		parts.Go(func() {
			if err := l.files.Run(ctx); err != nil {
				l.log.Error("targets of the scrape configuration are not looked for", "err", err)
			}
		})
	}
	for i := range l.cfg.Local {
		parts.Go(func() { l.runLocal(ctx, i) })
	}
	defer parts.Wait()
	defer l.manager.Stop()
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	last := ""
	for {
		now := time.Now()
		want, pools, open, mark := l.look(now)
		if mark != last {
			if pools != nil {
				// The library asks DNS for this machine's full name here, which takes ten
				// seconds where no DNS answers. What comes from memory does not wait.
				if err := l.manager.ApplyConfig(pools); err != nil {
					l.log.Error("not all scrape pools were built", "err", err)
				}
			}
			l.keepAlive(want)
			l.mu.Lock()
			l.open = open // after the pools that may not follow a redirect there
			l.mu.Unlock()
			select {
			case sets <- want:
				last = mark
			case <-ctx.Done():
				return nil
			}
		}
		l.watchCuts(now)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-l.parts.Changed:
		}
	}
}

// look decides the targets of now and the addresses that may be this machine; the
// pools are nil while they stay what they were. The mark differs when anything differs.
func (l *Loop) look(now time.Time) (map[string][]*targetgroup.Group, *config.Config, map[string]bool, string) {
	want := map[string][]*targetgroup.Group{podPool: {}}
	open := map[string]bool{}
	for _, o := range l.cfg.Own {
		address := o.Address
		if o.Socket != "" {
			address = o.host(l.word)
		}
		open[address] = true
		want[o.Name] = []*targetgroup.Group{group(o.Name, address, l.withNode(o.Labels))}
	}
	var annotated []target.Target
	var dropped []target.Dropped
	if l.parts.Objects != nil {
		pods, services := l.parts.Objects()
		annotated, dropped = target.Decide(l.cfg.Node, pods, services)
	}
	var jobs []target.Job
	if l.parts.Jobs != nil {
		var left []target.Dropped
		jobs, left = l.parts.Jobs()
		dropped = append(dropped, left...)
	}
	filesChanged, hidden := l.files != nil && l.files.look(now), map[string]int(nil)
	if l.files != nil {
		hidden = l.manager.TargetsDroppedCounts()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	pools, changed, left := l.plan(jobs, filesChanged)
	dropped = append(dropped, left...)
	if !changed {
		pools = nil
	}
	mark := ""
	live := map[string]bool{}
	add := func(pool string, t target.Target, every time.Duration, most uint) {
		id := t.Key() + fmt.Sprint(t.Labels)
		switch {
		case live[id]:
			dropped = append(dropped, target.Dropped{From: t.From, Reason: "scraped already: " + t.Key(), Partly: true})
			return
		case len(live) >= l.cfg.TargetLimit:
			dropped = append(dropped, target.Dropped{From: t.From, Reason: fmt.Sprintf("%s is left out: this node has %d targets, its limit", t.Key(), l.cfg.TargetLimit)})
			return
		}
		live[id] = true
		if t.OfPod {
			open[t.Address] = true // on the host's network it may be this machine
		}
		if l.since[id].IsZero() {
			l.since[id] = now
		}
		more := map[string]string{"__scheme__": t.Scheme, "__metrics_path__": t.Path, fromLabel: t.From, keyLabel: id, mostLabel: fmt.Sprint(most), homeLabel: t.Namespace}
		if now.Sub(l.since[id]) < firstSpan && every > firstInterval && t.Labels[model.ScrapeIntervalLabel] == "" {
			more[model.ScrapeIntervalLabel], more[model.ScrapeTimeoutLabel] = seconds(firstInterval), seconds(min(firstInterval, l.cfg.Timeout))
		}
		mark += pool + " " + id + more[model.ScrapeIntervalLabel] + "\n"
		want[pool] = append(want[pool], group(id, t.Address, t.Labels, more))
	}
	for _, t := range annotated {
		add(podPool, t, l.cfg.Interval, l.cfg.SampleLimit)
	}
	for _, j := range jobs {
		p := l.jobPools[j.Name]
		if p.err != nil {
			continue
		}
		mark += j.Name + "\n" + string(j.Settings)
		want[j.Name] = []*targetgroup.Group{}
		for _, t := range j.Targets {
			if !t.OfPod && target.GuardedAddress(t.Address) { // here, because a file may have the same address
				dropped = append(dropped, target.Dropped{From: t.From, Reason: notNamed(t.Address)})
				continue
			}
			t, ok, notes := l.kept(t)
			if dropped = append(dropped, notes...); !ok {
				continue
			}
			add(j.Name, t, time.Duration(p.parsed.ScrapeInterval), p.most)
		}
	}
	l.metrics.count(want)
	found := 0
	if l.files != nil { // these are counted by the library
		groups, named, left, at := l.files.targets(now, l.cfg.TargetLimit-len(live), hidden)
		maps.Copy(want, groups)
		maps.Copy(open, named)
		mark, dropped = mark+at+"\n", append(dropped, left...)
		for _, list := range groups {
			for _, g := range list {
				found += len(g.Targets)
			}
		}
	}
	l.dropped = dropped
	maps.DeleteFunc(l.since, func(id string, _ time.Time) bool { return !live[id] })
	l.metrics.targets.Set(float64(len(live) + found + len(l.cfg.Own) + len(l.cfg.Local)))
	out := 0
	for _, d := range dropped {
		if !d.Partly {
			out++
		}
	}
	l.metrics.left.Set(float64(out))
	return want, pools, open, mark + "."
}

// keepAlive tells the library which targets only change their interval, after
// the first look: their series go on, so they must not be marked as ended.
func (l *Loop) keepAlive(want map[string][]*targetgroup.Group) {
	active := l.active()
	for pool, groups := range want {
		stays := map[string]bool{}
		for _, g := range groups {
			for _, one := range g.Targets {
				if one[model.ScrapeIntervalLabel] == "" && one[keyLabel] != "" {
					stays[string(one[keyLabel])] = true
				}
			}
		}
		var moving []*scrape.Target
		for _, t := range active[pool] {
			if key := t.GetValue(keyLabel); key != "" && stays[key] && t.GetValue(model.ScrapeIntervalLabel) == seconds(firstInterval) {
				moving = append(moving, t)
			}
		}
		if len(moving) > 0 {
			l.manager.DisableEndOfRunStalenessMarkers(pool, moving)
		}
	}
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

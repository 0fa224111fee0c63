package scrape

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	_ "github.com/prometheus/prometheus/discovery/dns"  // dns_sd_configs
	_ "github.com/prometheus/prometheus/discovery/file" // file_sd_configs
	_ "github.com/prometheus/prometheus/discovery/http" // http_sd_configs
	"github.com/prometheus/prometheus/discovery/targetgroup"

	"perch/metrics/target"
)

// fileJobs are the scrape_configs of a file in Prometheus' format, with targets
// that are static or found by files, DNS or HTTP. Who may write the file may name
// this machine and its files.
type fileJobs struct {
	cfg    Config
	log    *slog.Logger // keeps what discovery says in failed, too
	reg    prometheus.Registerer
	own    map[string]bool // names that are taken
	finder *discovery.Manager
	kinds  *discovery.SDMetrics
	failed *failures

	refused func(error) // of Parts

	stamp   string   // of the files that were read last
	include []string // more files, patterns
	applied int      // how often pools changed
	pools   []*config.ScrapeConfig
	unbuilt map[string]string // pools that cannot be built yet, with the reason
	tried   time.Time         // to build them
	most    map[string]uint   // samples of one answer, by pool
	broken  string            // why the newest file is not in force
	notes   []target.Dropped  // what of the file does nothing

	mu     sync.Mutex
	groups map[string][]*targetgroup.Group
	count  int // of changes
}

func newFileJobs(cfg Config, own []*config.ScrapeConfig, log *slog.Logger, reg prometheus.Registerer) (*fileJobs, error) {
	kinds, err := discovery.CreateAndRegisterSDMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("build discovery for %s: %w", cfg.File, err)
	}
	failed := &failures{of: map[string]failure{}}
	f := &fileJobs{cfg: cfg, log: slog.New(listener{Handler: log.Handler(), to: failed}), failed: failed, reg: reg, kinds: kinds, own: map[string]bool{}}
	for _, p := range own {
		f.own[p.JobName] = true
	}
	return f, nil
}

// Run finds targets until ctx ends.
func (f *fileJobs) Run(ctx context.Context) error {
	f.mu.Lock()
	f.finder = discovery.NewManager(ctx, f.log, f.reg, f.kinds, discovery.Name("scrape-config"), discovery.Updatert(lookInterval))
	finder := f.finder
	f.mu.Unlock()
	if finder == nil {
		return fmt.Errorf("build discovery for %s", f.cfg.File)
	}
	var run sync.WaitGroup
	run.Go(func() { _ = finder.Run() }) // ends with ctx only
	defer run.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case groups := <-finder.SyncCh():
			f.mu.Lock()
			f.groups = groups
			f.count++
			f.mu.Unlock()
		}
	}
}

// look reads the file when it is another one than before, and answers whether
// its pools are others. A broken one leaves what was before.
func (f *fileJobs) look(now time.Time) bool {
	f.mu.Lock()
	finder := f.finder
	f.mu.Unlock()
	if finder == nil {
		return false
	}
	if stamp := f.newStamp(); stamp != f.stamp {
		f.stamp = stamp
		err := f.load(finder)
		f.tried = now
		if f.refused != nil {
			f.refused(err)
		}
		if err != nil {
			f.broken = err.Error()
			f.log.Error("scrape configuration refused, the one before stays in force", "err", err)
			return false
		}
		f.broken, f.stamp = "", f.newStamp() // includes may be others now
		f.applied++
		f.log.Info("scrape configuration applied", "count", len(f.pools))
		return true
	}
	if len(f.unbuilt) == 0 || now.Sub(f.tried) < buildAgain {
		return false
	}
	f.tried = now
	before := len(f.unbuilt)
	f.build()
	if len(f.unbuilt) == before {
		return false
	}
	f.applied++
	return true
}

// has answers whether a job of the file has this name.
func (f *fileJobs) has(name string) bool {
	return slices.ContainsFunc(f.pools, func(p *config.ScrapeConfig) bool { return p.JobName == name })
}

// newStamp differs when a file that was read differs.
func (f *fileJobs) newStamp() string {
	out := ""
	for _, pattern := range append([]string{f.cfg.File}, f.include...) {
		names, _ := filepath.Glob(pattern) // a bad pattern is refused when it is read
		if pattern == f.cfg.File {
			names = []string{pattern}
		}
		for _, name := range names {
			info, err := os.Stat(name)
			if err != nil {
				out += fmt.Sprintln(name, err)
				continue
			}
			out += fmt.Sprintln(name, info.ModTime().UnixNano(), info.Size())
		}
	}
	return out
}

func (f *fileJobs) load(finder *discovery.Manager) error {
	full, pools, err := readFile(f.cfg.File, f.log)
	if err != nil {
		return err
	}
	most, found := map[string]uint{}, map[string]discovery.Configs{}
	for _, p := range pools {
		if f.own[p.JobName] {
			return fmt.Errorf("%s: the job name %q is perch's own: use another one", f.cfg.File, p.JobName)
		}
		most[p.JobName] = tighter(p.SampleLimit, f.cfg.SampleLimit)
		p.HTTPClientConfig.EnableHTTP2 = false // see metered
		f.cfg.bound(p)
		found[p.JobName] = p.ServiceDiscoveryConfigs
	}
	f.failed.forget()
	if err := finder.ApplyConfig(found); err != nil {
		return fmt.Errorf("find targets of %s: %w", f.cfg.File, err)
	}
	f.pools, f.most, f.include, f.notes = pools, most, full.ScrapeConfigFiles, f.unread(full)
	f.build()
	return nil
}

// build tells the pools that the library would not build: a certificate that is
// not there, for example. It would not try again by itself.
func (f *fileJobs) build() {
	f.unbuilt = map[string]string{}
	for _, p := range f.pools {
		client, err := config_util.NewClientFromConfig(p.HTTPClientConfig, p.JobName)
		if err != nil {
			f.unbuilt[p.JobName] = err.Error()
			continue
		}
		client.CloseIdleConnections()
	}
}

// built are the pools that the library can have.
func (f *fileJobs) built() []*config.ScrapeConfig {
	return slices.DeleteFunc(slices.Clone(f.pools), func(p *config.ScrapeConfig) bool { return f.unbuilt[p.JobName] != "" })
}

// unread names the other parts of a prometheus.yml, which mean nothing here.
func (f *fileJobs) unread(full *config.Config) []target.Dropped {
	var out []target.Dropped
	say := func(is bool, reason string) {
		if is {
			out = append(out, target.Dropped{From: "file/" + f.cfg.File, Reason: reason, Partly: true})
		}
	}
	say(len(full.RuleFiles) > 0, "rule_files is not read: name their directory by --rules-dir")
	say(len(full.AlertingConfig.AlertmanagerConfigs) > 0, "alerting is not read: routes are those of --alert-config")
	say(len(full.RemoteWriteConfigs) > 0, "remote_write is not read: name a file by --remote-write")
	say(len(full.RemoteReadConfigs) > 0, "remote_read is not supported")
	say(!full.GlobalConfig.ExternalLabels.IsEmpty(), "external_labels does nothing: what is sent by --remote-write gets those of its file")
	return out
}

// near tells whether a job names this machine by an address that objects may not
// name.
func (f *fileJobs) near() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, groups := range f.groups {
		for _, g := range groups {
			if slices.ContainsFunc(g.Targets, func(t model.LabelSet) bool { return target.GuardedAddress(string(t[model.AddressLabel])) }) {
				return true
			}
		}
	}
	return false
}

// targets are the groups found, by pool, room targets at most; addresses that may
// be this machine; what is not scraped and why; and a mark that differs when
// anything to scrape differs.
func (f *fileJobs) targets(now time.Time, room int, hidden map[string]int) (map[string][]*targetgroup.Group, map[string]bool, []target.Dropped, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	left := slices.Clone(f.notes)
	if f.broken != "" {
		left = append(left, target.Dropped{From: "file/" + f.cfg.File, Reason: f.broken})
	}
	out, open := map[string][]*targetgroup.Group{}, map[string]bool{}
	for _, p := range f.pools {
		from := "file/" + p.JobName
		if reason := f.unbuilt[p.JobName]; reason != "" {
			left = append(left, target.Dropped{From: from, Reason: reason})
			continue
		}
		out[p.JobName] = []*targetgroup.Group{}
		more := model.LabelSet{fromLabel: model.LabelValue(from), mostLabel: model.LabelValue(strconv.FormatUint(uint64(f.most[p.JobName]), 10)), nodeLabel: model.LabelValue(f.cfg.Node)}
		found, asked := 0, room
		for _, g := range f.groups[p.JobName] {
			found += len(g.Targets)
			labels := maps.Clone(more)
			maps.Copy(labels, g.Labels)
			targets := slices.Clone(g.Targets[:min(len(g.Targets), max(room, 0))])
			room -= len(targets)
			out[p.JobName] = append(out[p.JobName], &targetgroup.Group{Source: g.Source, Targets: targets, Labels: labels})
			for _, t := range targets {
				address := string(t[model.AddressLabel])
				open[address] = true
				if _, _, err := net.SplitHostPort(address); err != nil {
					open[net.JoinHostPort(address, "80")], open[net.JoinHostPort(address, "443")] = true, true
				}
			}
		}
		if found > asked {
			left = append(left, target.Dropped{From: from, Reason: fmt.Sprintf("%d of %d targets are left out: this node has its limit of %d", found-asked, found, f.cfg.TargetLimit)})
		}
		left = append(left, whyNot(from, found, hidden[p.JobName], f.failed.newest(p, now))...)
	}
	return out, open, left, fmt.Sprint(f.count, " ", f.applied, " ", room > 0)
}

// whyNot says why a job scrapes nothing, or less than it asks for.
func whyNot(from string, found, hidden int, failed string) []target.Dropped {
	switch {
	case failed != "":
		return []target.Dropped{{From: from, Reason: failed, Partly: found > 0}}
	case found == 0:
		return []target.Dropped{{From: from, Reason: "no target found"}}
	case hidden > 0:
		return []target.Dropped{{From: from, Reason: fmt.Sprintf("relabel_configs drops %d of %d targets", hidden, found), Partly: hidden < found}}
	}
	return nil
}

const (
	nodeLabel  = "node"
	buildAgain = 5 * time.Second
)

package scrape

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
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
	log    *slog.Logger
	reg    prometheus.Registerer
	own    map[string]bool // names that are taken
	finder *discovery.Manager
	kinds  *discovery.SDMetrics

	read struct { // of the file that was read last
		at   time.Time
		size int64
	}
	pools []*config.ScrapeConfig
	most  map[string]uint // samples of one answer, by pool
	left  []target.Dropped

	mu     sync.Mutex
	groups map[string][]*targetgroup.Group
	count  int // of changes
}

func newFileJobs(cfg Config, own []*config.ScrapeConfig, log *slog.Logger, reg prometheus.Registerer) (*fileJobs, error) {
	kinds, err := discovery.CreateAndRegisterSDMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("build discovery for %s: %w", cfg.File, err)
	}
	f := &fileJobs{cfg: cfg, log: log, reg: reg, kinds: kinds, own: map[string]bool{}}
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
func (f *fileJobs) look() bool {
	f.mu.Lock()
	finder := f.finder
	f.mu.Unlock()
	if finder == nil {
		return false
	}
	info, err := os.Stat(f.cfg.File)
	if err == nil && info.ModTime().Equal(f.read.at) && info.Size() == f.read.size {
		return false
	}
	if err == nil {
		f.read.at, f.read.size = info.ModTime(), info.Size()
		err = f.load(finder)
	}
	if err != nil {
		reason := err.Error()
		if len(f.left) == 0 || f.left[0].Reason != reason {
			f.log.Error("scrape configuration refused, the one before stays in force", "err", err)
		}
		f.left = []target.Dropped{{From: "file/" + f.cfg.File, Reason: reason}}
		return false
	}
	f.left = nil
	f.log.Info("scrape configuration applied", "count", len(f.pools))
	return true
}

func (f *fileJobs) load(finder *discovery.Manager) error {
	full, err := config.LoadFile(f.cfg.File, false, f.log)
	if err != nil {
		return fmt.Errorf("read --scrape-config: %w", err)
	}
	pools, err := full.GetScrapeConfigs()
	if err != nil {
		return fmt.Errorf("read --scrape-config: %w", err)
	}
	most, found := map[string]uint{}, map[string]discovery.Configs{}
	for _, p := range pools {
		if f.own[p.JobName] {
			return fmt.Errorf("read --scrape-config: the job name %q is perch's own", p.JobName)
		}
		most[p.JobName] = tighter(p.SampleLimit, f.cfg.SampleLimit)
		p.HTTPClientConfig.EnableHTTP2 = false // see metered
		f.cfg.bound(p)
		found[p.JobName] = p.ServiceDiscoveryConfigs
	}
	if err := finder.ApplyConfig(found); err != nil {
		return fmt.Errorf("find targets of --scrape-config: %w", err)
	}
	f.pools, f.most = pools, most
	return nil
}

// targets are the groups found, by pool, addresses that may be this machine, and
// a mark that differs when anything differs.
func (f *fileJobs) targets() (map[string][]*targetgroup.Group, map[string]bool, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out, open := map[string][]*targetgroup.Group{}, map[string]bool{}
	for _, p := range f.pools {
		out[p.JobName] = []*targetgroup.Group{}
		more := model.LabelSet{fromLabel: model.LabelValue("file/" + p.JobName), mostLabel: model.LabelValue(strconv.FormatUint(uint64(f.most[p.JobName]), 10)), nodeLabel: model.LabelValue(f.cfg.Node)}
		for _, g := range f.groups[p.JobName] {
			labels := maps.Clone(more)
			maps.Copy(labels, g.Labels)
			out[p.JobName] = append(out[p.JobName], &targetgroup.Group{Source: g.Source, Targets: slices.Clone(g.Targets), Labels: labels})
			for _, t := range g.Targets {
				address := string(t[model.AddressLabel])
				open[address] = true
				if _, _, err := net.SplitHostPort(address); err != nil {
					open[net.JoinHostPort(address, "80")], open[net.JoinHostPort(address, "443")] = true, true
				}
			}
		}
	}
	return out, open, fmt.Sprint(f.count, f.read.at, f.read.size)
}

const nodeLabel = "node"

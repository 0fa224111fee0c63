package cadvisor

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/google/cadvisor/lib/cache/memory"
	"github.com/google/cadvisor/lib/container"
	"github.com/google/cadvisor/lib/container/containerd"
	_ "github.com/google/cadvisor/lib/container/containerd/install" // network of a pod is found through its sandbox
	"github.com/google/cadvisor/lib/manager"
	"github.com/google/cadvisor/lib/metrics"
	info "github.com/google/cadvisor/lib/model"
	"github.com/google/cadvisor/lib/utils/sysfs"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/utils/clock"

	"perch/agent/stats"
)

// Config says what to watch.
type Config struct {
	Root   string // cgroup of this cluster, as in stats.Config
	Socket string // of the container runtime

	// Every is the library's own pace. Gather refreshes what is older than
	// MaxAge itself, so this only has to find new containers.
	Every  time.Duration
	MaxAge time.Duration
}

// Default goes with a Cold interval of 15 s.
func Default() Config {
	return Config{Root: "/perch", Every: time.Minute, MaxAge: 5 * time.Second}
}

// Source is a prometheus.Gatherer; it is empty until Run has started the
// library.
type Source struct {
	cfg  Config
	name func(podUID, containerID string) (stats.Identity, bool)
	log  *slog.Logger

	mu  sync.Mutex
	reg *prometheus.Registry // nil while the library does not run
}

// New starts nothing. name is the same as stats.Parts.Name.
func New(cfg Config, name func(podUID, containerID string) (stats.Identity, bool), log *slog.Logger) *Source {
	return &Source{cfg: cfg, name: name, log: log}
}

// wanted is what the library measures; the rest is the fast reader's.
func wanted() container.MetricSet {
	return container.MetricSet{
		container.NetworkUsageMetrics: {}, container.DiskIOMetrics: {}, container.ProcessMetrics: {},
	}
}

// Run waits for the runtime, then runs the library until ctx ends.
func (s *Source) Run(ctx context.Context) error {
	if !s.await(ctx) {
		return nil
	}
	*containerd.ArgContainerdEndpoint = s.cfg.Socket
	every, dynamic := s.cfg.Every, false
	manager.HousekeepingInterval = &every
	m, err := manager.New(memory.New(2*time.Minute, nil), sysfs.NewRealSysFs(),
		manager.HousekeepingConfig{Interval: &every, AllowDynamic: &dynamic}, wanted(), []string{s.cfg.Root}, nil, "", 0)
	if err != nil {
		return fmt.Errorf("build cAdvisor: %w", err)
	}
	if err := m.Start(); err != nil {
		return fmt.Errorf("start cAdvisor: %w", err)
	}
	reg := prometheus.NewRegistry()
	age := s.cfg.MaxAge
	reg.MustRegister(
		metrics.NewPrometheusCollector(m, s.labels, wanted(), clock.RealClock{}, info.RequestOptions{
			IdType: info.TypeName, Count: 1, Recursive: true, MaxAge: &age,
		}),
		metrics.NewPrometheusMachineCollector(m, wanted()),
	)
	s.set(reg)
	<-ctx.Done()
	s.set(nil)
	if err := m.Stop(); err != nil {
		return fmt.Errorf("stop cAdvisor: %w", err)
	}
	return nil
}

// await returns once the runtime answers: the library looks for it only when
// it starts.
func (s *Source) await(ctx context.Context) bool {
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", s.cfg.Socket)
		if err == nil {
			_ = c.Close() // only to see that it listens
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (s *Source) set(reg *prometheus.Registry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reg = reg
}

// Gather is what the library knows now, without cgroups whose pod is not known.
func (s *Source) Gather() ([]*dto.MetricFamily, error) {
	s.mu.Lock()
	reg := s.reg
	s.mu.Unlock()
	if reg == nil {
		return nil, nil
	}
	families, err := reg.Gather()
	for _, f := range families {
		kept := f.Metric[:0]
		for _, m := range f.Metric {
			if !strings.Contains(value(m, "id"), "/pod") || value(m, "pod") != "" {
				kept = append(kept, m)
			}
		}
		f.Metric = kept
	}
	return families, err
}

func value(m *dto.Metric, label string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == label {
			return l.GetValue()
		}
	}
	return ""
}

func (s *Source) labels(c *info.ContainerInfo) map[string]string {
	return stats.KubeletLabels(s.cfg.Root, c.Name, s.name)
}

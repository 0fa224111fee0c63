package cadvisor

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/cadvisor/lib/cache/memory"
	"github.com/google/cadvisor/lib/container"
	"github.com/google/cadvisor/lib/manager"
	"github.com/google/cadvisor/lib/metrics"
	info "github.com/google/cadvisor/lib/model"
	"github.com/google/cadvisor/lib/utils/sysfs"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"k8s.io/utils/clock"

	"perch/agent/stats"
)

const (
	pod    = "0f0e0d0c-0b0a-0908-0706-050403020100"
	holder = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	web    = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// world makes the cgroups of one pod with a sandbox in a network of its own and
// a container, each with a process.
func world(t testing.TB) (root string) {
	t.Helper()
	root = fmt.Sprintf("/perch-beside-%d", os.Getpid())
	leaves := []string{root + "/burstable/pod" + pod + "/" + holder, root + "/burstable/pod" + pod + "/" + web}
	bases := []string{"/sys/fs/cgroup"}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		bases, _ = filepath.Glob("/sys/fs/cgroup/*")
		bases = slices.DeleteFunc(bases, func(b string) bool {
			in, err := os.Lstat(b)
			return err != nil || !in.IsDir() || strings.HasSuffix(b, "/cpuset") || strings.HasSuffix(b, "/systemd")
		})
	}
	t.Cleanup(func() {
		for _, base := range bases {
			for _, l := range leaves {
				for ; l != "/"; l = filepath.Dir(l) {
					_ = os.Remove(base + l) // made above, if at all
				}
			}
		}
	})
	for _, base := range bases {
		for _, l := range leaves {
			if err := os.MkdirAll(base+l, 0o755); err != nil {
				t.Skip("cannot make cgroups: ", err)
			}
		}
		if len(bases) > 1 {
			continue
		}
		for _, p := range []string{"", root, root + "/burstable", root + "/burstable/pod" + pod} {
			if err := os.WriteFile(base+p+"/cgroup.subtree_control", []byte("+cpu +memory +pids +io"), 0o644); err != nil {
				t.Skip("cannot give controllers to cgroups: ", err)
			}
		}
	}
	for i, l := range leaves {
		args := [][]string{{"unshare", "--net", "cat"}, {"cat"}}[i]
		cmd := exec.Command(args[0], args[1:]...)
		work, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Skip("cannot start a process: ", err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		for _, base := range bases {
			if err := os.WriteFile(base+l+"/cgroup.procs", fmt.Append(nil, cmd.Process.Pid), 0o644); err != nil {
				t.Skipf("cannot move a process to %s: %v", base+l, err)
			}
		}
		if _, err := work.Write(make([]byte, 16<<20)); err != nil { // the library has no cpu series of who used none
			t.Fatal(err)
		}
	}
	return root
}

func who(uid, id string) (stats.Identity, bool) {
	if uid != pod || id == holder {
		return stats.Identity{}, false
	}
	out := stats.Identity{Namespace: "red", Pod: "web-1", PodUID: uid, ID: id}
	if id == web {
		out.Container, out.Image = "web", "nginx:1"
	}
	return out, true
}

// library is cAdvisor with the metrics that kubelet wants of it.
func library(t testing.TB, root string) prometheus.Gatherer {
	t.Helper()
	every, dynamic := time.Second, false
	manager.HousekeepingInterval = &every
	wanted := container.MetricSet{
		container.CpuUsageMetrics: {}, container.MemoryUsageMetrics: {}, container.CpuLoadMetrics: {}, container.DiskIOMetrics: {},
		container.NetworkUsageMetrics: {}, container.AppMetrics: {}, container.ProcessMetrics: {}, container.OOMMetrics: {}, container.PressureMetrics: {},
	}
	m, err := manager.New(memory.New(time.Minute, nil), sysfs.NewRealSysFs(),
		manager.HousekeepingConfig{Interval: &every, AllowDynamic: &dynamic}, wanted, []string{root}, nil, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Stop() })
	reg := prometheus.NewRegistry()
	reg.MustRegister(metrics.NewPrometheusCollector(m, func(c *info.ContainerInfo) map[string]string { return stats.KubeletLabels(root, c.Name, who) },
		wanted, clock.RealClock{}, info.RequestOptions{IdType: info.TypeName, Count: 1, Recursive: true}), metrics.NewPrometheusMachineCollector(m, wanted))
	return reg
}

// shapes lists "name{label,…} TYPE of PLACE" where place is that of a cgroup: the
// machine, a pod, a container. Empty labels count as absent.
func shapes(families []*dto.MetricFamily) map[string]bool {
	out := map[string]bool{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var names []string
			place := "machine"
			for _, l := range m.GetLabel() {
				if l.GetValue() != "" {
					names = append(names, l.GetName())
				}
				switch v := l.GetValue(); {
				case l.GetName() != "id" || v == "/":
				case strings.HasSuffix(v, "/"+web):
					place = "container"
				case strings.HasSuffix(v, "/pod"+pod):
					place = "pod"
				default:
					place = ""
				}
			}
			slices.Sort(names)
			if place != "" {
				out[fmt.Sprintf("%s{%s} %s of %s", f.GetName(), strings.Join(names, ","), f.GetType(), place)] = true
			}
		}
	}
	return out
}

// retyped is a counter that is not called _total: promtool check metrics complains
// about it, and not about one without a type.
const retyped = "container_memory_failcnt"

// leftOut says of series of the library why perch has them not.
func leftOut(shape string) string {
	name, _, _ := strings.Cut(shape, "{")
	switch {
	case strings.HasPrefix(name, "container_cpu_load_"), name == "container_tasks_state":
		return "needs a netlink socket per look; kubelet's are always 0"
	case name == "container_ulimits_soft":
		return "says of one process only what its image or pod asked for"
	case name == "cadvisor_version_info", strings.HasPrefix(name, "machine_node_"), strings.HasPrefix(name, "machine_thread_"), strings.HasPrefix(name, "machine_cpu_cache"), strings.HasPrefix(name, "machine_dimm_"), name == "machine_cpu_books", name == "machine_cpu_drawers", name == "machine_nvm_avg_power_budget_watts":
		return "of the library or of its topology, which node_exporter tells"
	case strings.HasSuffix(shape, " of machine") && (strings.HasPrefix(name, "container_spec_") || name == "container_file_descriptors" || name == "container_sockets" || strings.HasPrefix(name, "container_fs_") || strings.HasPrefix(name, "container_blkio_") || name == "container_threads"):
		return "of the machine itself, which node_exporter tells"
	case strings.HasPrefix(name, "container_memory_kernel"), strings.HasPrefix(name, "container_memory_events"), strings.HasPrefix(name, "container_memory_pg"), strings.HasPrefix(name, "container_memory_file_"), strings.HasPrefix(name, "container_memory_workingset_"):
		return "newer than the rules and dashboards that are shipped"
	case strings.HasPrefix(name, "container_cpu_cfs_burst"), strings.HasPrefix(name, "container_cpu_cfs_"):
		return "there only with a cpu limit"
	case name == "container_health_state":
		return "only docker knows one"
	case name == retyped:
		return "a counter there, untyped here"
	case name == "container_last_seen":
		return "of containers only"
	}
	return ""
}

func TestBesideTheLibrary(t *testing.T) {
	root := world(t)
	theirs := library(t, root)
	cfg := stats.Default()
	cfg.Node, cfg.Instance, cfg.Root = "n1", "10.0.0.1:10250", root
	ours, err := stats.New(cfg, stats.Parts{Name: who, Machine: Machine, Sandbox: func(string) string { return holder }, Sink: func(context.Context, []stats.Sample) error { return nil }},
		slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- ours.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	missing := func() []string {
		families, err := theirs.Gather()
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		ours.CadvisorHandler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics/cadvisor", nil))
		parser := expfmt.NewTextParser(model.UTF8Validation)
		text, err := parser.TextToMetricFamilies(bytes.NewReader(w.Body.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		var list []*dto.MetricFamily
		for _, f := range text {
			list = append(list, f)
		}
		have := shapes(list)
		out := []string{"nothing was gathered yet"}
		for s := range shapes(families) {
			if strings.HasSuffix(s, "of container") {
				out[0] = ""
			}
			if !have[s] && leftOut(s) == "" {
				out = append(out, "the library has "+s)
			}
		}
		known := shapes(families)
		for s := range have {
			if !known[s] && !strings.HasPrefix(s, retyped) {
				out = append(out, "the library lacks "+s)
			}
		}
		return slices.DeleteFunc(out, func(s string) bool { return s == "" })
	}
	var last []string
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); <-time.After(500 * time.Millisecond) {
		if last = missing(); len(last) == 0 {
			break
		}
	}
	slices.Sort(last)
	for _, s := range last {
		t.Error(s)
	}
}

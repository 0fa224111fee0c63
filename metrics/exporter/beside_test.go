package exporter

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"perch/build/debiantest"
)

// Differences to Debian's node_exporter 1.5, each with its reason. What is not
// here has the same names, types, labels and values.
var (
	// Labels that came later: they are taken off ours.
	laterLabels = map[string]string{"node_disk_info": "rotational", "node_network_info": "adminstate", "node_filesystem_": "device_error"}
	// Families that came later.
	laterFamilies = []string{"node_btrfs_commits_total", "node_btrfs_commit_seconds_total", "node_btrfs_last_commit_seconds", "node_btrfs_max_commit_seconds",
		"node_zfs_arc_memory_available_bytes", "node_zfs_dbuf_cache_count", "node_zfs_dbuf_hash_hits", "node_cpu_scaling_governor", "node_hwmon_freq_freq_mhz", "node_netstat_TcpExt_TCPOFOQueue", "node_netstat_TcpExt_TCPRcvQDrop", "node_softnet_backlog_len",
		"node_softnet_cpu_collision_total", "node_softnet_flow_limit_count_total", "node_softnet_received_rps_total"}
	// Series that came later, and series that 1.5 reads from the wrong column of a
	// newer kernel: family, label and value.
	laterSeries = [][3]string{
		{"node_hwmon_sensor_label", "sensor", "freq1"},
		{"node_nfs_requests_total", "method", "GetDeviceInfo"}, {"node_nfs_requests_total", "method", "LayoutGet"},
		{"node_nfsd_requests_total", "method", "SetClientID"}, {"node_nfsd_requests_total", "method", "SetClientIDConfirm"},
		{"node_nfsd_requests_total", "method", "Verify"}, {"node_nfsd_requests_total", "method", "RelLockOwner"},
		{"node_nfsd_requests_total", "method", "Write"}, {"node_zfs_zpool_state", "state", "suspended"},
	}
	// The exporter's own process; perch's processes have series of their own.
	ofTheirProcess = []string{"go_", "process_", "promhttp_", "node_exporter_build_info"}
)

func startsWith(name string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// differs says that a series may be on one side only.
func differs(family string, m *dto.Metric) bool {
	if slices.Contains(laterFamilies, family) || startsWith(family, ofTheirProcess) {
		return true
	}
	for _, l := range m.GetLabel() {
		if slices.Contains(laterSeries, [3]string{family, l.GetName(), l.GetValue()}) || l.GetName() == "dataset" && strings.HasPrefix(l.GetValue(), "backup/my") {
			return true // their names of data sets end at a space
		}
	}
	return family == "node_network_speed_bytes" && m.GetGauge().GetValue() < 0 // a device that has no speed tells -1
}

// sameValue says that values of a family are compared, not only their series.
func sameValue(family string) bool {
	// A collector that finds nothing failed there, and did what it should here.
	return !strings.HasPrefix(family, "node_scrape_collector_")
}

// flat is what each series of families has: "name{label="value",…}" to type and
// value. Empty labels are absent ones.
func flat(families []*dto.MetricFamily) map[string]typed {
	out := map[string]typed{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if differs(f.GetName(), m) {
				continue
			}
			var pairs []string
			for _, l := range m.GetLabel() {
				later := false
				for name, label := range laterLabels {
					later = later || label == l.GetName() && strings.HasPrefix(f.GetName(), name)
				}
				if l.GetValue() != "" && !later {
					pairs = append(pairs, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
				}
			}
			slices.Sort(pairs)
			v := m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetUntyped().GetValue() // it has one of them
			if !sameValue(f.GetName()) {
				v = 0
			}
			out[f.GetName()+"{"+strings.Join(pairs, ",")+"}"] = typed{f.GetType(), v}
		}
	}
	return out
}

type typed struct {
	kind  dto.MetricType
	value float64
}

// nodeExporter runs Debian's over a machine until the test ends, leaving out what
// cfg leaves out, and returns what asks it.
func nodeExporter(t *testing.T, cfg NodeConfig, flags ...string) func() ([]*dto.MetricFamily, error) {
	t.Helper()
	tool := debiantest.Tool(t, "prometheus-node-exporter")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	cmd := exec.Command(tool, append(flags, "--web.listen-address="+address, "--log.level=error", "--no-collector.systemd", "--no-collector.textfile", // of Debian's defaults
		"--path.procfs="+cfg.Proc, "--path.sysfs="+cfg.Sys, "--path.udev.data="+cfg.Udev,
		"--collector.arp.device-exclude="+cfg.IgnoreNetwork.String(), "--collector.netdev.device-exclude="+cfg.IgnoreNetwork.String(),
		"--collector.netclass.ignored-devices="+cfg.IgnoreNetwork.String(), "--collector.diskstats.device-exclude="+cfg.IgnoreDisk.String(),
		"--collector.filesystem.mount-points-exclude="+cfg.IgnoreMount.String(), "--collector.filesystem.fs-types-exclude="+cfg.IgnoreType.String())...)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(said.String()[max(0, said.Len()-2000):])
		}
	})
	return func() ([]*dto.MetricFamily, error) {
		resp, err := http.Get("http://" + address + "/metrics")
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		parser := expfmt.NewTextParser(model.UTF8Validation)
		byName, err := parser.TextToMetricFamilies(resp.Body)
		return slices.Collect(maps.Values(byName)), err
	}
}

// besideNodeExporter compares until each series was the same once: a machine
// lives while it is looked at. The value of a series of ours lies between what
// theirs said before and after.
func besideNodeExporter(t *testing.T, cfg NodeConfig, flags ...string) {
	theirs := nodeExporter(t, cfg, flags...)
	n, err := NewNode(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	var wrong []string
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		before, err := theirs()
		if err == nil {
			mine := flat(gather(t, n))
			after, err := theirs()
			if err != nil {
				t.Fatal(err)
			}
			if wrong = compare(flat(before), mine, flat(after), seen); len(wrong) == 0 {
				t.Logf("%d series are the same", len(mine))
				return
			}
		} else {
			wrong = []string{err.Error()} // it starts
		}
		select {
		case <-ctx.Done():
			slices.Sort(wrong)
			t.Fatal(strings.Join(wrong, "\n"))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// compare tells what was never the same yet; seen has what was.
func compare(before, mine, after map[string]typed, seen map[string]bool) (wrong []string) {
	for key, a := range after {
		m, have := mine[key]
		b, had := before[key]
		switch {
		case seen[key]:
		case !have:
			wrong = append(wrong, "missing: "+key)
		case a.kind != m.kind:
			wrong = append(wrong, fmt.Sprintf("%s is %s, want %s", key, m.kind, a.kind))
		case !had:
			wrong = append(wrong, key+" is new")
		case m.value < min(a.value, b.value)-math.Abs(b.value)*1e-9 || m.value > max(a.value, b.value)+math.Abs(b.value)*1e-9:
			wrong = append(wrong, fmt.Sprintf("%s is %v, want %v to %v", key, m.value, b.value, a.value))
		default:
			seen[key] = true
		}
	}
	for key := range mine {
		if _, have := after[key]; !have && !seen[key] {
			wrong = append(wrong, "not there: "+key)
		}
	}
	return wrong
}

func TestBesideNodeExporterOnThisMachine(t *testing.T) {
	besideNodeExporter(t, DefaultNode())
}

func TestBesideNodeExporterOnARecordedMachine(t *testing.T) {
	cfg := recorded(t)
	cfg.IgnoreMount = regexp.MustCompile(".")                                              // file systems are asked where they really are
	if err := os.Remove(cfg.Sys + "/class/net/eth0/statistics/rx_nohandler"); err != nil { // /proc does not have it, which theirs reads here
		t.Fatal(err)
	}
	besideNodeExporter(t, cfg, "--no-collector.netdev.netlink")
}

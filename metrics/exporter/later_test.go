package exporter

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatLaterNodeExportersTell(t *testing.T) { // Debian's beside does not have it
	n, err := NewNode(recorded(t), slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	got := text(t, n)
	for _, want := range []string{
		`node_cpu_scaling_governor{cpu="0",governor="powersave"} 1`, `node_cpu_scaling_governor{cpu="0",governor="performance"} 0`,
		`node_cpu_scaling_governor{cpu="1",governor="performance"} 1`,
		`node_hwmon_freq_freq_mhz{chip="pci0000:00_0000:00:18_3",sensor="sclk"} 1200`,
		`node_hwmon_sensor_label{chip="pci0000:00_0000:00:18_3",label="sclk",sensor="freq1"} 1`,
		`node_zfs_arc_memory_available_bytes -4096`, `node_zfs_dbuf_cache_count 27`,
		`node_zfs_zpool_state{state="suspended",zpool="tank"} 0`, `node_zfs_zpool_dataset_nread{dataset="backup/my data",zpool="backup pool"} 56`,
		`node_btrfs_commits_total{uuid="3f2b1c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d"} 258`, `node_btrfs_last_commit_seconds{uuid="3f2b1c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d"} 1.5`,
		`node_btrfs_max_commit_seconds{uuid="3f2b1c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d"} 5.146`, `node_btrfs_commit_seconds_total{uuid="3f2b1c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d"} 47.836`,
		`node_nfsd_requests_total{method="SetClientID",proto="4"} 118`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
}

func TestTwoChipsOfOneDeviceShareItsName(t *testing.T) { // a series told twice would leave all of the machine's untold
	cfg := recorded(t)
	device := filepath.Join(cfg.Sys, "devices/platform/board-wmi")
	for file, text := range map[string]string{
		"hwmon/hwmon7/name": "board", "hwmon/hwmon7/temp1_input": "41000", "hwmon/hwmon7/fan1_input": "900",
		"hwmon/hwmon8/name": "board_curve", "hwmon/hwmon8/temp1_input": "43000", "hwmon/hwmon8/pwm1_enable": "2",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(device, file)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(device, file), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, chip := range []string{"hwmon7", "hwmon8"} {
		for link, target := range map[string]string{filepath.Join(device, "hwmon", chip, "device"): "../../../board-wmi",
			filepath.Join(cfg.Sys, "class/hwmon", chip): filepath.Join(device, "hwmon", chip)} {
			if err := os.Symlink(target, link); err != nil {
				t.Fatal(err)
			}
		}
	}
	n, err := NewNode(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	got := text(t, n)
	for _, want := range []string{
		`node_hwmon_temp_celsius{chip="platform_board_wmi",sensor="temp1"} 41`, `node_hwmon_fan_rpm{chip="platform_board_wmi",sensor="fan1"} 900`,
		`node_hwmon_pwm_enable{chip="platform_board_wmi",sensor="pwm1"} 2`,
		`node_hwmon_chip_names{chip="platform_board_wmi",chip_name="board"} 1`, `node_hwmon_chip_names{chip="platform_board_wmi",chip_name="board_curve"} 1`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
}

func TestAMachineWithoutSensorsFailsNothing(t *testing.T) {
	cfg := DefaultNode()
	cfg.Proc, cfg.Sys = t.TempDir(), t.TempDir()
	n, err := NewNode(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	got := text(t, n)
	for _, collector := range []string{"bcache", "btrfs", "cpufreq", "dmi", "edac", "fibrechannel", "hwmon", "infiniband", "ipvs", "nfs", "nfsd", "powersupplyclass", "rapl", "tapestats", "xfs", "zfs"} {
		if want := `node_scrape_collector_success{collector="` + collector + `"} 1` + "\n"; !strings.Contains(got, want) {
			t.Errorf("no %s", want)
		}
	}
	if !strings.Contains(got, `node_scrape_collector_success{collector="stat"} 0`) {
		t.Error("a machine without /proc/stat fails nothing")
	}
}

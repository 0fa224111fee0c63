package exporter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// word reads what a small file of the kernel says, without the white space around
// it. One read, not os.ReadFile: that waits for ever for a sensor that answers
// "again", as some do, and asks the kernel three times as much.
func word(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	var text [4096]byte // a file of sysfs has no more
	n, err := unix.Read(fd, text[:])
	if err != nil {
		return "", &os.PathError{Op: "read", Path: path, Err: err}
	}
	return strings.TrimSpace(string(text[:n])), nil
}

// number reads a file that holds one number.
func number(path string) (float64, error) {
	text, err := word(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(text, 64)
}

// absent says that this kernel or machine does not have what was asked for.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func (n *Node) entropy(s *sender) error {
	r, err := n.proc.KernelRandom()
	if err != nil {
		return err
	}
	if r.EntropyAvaliable != nil {
		s.gauge("node_entropy_available_bits", "Entropy there is.", float64(*r.EntropyAvaliable))
	}
	if r.PoolSize != nil {
		s.gauge("node_entropy_pool_size_bits", "Entropy there may be.", float64(*r.PoolSize))
	}
	return nil
}

func (n *Node) files(s *sender) error {
	text, err := os.ReadFile(n.cfg.Proc + "/sys/fs/file-nr")
	if err != nil {
		return err
	}
	f := strings.Fields(string(text))
	if len(f) < 3 {
		return fmt.Errorf("read file-nr: %d fields", len(f))
	}
	for i, name := range map[int]string{0: "allocated", 2: "maximum"} {
		v, err := strconv.ParseFloat(f[i], 64)
		if err != nil {
			return err
		}
		s.gauge("node_filefd_"+name, "File descriptors, "+name+".", v)
	}
	return nil
}

// vmstat writes the lines of /proc/vmstat that node_exporter takes by default.
func (n *Node) vmstat(s *sender) error {
	text, err := os.ReadFile(n.cfg.Proc + "/vmstat")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 2 {
			continue
		}
		if name := f[0]; name == "oom_kill" || strings.HasPrefix(name, "pgpg") || strings.HasPrefix(name, "pswp") || name == "pgfault" || name == "pgmajfault" {
			v, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				return err
			}
			s.untyped("node_vmstat_"+name, "Line "+name+" of vmstat.", v)
		}
	}
	return nil
}

func (n *Node) schedule(s *sender) error {
	st, err := n.proc.Schedstat()
	if os.IsNotExist(err) {
		return nil // the kernel was built without it
	}
	if err != nil {
		return err
	}
	for _, c := range st.CPUs {
		s.counter("node_schedstat_running_seconds_total", "Time a cpu ran processes.", float64(c.RunningNanoseconds)/1e9, "cpu", c.CPUNum)
		s.counter("node_schedstat_waiting_seconds_total", "Time processes waited for a cpu.", float64(c.WaitingNanoseconds)/1e9, "cpu", c.CPUNum)
		s.counter("node_schedstat_timeslices_total", "Slices of time a cpu gave.", float64(c.RunTimeslices), "cpu", c.CPUNum)
	}
	return nil
}

func (n *Node) clock(s *sender) error {
	now := time.Now()
	zone, offset := now.Zone()
	s.gauge("node_time_seconds", "Time of the machine, unix time.", float64(now.UnixNano())/1e9)
	s.gauge("node_time_zone_offset_seconds", "Offset of the time zone.", float64(offset), "time_zone", zone)
	dirs, err := filepath.Glob(n.cfg.Sys + "/devices/system/clocksource/clocksource*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		device := strings.TrimPrefix(filepath.Base(dir), "clocksource")
		for file, name := range map[string]string{"available_clocksource": "node_time_clocksource_available_info", "current_clocksource": "node_time_clocksource_current_info"} {
			text, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				return err
			}
			for _, source := range strings.Fields(string(text)) {
				s.gauge(name, "Clock sources of the machine.", 1, "device", device, "clocksource", source)
			}
		}
	}
	return nil
}

// timex asks the kernel how well its clock is kept (adjtimex(2)).
func (n *Node) timex(s *sender) error {
	t := new(unix.Timex)
	state, err := unix.Adjtimex(t)
	if os.IsPermission(err) {
		return nil // in a container that may not ask
	}
	if err != nil {
		return err
	}
	const nano, timeError = 0x2000, 5
	div := 1e6
	if t.Status&nano != 0 {
		div = 1e9
	}
	s.gauge("node_timex_sync_status", "1 if the clock is kept by a time server.", yes(state != timeError))
	for name, v := range map[string]float64{
		"offset_seconds": float64(t.Offset) / div, "frequency_adjustment_ratio": 1 + float64(t.Freq)/(1e6*65536), "maxerror_seconds": float64(t.Maxerror) / 1e6,
		"estimated_error_seconds": float64(t.Esterror) / 1e6, "status": float64(t.Status), "loop_time_constant": float64(t.Constant), "tick_seconds": float64(t.Tick) / 1e6,
		"pps_frequency_hertz": float64(t.Ppsfreq) / (1e6 * 65536), "pps_jitter_seconds": float64(t.Jitter) / div, "pps_shift_seconds": float64(t.Shift),
		"pps_stability_hertz": float64(t.Stabil) / (1e6 * 65536), "tai_offset_seconds": float64(t.Tai),
	} {
		s.gauge("node_timex_"+name, "Clock of the kernel, "+name+".", v)
	}
	for name, v := range map[string]int64{"pps_jitter": t.Jitcnt, "pps_calibration": t.Calcnt, "pps_error": t.Errcnt, "pps_stability_exceeded": t.Stbcnt} {
		s.counter("node_timex_"+name+"_total", "Clock of the kernel, "+name+".", float64(v))
	}
	return nil
}

// release tells the distribution from os-release.
func (n *Node) release(s *sender) error {
	var text []byte
	var err error
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		if text, err = os.ReadFile(path); err == nil {
			break
		}
	}
	if err != nil {
		return nil // a machine without a distribution
	}
	have := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if key, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			have[key] = strings.Trim(v, `"'`)
		}
	}
	pairs := []string{}
	for _, key := range []string{"BUILD_ID", "ID", "ID_LIKE", "IMAGE_ID", "IMAGE_VERSION", "NAME", "PRETTY_NAME", "VARIANT", "VARIANT_ID", "VERSION", "VERSION_CODENAME", "VERSION_ID"} {
		pairs = append(pairs, strings.ToLower(key), have[key])
	}
	s.gauge("node_os_info", "Distribution of the machine.", 1, pairs...)
	parts := strings.SplitN(have["VERSION_ID"], ".", 3)
	if v, err := strconv.ParseFloat(strings.Join(parts[:min(2, len(parts))], "."), 64); err == nil {
		s.gauge("node_os_version", "Version of the distribution, major and minor.", v, "id", have["ID"], "id_like", have["ID_LIKE"], "name", have["NAME"])
	}
	return nil
}

func (n *Node) selinux(s *sender) error {
	_, err := os.Stat(n.cfg.Sys + "/fs/selinux/enforce")
	s.gauge("node_selinux_enabled", "1 if SELinux is on.", yes(err == nil))
	return nil
}

func (n *Node) thermal(s *sender) error {
	zones, err := filepath.Glob(n.cfg.Sys + "/class/thermal/thermal_zone*")
	if err != nil {
		return err
	}
	for _, dir := range zones {
		kind, err := word(dir + "/type")
		if err != nil {
			continue
		}
		if v, err := number(dir + "/temp"); err == nil { // not every zone can tell
			s.gauge("node_thermal_zone_temp", "Temperature of a zone in Celsius.", v/1000, "zone", strings.TrimPrefix(filepath.Base(dir), "thermal_zone"), "type", kind)
		}
	}
	coolers, err := filepath.Glob(n.cfg.Sys + "/class/thermal/cooling_device*")
	if err != nil {
		return err
	}
	for _, dir := range coolers {
		kind, err := word(dir + "/type")
		if err != nil {
			continue
		}
		dev := []string{"name", strings.TrimPrefix(filepath.Base(dir), "cooling_device"), "type", kind}
		for file, name := range map[string]string{"cur_state": "How hard a device cools.", "max_state": "How hard a device can cool."} {
			if v, err := number(dir + "/" + file); err == nil {
				s.gauge("node_cooling_device_"+file, name, v, dev...)
			}
		}
	}
	return nil
}

func (n *Node) raid(s *sender) error {
	list, err := n.proc.MDStat()
	if os.IsNotExist(err) {
		return nil // no such device in this kernel
	}
	if err != nil {
		return err
	}
	for _, m := range list {
		dev := []string{"device", m.Name}
		for _, state := range []string{"active", "inactive", "recovering", "resync", "check"} {
			s.gauge("node_md_state", "State of an array.", yes(m.ActivityState == state || state == "resync" && m.ActivityState == "resyncing" || state == "check" && m.ActivityState == "checking"), join(dev, "state", state)...)
		}
		for state, v := range map[string]int64{"active": m.DisksActive, "failed": m.DisksFailed, "spare": m.DisksSpare} {
			s.gauge("node_md_disks", "Disks of an array.", float64(v), join(dev, "state", state)...)
		}
		s.gauge("node_md_disks_required", "Disks an array needs.", float64(m.DisksTotal), dev...)
		s.gauge("node_md_blocks", "Blocks of an array.", float64(m.BlocksTotal), dev...)
		s.gauge("node_md_blocks_synced", "Blocks in sync.", float64(m.BlocksSynced), dev...)
	}
	return nil
}

// guests writes the time virtual machines ran.
func guests(s *sender, cpu string, c procfs.CPUStat) {
	s.counter("node_cpu_guest_seconds_total", "Time the cpus ran virtual machines.", c.Guest, "cpu", cpu, "mode", "user")
	s.counter("node_cpu_guest_seconds_total", "Time the cpus ran virtual machines.", c.GuestNice, "cpu", cpu, "mode", "nice")
}

package exporter

import (
	"errors"
	"log/slog"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/procfs"
	"github.com/prometheus/procfs/bcache"
	"github.com/prometheus/procfs/blockdevice"
	"github.com/prometheus/procfs/btrfs"
	"github.com/prometheus/procfs/nfs"
	"github.com/prometheus/procfs/sysfs"
	"github.com/prometheus/procfs/xfs"
	"golang.org/x/sys/unix"
)

// NodeConfig says where the machine is mounted.
type NodeConfig struct {
	Proc, Sys string // /proc, /sys
	Udev      string // /run/udev/data, which says what a disk is

	// What is left out: network and block devices, mount points and types of
	// file systems.
	IgnoreNetwork, IgnoreDisk, IgnoreMount, IgnoreType *regexp.Regexp
}

// DefaultNode leaves out what pods bring along: their interfaces and mounts.
func DefaultNode() NodeConfig {
	return NodeConfig{
		Proc: "/proc", Sys: "/sys", Udev: "/run/udev/data",
		IgnoreNetwork: regexp.MustCompile(`^(pc[0-9a-f]{6,}|veth.*)$`),
		IgnoreDisk:    regexp.MustCompile(`^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$`),
		IgnoreMount:   regexp.MustCompile(`^/(dev|proc|sys|run/credentials/.+|run/netns/.+|.*/(pods|containerd)/.+)($|/)`),
		IgnoreType:    regexp.MustCompile(`^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|sysfs|tracefs)$`),
	}
}

// Node is a collector of the machine's numbers.
type Node struct {
	cfg   NodeConfig
	log   *slog.Logger
	proc  procfs.FS
	sys   sysfs.FS
	block blockdevice.FS
	nfs   nfs.FS
	xfs   xfs.FS

	btrfs  btrfs.FS
	bcache bcache.FS

	maker func() ([]string, error) // labels of dmi, read once
	takes *regexp.Regexp           // fields of netstat
	size  func(string, *unix.Statfs_t) error

	mu    sync.Mutex
	told  map[string]bool          // collectors whose failure was logged
	cpus  map[int64]procfs.CPUStat // the newest told
	asked map[string]*statAsked    // mount points that did not answer yet
}

// NewNode checks that /proc is there.
func NewNode(cfg NodeConfig, log *slog.Logger) (*Node, error) {
	proc, err := procfs.NewFS(cfg.Proc)
	if err != nil {
		return nil, err
	}
	block, err := blockdevice.NewFS(cfg.Proc, cfg.Sys)
	if err != nil {
		return nil, err
	}
	sys, err := sysfs.NewFS(cfg.Sys)
	if err != nil {
		return nil, err
	}
	calls, err := nfs.NewFS(cfg.Proc)
	if err != nil {
		return nil, err
	}
	xfs, err := xfs.NewFS(cfg.Proc, cfg.Sys)
	if err != nil {
		return nil, err
	}
	btrfs, err := btrfs.NewFS(cfg.Sys)
	if err != nil {
		return nil, err
	}
	bcache, err := bcache.NewFS(cfg.Sys)
	if err != nil {
		return nil, err
	}
	return &Node{cfg: cfg, log: log, proc: proc, sys: sys, block: block, nfs: calls, xfs: xfs, btrfs: btrfs, bcache: bcache,
		maker: sync.OnceValues(func() ([]string, error) { return readDMI(sys) }), takes: regexp.MustCompile(netstatTaken), size: unix.Statfs,
		told: map[string]bool{}, cpus: map[int64]procfs.CPUStat{}, asked: map[string]*statAsked{}}, nil
}

// Describe sends nothing: the series depend on the machine.
func (n *Node) Describe(chan<- *prometheus.Desc) {}

// Collect reads each part; one that fails leaves the others alone and shows in
// node_scrape_collector_success.
func (n *Node) Collect(ch chan<- prometheus.Metric) {
	for _, part := range []struct {
		name string
		read func(*sender) error
	}{
		{"arp", n.arp}, {"bcache", n.caches}, {"bonding", n.bonds}, {"btrfs", n.btrfsCounts}, {"conntrack", n.conntrack}, {"cpu", n.cpu}, {"cpufreq", n.scaling}, {"diskstats", n.disk}, {"dmi", n.dmi},
		{"edac", n.memoryErrors}, {"entropy", n.entropy}, {"fibrechannel", n.fibreChannel}, {"filefd", n.files}, {"filesystem", n.filesystem},
		{"hwmon", n.chips}, {"infiniband", n.infiniband}, {"ipvs", n.balancers},
		{"loadavg", n.load}, {"mdadm", n.raid}, {"meminfo", n.memory}, {"netclass", n.devices}, {"netdev", n.network}, {"netstat", n.netstat},
		{"nfs", n.nfsClient}, {"nfsd", n.nfsServer}, {"nvme", n.nvme}, {"os", n.release}, {"powersupplyclass", n.supplies}, {"pressure", n.pressure},
		{"rapl", n.energy}, {"schedstat", n.schedule}, {"selinux", n.selinux}, {"sockstat", n.sockets}, {"softnet", n.softnet}, {"stat", n.counts}, {"tapestats", n.tapes},
		{"thermal_zone", n.thermal}, {"time", n.clock}, {"timex", n.timex}, {"udp_queues", n.udpQueues}, {"uname", n.uname}, {"vmstat", n.vmstat},
		{"xfs", n.xfsCounts}, {"zfs", n.zfs},
	} {
		ok, began := 1.0, time.Now()
		if err := part.read(toCollector(ch)); err != nil {
			ok = 0
			n.tell(part.name, err)
		}
		toCollector(ch).gauge("node_scrape_collector_duration_seconds", "How long a collector took.", time.Since(began).Seconds(), "collector", part.name)
		toCollector(ch).gauge("node_scrape_collector_success", "Whether a collector succeeded.", ok, "collector", part.name)
	}
}

func (n *Node) tell(part string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.told[part] {
		n.told[part] = true
		n.log.Warn("numbers of the machine were not readable", "part", part, "err", err)
	}
}

// sender writes series; pairs are label names and values.
type sender struct{ send send }

// send takes one series; since is when a counter was zero, if that is known.
type send func(t prometheus.ValueType, name, help string, v float64, since time.Time, pairs []string)

// toCollector makes metrics of the client library.
func toCollector(ch chan<- prometheus.Metric) *sender {
	return &sender{func(t prometheus.ValueType, name, help string, v float64, since time.Time, pairs []string) {
		names, values := make([]string, 0, len(pairs)/2), make([]string, 0, len(pairs)/2)
		for i := 0; i+1 < len(pairs); i += 2 {
			names, values = append(names, pairs[i]), append(values, pairs[i+1])
		}
		desc := prometheus.NewDesc(name, help, names, nil)
		var m prometheus.Metric
		var err error
		if since.IsZero() {
			m, err = prometheus.NewConstMetric(desc, t, v, values...)
		} else {
			m, err = prometheus.NewConstMetricWithCreatedTimestamp(desc, t, v, since, values...)
		}
		if err != nil {
			m = prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
		}
		ch <- m
	}}
}

func (s *sender) gauge(name, help string, v float64, pairs ...string) {
	s.send(prometheus.GaugeValue, name, help, v, time.Time{}, pairs)
}

// untyped is for what may go either way.
func (s *sender) untyped(name, help string, v float64, pairs ...string) {
	s.send(prometheus.UntypedValue, name, help, v, time.Time{}, pairs)
}

func (s *sender) counter(name, help string, v float64, pairs ...string) {
	s.send(prometheus.CounterValue, name, help, v, time.Time{}, pairs)
}

// counterSince is a counter that was zero when its object was made.
func (s *sender) counterSince(since time.Time, name, help string, v float64, pairs ...string) {
	s.send(prometheus.CounterValue, name, help, v, since, pairs)
}

func (n *Node) cpu(s *sender) error {
	st, err := n.proc.Stat()
	if err != nil {
		return err
	}
	for cpu, c := range st.CPU {
		c = n.forward(cpu, c)
		guests(s, strconv.FormatInt(cpu, 10), c)
		for mode, v := range map[string]float64{
			"user": c.User, "nice": c.Nice, "system": c.System, "idle": c.Idle,
			"iowait": c.Iowait, "irq": c.IRQ, "softirq": c.SoftIRQ, "steal": c.Steal,
		} {
			s.counter("node_cpu_seconds_total", "Time the cpus spent in each mode.", v, "cpu", strconv.FormatInt(cpu, 10), "mode", mode)
		}
	}
	return nil
}

// counts writes what /proc/stat counts besides the times of the cpus.
func (n *Node) counts(s *sender) error {
	st, err := n.proc.Stat()
	if err != nil {
		return err
	}
	s.gauge("node_boot_time_seconds", "When the machine started, unix time.", float64(st.BootTime))
	s.counter("node_context_switches_total", "Context switches.", float64(st.ContextSwitches))
	s.counter("node_intr_total", "Interrupts served.", float64(st.IRQTotal))
	s.counter("node_forks_total", "Processes created.", float64(st.ProcessCreated))
	s.gauge("node_procs_running", "Processes that run.", float64(st.ProcessesRunning))
	s.gauge("node_procs_blocked", "Processes that wait for input or output.", float64(st.ProcessesBlocked))
	return nil
}

// jumpBack is how far, in seconds, idle time goes back when a cpu was switched off
// and on: then all its times begin anew.
const jumpBack = 3

// forward holds the times of a cpu to what was told before: the kernel's idle and
// iowait go back a little now and then, which a query would take for a restart and
// count all of the time again.
func (n *Node) forward(cpu int64, c procfs.CPUStat) procfs.CPUStat {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p, known := n.cpus[cpu]; known && p.Idle-c.Idle < jumpBack {
		c = procfs.CPUStat{User: max(p.User, c.User), Nice: max(p.Nice, c.Nice), System: max(p.System, c.System), Idle: max(p.Idle, c.Idle), Iowait: max(p.Iowait, c.Iowait),
			IRQ: max(p.IRQ, c.IRQ), SoftIRQ: max(p.SoftIRQ, c.SoftIRQ), Steal: max(p.Steal, c.Steal), Guest: max(p.Guest, c.Guest), GuestNice: max(p.GuestNice, c.GuestNice)}
	}
	n.cpus[cpu] = c
	return c
}

func (n *Node) load(s *sender) error {
	l, err := n.proc.LoadAvg()
	if err != nil {
		return err
	}
	s.gauge("node_load1", "Load of the last minute.", l.Load1)
	s.gauge("node_load5", "Load of the last 5 minutes.", l.Load5)
	s.gauge("node_load15", "Load of the last 15 minutes.", l.Load15)
	return nil
}

// memory writes every line of /proc/meminfo under its own name.
func (n *Node) memory(s *sender) error {
	text, err := os.ReadFile(n.cfg.Proc + "/meminfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		v, err := strconv.ParseFloat(f[1], 64)
		if err != nil {
			return err
		}
		name := "node_memory_" + strings.NewReplacer("(", "_", ")", "", ":", "").Replace(f[0])
		if len(f) == 3 {
			name, v = name+"_bytes", v*1024
		}
		s.gauge(name, "Line "+strings.TrimSuffix(f[0], ":")+" of meminfo.", v)
	}
	return nil
}

func (n *Node) network(s *sender) error {
	devices, err := n.proc.NetDev()
	if err != nil {
		return err
	}
	for _, d := range devices {
		if n.cfg.IgnoreNetwork.MatchString(d.Name) {
			continue
		}
		for _, c := range []struct {
			name string
			v    uint64
		}{
			{"receive_bytes", d.RxBytes}, {"receive_packets", d.RxPackets}, {"receive_errs", d.RxErrors}, {"receive_drop", d.RxDropped},
			{"receive_fifo", d.RxFIFO}, {"receive_frame", d.RxFrame}, {"receive_compressed", d.RxCompressed}, {"receive_multicast", d.RxMulticast},
			{"transmit_bytes", d.TxBytes}, {"transmit_packets", d.TxPackets}, {"transmit_errs", d.TxErrors}, {"transmit_drop", d.TxDropped},
			{"transmit_fifo", d.TxFIFO}, {"transmit_colls", d.TxCollisions}, {"transmit_carrier", d.TxCarrier}, {"transmit_compressed", d.TxCompressed},
		} {
			s.counter("node_network_"+c.name+"_total", "Network device statistic "+c.name+".", float64(c.v), "device", d.Name)
		}
	}
	return nil
}

// mountPoints are those of the machine: process 1 sees them, if it may be asked.
func mountPoints() ([]*procfs.MountInfo, error) {
	mounts, err := procfs.GetProcMounts(1)
	if err != nil {
		return procfs.GetMounts()
	}
	return mounts, nil
}

func (n *Node) filesystem(s *sender) error {
	mounts, err := mountPoints()
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, m := range mounts {
		if seen[m.MountPoint] || n.cfg.IgnoreMount.MatchString(m.MountPoint) || n.cfg.IgnoreType.MatchString(m.FSType) {
			continue
		}
		seen[m.MountPoint] = true
		pairs := []string{"device", m.Source, "mountpoint", m.MountPoint, "fstype", m.FSType, "device_error", ""}
		st, err := n.statfs(m.MountPoint)
		if err != nil {
			pairs[7] = err.Error()
			s.gauge("node_filesystem_device_error", "1 if the file system could not be read.", 1, pairs...)
			continue
		}
		readOnly := 0.0
		if _, ro := m.Options["ro"]; ro {
			readOnly = 1
		}
		block := float64(st.Bsize)
		s.gauge("node_filesystem_device_error", "1 if the file system could not be read.", 0, pairs...)
		s.gauge("node_filesystem_size_bytes", "Size.", float64(st.Blocks)*block, pairs...)
		s.gauge("node_filesystem_free_bytes", "Free, also for root.", float64(st.Bfree)*block, pairs...)
		s.gauge("node_filesystem_avail_bytes", "Free for everyone.", float64(st.Bavail)*block, pairs...)
		s.gauge("node_filesystem_files", "Inodes.", float64(st.Files), pairs...)
		s.gauge("node_filesystem_files_free", "Free inodes.", float64(st.Ffree), pairs...)
		s.gauge("node_filesystem_readonly", "1 if it cannot be written.", readOnly, pairs...)
	}
	return nil
}

// mountPatience is how long a file system may take to say how full it is: that of
// a server that is away never answers.
const mountPatience = 5 * time.Second

var errStuck = errors.New("mountpoint timeout") // the word of node_exporter

// statAsked is a question to a file system.
type statAsked struct {
	began time.Time
	done  chan struct{} // then the rest is known
	stat  unix.Statfs_t
	err   error
}

// statfs asks a file system. While one does not answer, one goroutine waits for
// it, and nobody else.
func (n *Node) statfs(at string) (unix.Statfs_t, error) {
	n.mu.Lock()
	ask := n.asked[at]
	if ask == nil {
		ask = &statAsked{began: time.Now(), done: make(chan struct{})}
		n.asked[at] = ask
		go func() {
			ask.err = n.size(at, &ask.stat)
			n.mu.Lock()
			delete(n.asked, at)
			n.mu.Unlock()
			close(ask.done)
		}()
	}
	n.mu.Unlock()
	select {
	case <-ask.done:
		return ask.stat, ask.err
	case <-time.After(mountPatience - time.Since(ask.began)):
		return unix.Statfs_t{}, errStuck
	}
}

func (n *Node) pressure(s *sender) error {
	for _, r := range []struct{ resource, waiting, stalled string }{
		{"cpu", "node_pressure_cpu_waiting_seconds_total", ""},
		{"memory", "node_pressure_memory_waiting_seconds_total", "node_pressure_memory_stalled_seconds_total"},
		{"io", "node_pressure_io_waiting_seconds_total", "node_pressure_io_stalled_seconds_total"},
	} {
		p, err := n.proc.PSIStatsForResource(r.resource)
		if err != nil {
			return err
		}
		if p.Some != nil {
			s.counter(r.waiting, "Time some task waited.", float64(p.Some.Total)/1e6)
		}
		if p.Full != nil && r.stalled != "" {
			s.counter(r.stalled, "Time all tasks waited.", float64(p.Full.Total)/1e6)
		}
	}
	return nil
}

func (n *Node) uname(s *sender) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	text := func(b [65]byte) string { return unix.ByteSliceToString(b[:]) }
	s.gauge("node_uname_info", "Name and version of the system.", 1,
		"sysname", text(u.Sysname), "release", text(u.Release), "version", text(u.Version),
		"machine", text(u.Machine), "nodename", text(u.Nodename), "domainname", text(u.Domainname))
	return nil
}

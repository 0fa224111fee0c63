package stats

import (
	"context"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"perch/agent/cgroup"
)

// The families of restTable by place.
const (
	netReceived = iota // eight of the network, in the order of link.counts
	netReceivedPackets
	netReceivedErrors
	netReceivedDropped
	netSent
	netSentPackets
	netSentErrors
	netSentDropped
	diskReadBytes
	diskWriteBytes
	diskReads
	diskWrites
	diskUsage
	processes
	descriptors
	sockets
	machineCores
	machinePhysical
	machineSockets
	machineMemory
	machineSwap
	machineNVM
	machineError
	containerError
)

// restFamily is a family whose series depend on what a cgroup or the machine has.
type restFamily struct {
	name, help string
	kind       Kind
}

// restTable lists what is read every 15 s beside limits. What cAdvisor has more
// of (times and queues of disks, sizes of file systems) Linux tells of no cgroup
// any more, or node_exporter's series say it.
func restTable() []restFamily {
	return []restFamily{
		netReceived:        {"container_network_receive_bytes_total", "Bytes received.", Counter},
		netReceivedPackets: {"container_network_receive_packets_total", "Packets received.", Counter},
		netReceivedErrors:  {"container_network_receive_errors_total", "Errors while receiving.", Counter},
		netReceivedDropped: {"container_network_receive_packets_dropped_total", "Packets dropped while receiving.", Counter},
		netSent:            {"container_network_transmit_bytes_total", "Bytes sent.", Counter},
		netSentPackets:     {"container_network_transmit_packets_total", "Packets sent.", Counter},
		netSentErrors:      {"container_network_transmit_errors_total", "Errors while sending.", Counter},
		netSentDropped:     {"container_network_transmit_packets_dropped_total", "Packets dropped while sending.", Counter},
		diskReadBytes:      {"container_fs_reads_bytes_total", "Bytes read from a disk.", Counter},
		diskWriteBytes:     {"container_fs_writes_bytes_total", "Bytes written to a disk.", Counter},
		diskReads:          {"container_fs_reads_total", "Reads from a disk.", Counter},
		diskWrites:         {"container_fs_writes_total", "Writes to a disk.", Counter},
		diskUsage:          {"container_blkio_device_usage_total", "Bytes moved from and to a disk.", Counter},
		processes:          {"container_processes", "Processes that run.", Gauge},
		descriptors:        {"container_file_descriptors", "Open file descriptors.", Gauge},
		sockets:            {"container_sockets", "Open sockets.", Gauge},
		machineCores:       {"machine_cpu_cores", "Logical CPUs.", Gauge},
		machinePhysical:    {"machine_cpu_physical_cores", "Physical CPU cores.", Gauge},
		machineSockets:     {"machine_cpu_sockets", "CPU sockets.", Gauge},
		machineMemory:      {"machine_memory_bytes", "Memory of the machine.", Gauge},
		machineSwap:        {"machine_swap_bytes", "Swap of the machine.", Gauge},
		machineNVM:         {"machine_nvm_capacity", "Persistent memory by mode; always 0, it is not looked for.", Gauge},
		machineError:       {"machine_scrape_error", "1 if the machine could not be read.", Gauge},
		containerError:     {"container_scrape_error", "1 if cgroups could not be read.", Gauge},
	}
}

// rest are series that come and go within a cgroup: one for each link or disk.
type rest struct {
	list  []restSeries
	at    map[restKey]int
	round int
}

type restKey struct {
	family int
	what   string // link, disk, …
}

type restSeries struct {
	key    restKey
	id     uint64
	labels labels.Labels
	pairs  []string // those kubelet shows
	v      float64
	round  int
	sent   bool
}

// begin starts a new look: what is not set until the next one is over.
func (r *rest) begin() { r.round++ }

func (s *Stats) set(r *rest, family int, what string, v float64, pairs func() []string) {
	key := restKey{family, what}
	i, ok := r.at[key]
	if !ok {
		if r.at == nil {
			r.at = map[restKey]int{}
		}
		s.lastID++
		own := pairs()
		i = len(r.list)
		r.at[key] = i
		r.list = append(r.list, restSeries{key: key, id: s.lastID, pairs: own, labels: makeLabels(restTable()[family].name, own, s.targetLabels())})
	}
	r.list[i].v, r.list[i].round = v, r.round
}

// samples are the newest numbers, and the ends of series that are over.
func (r *rest) samples(batch []Sample, ms int64) []Sample {
	ended := false
	for i := range r.list {
		x := &r.list[i]
		switch {
		case x.round == r.round:
			x.sent = true
			batch = append(batch, Sample{x.id, x.labels, ms, x.v})
		case x.sent:
			batch = append(batch, Sample{x.id, x.labels, ms, math.Float64frombits(value.StaleNaN)})
			ended = true
		default:
			ended = true
		}
	}
	if ended {
		r.list = slices.DeleteFunc(r.list, func(x restSeries) bool { return x.round != r.round })
		clear(r.at)
		for i, x := range r.list {
			r.at[x.key] = i
		}
	}
	return batch
}

// markers end all series.
func (r *rest) markers(batch []Sample, ms int64) []Sample {
	for _, x := range r.list {
		if x.sent {
			batch = append(batch, Sample{x.id, x.labels, ms, math.Float64frombits(value.StaleNaN)})
		}
	}
	return batch
}

// runRest looks shortly before each cold round, which sends what was found.
func (s *Stats) runRest(ctx context.Context) {
	for wait := s.cfg.Hot / 2; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		began := time.Now()
		s.look(began)
		now := time.Now()
		s.metrics.rest.Observe(now.Sub(began).Seconds())
		wait = now.Truncate(s.cfg.Cold).Add(s.cfg.Cold - s.cfg.Hot/2).Sub(now)
		if wait <= 0 {
			wait += s.cfg.Cold
		}
	}
}

// found is what a look found out about a cgroup.
type found struct {
	t      *tracked
	of     string // sandbox whose links these are
	links  []link
	disks  []cgroup.Disk
	counts counts
	usage  uint64 // CPU time before it was counted
	fresh  bool   // counts and disks were read
}

// counted is when the processes and disks of a cgroup were looked at last. What
// did not run since has the same ones; disks may finish writing later.
type counted struct {
	counts counts
	usage  uint64
	at     time.Time
}

const countedFor = time.Minute

// look reads the rest of all cgroups. Files are read without the lock: a
// process may have many.
func (s *Stats) look(now time.Time) {
	s.mu.Lock()
	var list []found
	files := map[int]bool{}
	for _, t := range s.inOrder() {
		if !t.stale {
			t.reader.Descriptors(files)
		}
		if !t.stale && t.state.use.Has != 0 {
			list = append(list, found{
				t: t, usage: t.state.use.CPU.Usage,
				fresh: t.counted.at.IsZero() || t.state.use.CPU.Usage != t.counted.usage || now.Sub(t.counted.at) >= countedFor,
			})
		}
	}
	s.mu.Unlock()

	s.proc.forget(now)
	host := s.proc.namespace("self")
	for i := range list {
		f := &list[i]
		if !f.fresh {
			continue
		}
		f.disks = s.tree.Disks(f.t.path)
		if f.t.path == "/" {
			f.counts = counts{processes: s.proc.all(), partly: true}
		} else {
			f.counts = s.proc.count(s.tree.Processes(f.t.path), files, now)
		}
	}
	for i := range list {
		f := &list[i]
		switch {
		case f.t.path == "/":
			f.links = slices.DeleteFunc(s.proc.links("self"), func(l link) bool { return l.ofPods() })
		case f.t.place.podUID != "" && f.t.place.containerID == "" && s.parts.Sandbox != nil:
			f.of = s.parts.Sandbox(f.t.place.podUID)
			// A pod in the machine's network has no links of its own.
			if pid := pidOf(list[i+1:], path.Join(f.t.path, f.of)); pid != "" && s.proc.namespace(pid) != host {
				f.links = s.proc.links(pid)
			}
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range slices.Backward(list) { // children first, for sums
		s.found(&list[i], now)
	}
}

// pidOf is a process of the cgroup at a path, among those that follow its pod's.
func pidOf(list []found, at string) string {
	for i := range list {
		switch t := list[i].t; {
		case t.path == at && list[i].fresh:
			return list[i].counts.first()
		case t.path == at:
			return t.counted.counts.first()
		case !strings.HasPrefix(t.path, path.Dir(at)+"/"):
			return ""
		}
	}
	return ""
}

// found takes what a look found out.
func (s *Stats) found(f *found, now time.Time) {
	t := f.t
	if f.fresh {
		t.counted = counted{f.counts, f.usage, now}
	}
	t.total = t.counted.counts.plus(t.below)
	t.below = counts{}
	if t.above != nil && t.above.path != "/" {
		t.above.below = t.above.below.plus(t.total)
	}
	if t.stale || !s.name(t) {
		return
	}
	own := ownLabels(t.path, t.who)
	r := &t.rest
	kept := r.round
	r.begin()
	s.set(r, processes, "", float64(t.total.processes), func() []string { return own })
	if !t.total.partly {
		s.set(r, descriptors, "", float64(t.total.descriptors), func() []string { return own })
		s.set(r, sockets, "", float64(t.total.sockets), func() []string { return own })
	}
	if f.fresh {
		for _, d := range f.disks {
			s.setDisk(r, own, d)
		}
	} else {
		for i := range r.list { // the same as before
			if x := &r.list[i]; x.key.family >= diskReadBytes && x.key.family <= diskUsage && x.round == kept {
				x.round = r.round
			}
		}
	}
	if f.of != "" {
		who := t.who
		who.ID = f.of
		own = ownLabels(path.Join(t.path, f.of), who)
	}
	for _, l := range f.links {
		for k, v := range l.counts {
			s.set(r, netReceived+k, l.name, float64(v), func() []string { return append(slices.Clone(own), "interface", l.name) })
		}
	}
}

func (s *Stats) setDisk(r *rest, own []string, d cgroup.Disk) {
	number := strconv.Itoa(int(d.Major)) + ":" + strconv.Itoa(int(d.Minor))
	device := s.deviceName(number)
	with := func(more ...string) func() []string {
		return func() []string { return append(append(slices.Clone(own), "device", device), more...) }
	}
	s.set(r, diskReadBytes, number, float64(d.ReadBytes), with())
	s.set(r, diskWriteBytes, number, float64(d.WriteBytes), with())
	s.set(r, diskReads, number, float64(d.Reads), with())
	s.set(r, diskWrites, number, float64(d.Writes), with())
	major, minor := strconv.Itoa(int(d.Major)), strconv.Itoa(int(d.Minor))
	s.set(r, diskUsage, number+" Read", float64(d.ReadBytes), with("major", major, "minor", minor, "operation", "Read"))
	s.set(r, diskUsage, number+" Write", float64(d.WriteBytes), with("major", major, "minor", minor, "operation", "Write"))
}

package stats

import (
	"perch/agent/cgroup"
)

// Producer is who makes a series.
type Producer int

// The producers.
const (
	Fast Producer = iota // agent/cgroup, every 1 s and 5 s
	Spec                 // limits and times of a cgroup, every 15 s
	Rest                 // network, processes, disks, the machine, every 15 s
)

// Kind is the Prometheus type of a series.
type Kind int

// The kinds.
const (
	Gauge Kind = iota
	Counter
	Untyped // counts, but is not called _total
)

// family is one row of the table for producers inside this package.
type family struct {
	name  string
	help  string
	kind  Kind
	rows  []row
	scope scope
}

// row is one series of a family for each cgroup.
type row struct {
	pairs []string // extra labels: name, value, …
	has   cgroup.Has
	value func(*state) float64
}

// scope says which cgroups have the family.
type scope int

const (
	everywhere scope = iota
	withQuota        // those with a cpu limit
	leaves           // containers
	over             // containers that ended
)

// state is what rows may look at.
type state struct {
	use    cgroup.Use
	limits cgroup.Limits
	made   float64 // unix seconds
	start  float64 // unix seconds
	seen   float64 // unix seconds
	oom    uint64  // kills known from the runtime, when the kernel's count went with the cgroup
	peak   uint64  // largest usage seen, where the kernel keeps no peak
	exited bool    // the runtime told how it ended
	code   int     // then: its exit code
}

func ns(v uint64) float64 { return float64(v) / 1e9 }

func one(name, help string, kind Kind, has cgroup.Has, value func(*state) float64, pairs ...string) family {
	return family{name: name, help: help, kind: kind, rows: []row{{pairs, has, value}}}
}

func quota(f family) family { f.scope = withQuota; return f }
func leaf(f family) family  { f.scope = leaves; return f }
func last(f family) family  { f.scope = over; return f }

// fastTable lists what the fast reader makes.
func fastTable() []family {
	const cpu, throttle, mem = cgroup.HasCPU, cgroup.HasThrottling, cgroup.HasMemory
	const psi = cgroup.HasPSI
	return []family{
		one("container_cpu_usage_seconds_total", "CPU time used.", Counter, cpu, func(s *state) float64 { return ns(s.use.CPU.Usage) }, "cpu", "total"),
		one("container_cpu_user_seconds_total", "CPU time used in user mode.", Counter, cpu, func(s *state) float64 { return ns(s.use.CPU.User) }),
		one("container_cpu_system_seconds_total", "CPU time used in the kernel.", Counter, cpu, func(s *state) float64 { return ns(s.use.CPU.System) }),
		quota(one("container_cpu_cfs_periods_total", "Periods in which the cpu limit was enforced.", Counter, throttle, func(s *state) float64 { return float64(s.use.CPU.Periods) })),
		quota(one("container_cpu_cfs_throttled_periods_total", "Periods in which the cpu limit held tasks back.", Counter, throttle, func(s *state) float64 { return float64(s.use.CPU.ThrottledPeriods) })),
		quota(one("container_cpu_cfs_throttled_seconds_total", "Time tasks were held back by the cpu limit.", Counter, throttle, func(s *state) float64 { return ns(s.use.CPU.Throttled) })),
		one("container_memory_usage_bytes", "Memory in use, page cache included.", Gauge, mem, func(s *state) float64 { return float64(s.use.Memory.Usage) }),
		one("container_memory_working_set_bytes", "Memory in use that cannot be dropped at once.", Gauge, mem, func(s *state) float64 { return float64(s.use.Memory.WorkingSet) }),
		one("container_memory_rss", "Anonymous memory in use.", Gauge, mem, func(s *state) float64 { return float64(s.use.Memory.RSS) }),
		one("container_memory_cache", "Page cache in use.", Gauge, mem, func(s *state) float64 { return float64(s.use.Memory.Cache) }),
		one("container_memory_mapped_file", "Mapped files in memory.", Gauge, mem, func(s *state) float64 { return float64(s.use.Memory.MappedFile) }),
		one("container_memory_swap", "Swap in use.", Gauge, mem, func(s *state) float64 { return float64(s.use.Memory.Swap) }),
		one("container_memory_max_usage_bytes", "Largest memory use since the start.", Gauge, mem, func(s *state) float64 { return float64(max(s.use.Memory.Peak, s.peak)) }),
		one("container_memory_total_active_file_bytes", "File pages used lately.", Gauge, mem, func(s *state) float64 { return float64(s.use.Memory.ActiveFile) }),
		one("container_memory_total_inactive_file_bytes", "File pages not used lately.", Gauge, mem, func(s *state) float64 { return float64(s.use.Memory.InactiveFile) }),
		one("container_memory_failcnt", "Times memory use ran into its limit.", Untyped, mem, func(s *state) float64 { return float64(s.use.Memory.LimitHits) }),
		{name: "container_memory_failures_total", help: "Page faults.", kind: Counter, rows: []row{
			{[]string{"failure_type", "pgfault", "scope", "container"}, mem, func(s *state) float64 { return float64(s.use.Memory.Faults) }},
			{[]string{"failure_type", "pgmajfault", "scope", "container"}, mem, func(s *state) float64 { return float64(s.use.Memory.MajorFaults) }},
			{[]string{"failure_type", "pgfault", "scope", "hierarchy"}, mem, func(s *state) float64 { return float64(s.use.Memory.TotalFaults) }},
			{[]string{"failure_type", "pgmajfault", "scope", "hierarchy"}, mem, func(s *state) float64 { return float64(s.use.Memory.TotalMajorFaults) }},
		}},
		one("container_oom_events_total", "Processes killed for want of memory.", Counter, cgroup.HasOOM, func(s *state) float64 { return float64(max(s.use.Memory.OOMKills, s.oom)) }),
		one("container_threads", "Processes and threads that run.", Gauge, cgroup.HasTasks, func(s *state) float64 { return float64(s.use.Tasks) }),
		one("container_pressure_cpu_waiting_seconds_total", "Time some task waited for cpu.", Counter, psi, func(s *state) float64 { return ns(s.use.PSI.CPU.Some) }),
		one("container_pressure_cpu_stalled_seconds_total", "Time all tasks waited for cpu.", Counter, psi, func(s *state) float64 { return ns(s.use.PSI.CPU.Full) }),
		one("container_pressure_memory_waiting_seconds_total", "Time some task waited for memory.", Counter, psi, func(s *state) float64 { return ns(s.use.PSI.Memory.Some) }),
		one("container_pressure_memory_stalled_seconds_total", "Time all tasks waited for memory.", Counter, psi, func(s *state) float64 { return ns(s.use.PSI.Memory.Full) }),
		one("container_pressure_io_waiting_seconds_total", "Time some task waited for input or output.", Counter, psi, func(s *state) float64 { return ns(s.use.PSI.IO.Some) }),
		one("container_pressure_io_stalled_seconds_total", "Time all tasks waited for input or output.", Counter, psi, func(s *state) float64 { return ns(s.use.PSI.IO.Full) }),
	}
}

// specTable lists what comes from the limits and times of a cgroup.
func specTable() []family {
	return []family{
		one("container_start_time_seconds", "When it started, unix time.", Gauge, 0, func(s *state) float64 { return s.start }),
		one("container_creation_time_seconds", "When its cgroup was made, unix time.", Gauge, 0, func(s *state) float64 { return s.made }),
		leaf(one("container_last_seen", "When it was read last, unix time.", Gauge, 0, func(s *state) float64 { return s.seen })),
		one("container_spec_cpu_period", "Length of a period of the cpu limit, µs.", Gauge, 0, func(s *state) float64 { return float64(s.limits.CPUPeriod) }),
		quota(one("container_spec_cpu_quota", "CPU time allowed in a period, µs.", Gauge, 0, func(s *state) float64 { return float64(s.limits.CPUQuota) })),
		one("container_spec_cpu_shares", "Share of the cpu against its neighbours.", Gauge, 0, func(s *state) float64 { return float64(s.limits.CPUShares) }),
		one("container_spec_memory_limit_bytes", "Memory limit, 0 is none.", Gauge, 0, func(s *state) float64 { return float64(s.limits.Memory) }),
		one("container_spec_memory_swap_limit_bytes", "Swap limit, 0 is none.", Gauge, 0, func(s *state) float64 { return float64(s.limits.MemorySwap) }),
		one("container_spec_memory_reservation_limit_bytes", "Memory kept for it under pressure, 0 is none.", Gauge, 0, func(s *state) float64 { return float64(s.limits.MemoryReserved) }),
		one("container_threads_max", "Processes and threads allowed, 0 is no limit.", Gauge, 0, func(s *state) float64 { return float64(s.limits.Pids) }),
		last(one("perch_container_exit_code", "Exit code of a container, one sample beside its last numbers.", Gauge, 0, func(s *state) float64 { return float64(s.code) })),
	}
}

// Producers maps every series name to its producer. A name that two producers
// claim is a bug.
func Producers() map[string]Producer {
	out := map[string]Producer{}
	claim := func(name string, p Producer) {
		if _, twice := out[name]; twice {
			panic("BUG: two producers of " + name)
		}
		out[name] = p
	}
	for _, f := range fastTable() {
		claim(f.name, Fast)
	}
	for _, f := range specTable() {
		claim(f.name, Spec)
	}
	for _, f := range restTable() {
		claim(f.name, Rest)
	}
	return out
}

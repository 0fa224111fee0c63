package cgroup

import (
	"bytes"
	"math"
)

// number reads the decimal digits at the start of b; what follows is ignored,
// overflow saturates.
func number(b []byte) uint64 {
	const most = ^uint64(0)
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			break
		}
		if n > (most-uint64(c-'0'))/10 {
			return most
		}
		n = n*10 + uint64(c-'0')
	}
	return n
}

// each calls f for each "key value" line.
func each(b []byte, f func(key []byte, value uint64)) {
	for len(b) > 0 {
		line := b
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		if i := bytes.IndexByte(line, ' '); i > 0 {
			f(line[:i], number(line[i+1:]))
		}
	}
}

func (u *Use) parseCPUStat(b []byte) { // v1 cpu.stat, ns
	each(b, func(key []byte, v uint64) {
		switch string(key) {
		case "nr_periods":
			u.CPU.Periods = v
		case "nr_throttled":
			u.CPU.ThrottledPeriods = v
		case "throttled_time":
			u.CPU.Throttled = v
		}
	})
}

func (u *Use) parseCPUStat2(b []byte) { // v2 cpu.stat, µs
	each(b, func(key []byte, v uint64) {
		switch string(key) {
		case "usage_usec":
			u.CPU.Usage = v * 1000
		case "user_usec":
			u.CPU.User = v * 1000
		case "system_usec":
			u.CPU.System = v * 1000
		case "nr_periods":
			u.CPU.Periods = v
		case "nr_throttled":
			u.CPU.ThrottledPeriods = v
		case "throttled_usec":
			u.CPU.Throttled = v * 1000
		}
	})
}

// tick is what cpuacct.stat counts in: USER_HZ is 100 on every Linux port we
// run on.
const tick = 1e9 / 100

func (u *Use) parseCPUAcct(b []byte) {
	each(b, func(key []byte, v uint64) {
		switch string(key) {
		case "user":
			u.CPU.User = v * tick
		case "system":
			u.CPU.System = v * tick
		}
	})
}

func (u *Use) parseMemoryStat(b []byte) { // v1: the total_ lines include children
	m := &u.Memory
	each(b, func(key []byte, v uint64) {
		switch string(key) {
		case "total_cache":
			m.Cache = v
		case "total_rss":
			m.RSS = v
		case "total_mapped_file":
			m.MappedFile = v
		case "total_swap":
			m.Swap = v
		case "total_active_file":
			m.ActiveFile = v
		case "total_inactive_file":
			m.InactiveFile = v
		case "pgfault":
			m.Faults = v
		case "pgmajfault":
			m.MajorFaults = v
		case "total_pgfault":
			m.TotalFaults = v
		case "total_pgmajfault":
			m.TotalMajorFaults = v
		}
	})
}

func (u *Use) parseMemoryStat2(b []byte) {
	m := &u.Memory
	each(b, func(key []byte, v uint64) {
		switch string(key) {
		case "file":
			m.Cache = v
		case "anon":
			m.RSS = v
		case "file_mapped":
			m.MappedFile = v
		case "active_file":
			m.ActiveFile = v
		case "inactive_file":
			m.InactiveFile = v
		case "pgfault":
			m.Faults, m.TotalFaults = v, v
		case "pgmajfault":
			m.MajorFaults, m.TotalMajorFaults = v, v
		}
	})
}

// parseRootMemory makes up the use of the whole machine as v1 counts it.
func (u *Use) parseRootMemory(b []byte) {
	u.parseMemoryStat2(b)
	u.Memory.Usage = u.Memory.RSS + u.Memory.Cache
}

func (u *Use) parseSwap(b []byte) { // of /proc/meminfo, in kB
	var total, free uint64
	for len(b) > 0 {
		line := b
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		if rest, ok := bytes.CutPrefix(line, []byte("SwapTotal:")); ok {
			total = number(bytes.TrimLeft(rest, " "))
		} else if rest, ok := bytes.CutPrefix(line, []byte("SwapFree:")); ok {
			free = number(bytes.TrimLeft(rest, " "))
		}
	}
	if total > free && total < unlimited {
		u.Memory.Swap = (total - free) * 1024
	}
}

func (u *Use) parseOOMControl(b []byte) {
	each(b, func(key []byte, v uint64) {
		if string(key) == "oom_kill" {
			u.Memory.OOMKills = v
		}
	})
}

func (u *Use) parseMemoryEvents(b []byte) {
	each(b, func(key []byte, v uint64) {
		switch string(key) {
		case "max":
			u.Memory.LimitHits = v
		case "oom_kill":
			u.Memory.OOMKills = v
		}
	})
}

// parsePressure reads "some avg10=0.00 … total=123" and the line for full.
func parsePressure(b []byte) (p Pressure) {
	for len(b) > 0 {
		line := b
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		i := bytes.LastIndex(line, []byte("total="))
		if i < 0 {
			continue
		}
		total := number(line[i+len("total="):]) * 1000
		switch {
		case bytes.HasPrefix(line, []byte("some ")):
			p.Some = total
		case bytes.HasPrefix(line, []byte("full ")):
			p.Full = total
		}
	}
	return p
}

// shares turns a v2 weight back into v1 shares. runc makes the weight: it fits
// the least, the largest and the default of both scales (2, 262144 and 1024 to
// 1, 10000 and 100).
func shares(weight uint64) uint64 {
	if weight <= 1 {
		return 2 * weight
	}
	l := (math.Sqrt(125*125+4*612*(math.Log10(float64(min(weight, 10000)))+7.0/34)) - 125) / 2
	return uint64(math.Round(math.Exp2(l)))
}

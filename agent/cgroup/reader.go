package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrGone means that the cgroup was removed.
var ErrGone = errors.New("cgroup is gone")

// Use is what a cgroup and everything below it used since it was made.
type Use struct {
	Has    Has
	CPU    CPU
	Memory Memory
	Tasks  uint64 // processes and threads now
	PSI    PSI
}

// Has says which parts of a Use were readable.
type Has uint16

// The parts.
const (
	HasCPU Has = 1 << iota
	HasThrottling
	HasMemory
	HasMemoryPeak
	HasOOM
	HasTasks
	HasPSI
)

// CPU is in ns and periods.
type CPU struct {
	Usage, User, System uint64
	Periods             uint64
	ThrottledPeriods    uint64
	Throttled           uint64
}

// Memory is in bytes, but for the counters at its end.
type Memory struct {
	Usage        uint64
	WorkingSet   uint64 // Usage less file pages that were not used lately
	RSS          uint64
	Cache        uint64
	MappedFile   uint64
	Swap         uint64
	Peak         uint64
	ActiveFile   uint64
	InactiveFile uint64

	LimitHits        uint64 // times usage ran into the limit
	OOMKills         uint64
	Faults           uint64
	MajorFaults      uint64
	TotalFaults      uint64 // with children; the same as Faults on v2
	TotalMajorFaults uint64
}

// PSI is the time tasks stood still for want of something.
type PSI struct{ CPU, Memory, IO Pressure }

// Pressure is in ns: some task waited, all tasks waited.
type Pressure struct{ Some, Full uint64 }

type file struct {
	fd   int
	slow bool // Look leaves it out
	source
}

// Reader holds the hot files of one cgroup open.
type Reader struct {
	path  string
	files []file // what tells the CPU time comes first
	buf   []byte
}

type source struct {
	dir, name string
	has       Has
	parse     func(*Use, []byte)
}

// slow says of a file that the kernel keeps its numbers until they are asked
// for, and that nobody needs them every second.
func slow(name string) bool {
	return name == "cpuacct.stat" || name == "memory.max_usage_in_bytes" || name == "memory.failcnt" || name == "memory.peak" || name == "vmstat"
}

// maxFile is more than the longest of the files, memory.stat of v2, can be.
const maxFile = 8 << 10

// Open opens what there is of the hot files; ErrGone when there is nothing.
func (t Tree) Open(path string) (*Reader, error) {
	r := &Reader{path: path, buf: make([]byte, maxFile)}
	for _, s := range t.sources(path) {
		fd, err := unix.Open(filepath.Join(s.dir, s.name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.EOPNOTSUPP):
			continue // an older kernel, a controller that is off, pressure that is off
		case err != nil:
			r.Close()
			return nil, fmt.Errorf("open cgroup %s file %s: %w", path, s.name, err)
		}
		r.files = append(r.files, file{fd, slow(s.name), s})
	}
	if len(r.files) == 0 {
		return nil, fmt.Errorf("open cgroup %s: %w", path, ErrGone)
	}
	return r, nil
}

func (t Tree) sources(path string) []source {
	psi := func(dir string) []source {
		return []source{
			{dir, "cpu.pressure", HasPSI, func(u *Use, b []byte) { u.PSI.CPU = parsePressure(b) }},
			{dir, "memory.pressure", HasPSI, func(u *Use, b []byte) { u.PSI.Memory = parsePressure(b) }},
			{dir, "io.pressure", HasPSI, func(u *Use, b []byte) { u.PSI.IO = parsePressure(b) }},
		}
	}
	if t.Layout == Unified {
		dir := filepath.Join(t.Root, path)
		out := append([]source{{dir, "cpu.stat", HasCPU | HasThrottling, (*Use).parseCPUStat2}}, psi(dir)...)
		if filepath.Clean(path) == "/" && !exists(filepath.Join(dir, "memory.current")) {
			// The machine's own root has no numbers of memory but memory.stat.
			return append(out, source{dir, "memory.stat", HasMemory, (*Use).parseRootMemory}, source{"/proc", "meminfo", 0, (*Use).parseSwap},
				source{"/proc", "vmstat", HasOOM, (*Use).parseMemoryEvents})
		}
		return append(out,
			source{dir, "memory.current", HasMemory, func(u *Use, b []byte) { u.Memory.Usage = number(b) }},
			source{dir, "memory.stat", 0, (*Use).parseMemoryStat2},
			source{dir, "memory.swap.current", 0, func(u *Use, b []byte) { u.Memory.Swap = number(b) }},
			source{dir, "memory.peak", HasMemoryPeak, func(u *Use, b []byte) { u.Memory.Peak = number(b) }},
			source{dir, "memory.events", HasOOM, (*Use).parseMemoryEvents},
			source{dir, "pids.current", HasTasks, func(u *Use, b []byte) { u.Tasks = number(b) }},
		)
	}
	var out []source
	add := func(controller, name string, has Has, parse func(*Use, []byte)) {
		if d := t.dirs[controller]; d != "" {
			out = append(out, source{filepath.Join(d, path), name, has, parse})
		}
	}
	add("cpuacct", "cpuacct.usage", HasCPU, func(u *Use, b []byte) { u.CPU.Usage = number(b) })
	add("cpuacct", "cpuacct.stat", 0, (*Use).parseCPUAcct)
	add("cpu", "cpu.stat", HasThrottling, (*Use).parseCPUStat)
	add("memory", "memory.usage_in_bytes", HasMemory, func(u *Use, b []byte) { u.Memory.Usage = number(b) })
	add("memory", "memory.stat", 0, (*Use).parseMemoryStat)
	add("memory", "memory.max_usage_in_bytes", HasMemoryPeak, func(u *Use, b []byte) { u.Memory.Peak = number(b) })
	add("memory", "memory.failcnt", 0, func(u *Use, b []byte) { u.Memory.LimitHits = number(b) })
	add("memory", "memory.oom_control", HasOOM, (*Use).parseOOMControl)
	add("pids", "pids.current", HasTasks, func(u *Use, b []byte) { u.Tasks = number(b) })
	if d := t.dirs["unified"]; d != "" {
		out = append(out, psi(filepath.Join(d, path))...)
	}
	return out
}

// Read fills u with the numbers of now. ErrGone means that the cgroup was
// removed; u then holds what could still be read. A file that went away alone
// leaves its part out.
func (r *Reader) Read(u *Use) error {
	*u = Use{}
	for i := range r.files {
		if err := r.read(u, &r.files[i]); err != nil {
			return err
		}
	}
	return r.finish(u)
}

// Look brings u, which Read filled before, up to date at little cost: it says
// idle, and reads no more, when no task of the cgroup ran since, and it leaves
// out what changes slowly. What others did to an idle cgroup, and stalls of tasks
// that never ran, show up with the next Read.
func (r *Reader) Look(u *Use) (idle bool, err error) {
	before, had := u.CPU.Usage, u.Has
	u.Has = 0
	for i := range r.files {
		f := &r.files[i]
		if f.slow {
			continue
		}
		if err := r.read(u, f); err != nil {
			return false, err
		}
		if i == 0 && u.Has&HasCPU != 0 && u.CPU.Usage == before {
			u.Has = had
			return true, nil
		}
	}
	if u.Has != 0 {
		u.Has |= had & HasMemoryPeak
	}
	return false, r.finish(u)
}

func (r *Reader) read(u *Use, f *file) error {
	n, err := unix.Pread(f.fd, r.buf, 0)
	switch {
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EOPNOTSUPP):
		return nil // pressure was switched off
	case err != nil:
		return fmt.Errorf("read cgroup %s: %w", r.path, err)
	}
	f.parse(u, r.buf[:n])
	u.Has |= f.has
	return nil
}

func (r *Reader) finish(u *Use) error {
	if m := &u.Memory; m.Usage > m.InactiveFile {
		m.WorkingSet = m.Usage - m.InactiveFile
	} else {
		m.WorkingSet = 0
	}
	if u.Has == 0 {
		return fmt.Errorf("read cgroup %s: %w", r.path, ErrGone)
	}
	return nil
}

// Close closes the files.
func (r *Reader) Close() {
	for _, f := range r.files {
		_ = unix.Close(f.fd) // read only
	}
	r.files = nil
}

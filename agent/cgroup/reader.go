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
	skip bool // its numbers cannot change, see Limited
	source
}

// Reader holds the hot files of one cgroup open.
type Reader struct {
	path  string
	files []file
	tell  int // so many of the first files tell whether anything happened: CPU time and memory use
	buf   []byte
	ran   bool // see Ran
}

type source struct {
	dir, name string
	has       Has
	when      when
	parse     func(*Use, []byte)
}

// when says which looks need a file.
type when int

const (
	often    when = iota // each
	moved                // those at which memory use changed
	quota                // those at a cgroup with a cpu limit; of another the numbers stay
	seldom               // Read and Refresh
	atLimits             // Read and Refresh of a cgroup with a memory limit
)

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
		r.files = append(r.files, file{fd: fd, source: s})
	}
	switch f := r.files; {
	case len(f) == 0:
		return nil, fmt.Errorf("open cgroup %s: %w", path, ErrGone)
	case f[0].has&HasCPU == 0:
	case len(f) > 1 && f[1].has&HasMemory != 0:
		r.tell = 2
	default:
		r.tell = 1
	}
	return r, nil
}

// sources lists what tells the CPU time first, then memory use.
func (t Tree) sources(path string) []source {
	psi := func(dir string) []source {
		return []source{
			{dir, "cpu.pressure", HasPSI, seldom, func(u *Use, b []byte) { u.PSI.CPU = parsePressure(b) }},
			{dir, "memory.pressure", HasPSI, seldom, func(u *Use, b []byte) { u.PSI.Memory = parsePressure(b) }},
			{dir, "io.pressure", HasPSI, seldom, func(u *Use, b []byte) { u.PSI.IO = parsePressure(b) }},
		}
	}
	if t.Layout == Unified {
		dir := filepath.Join(t.Root, path)
		out := []source{{dir, "cpu.stat", HasCPU | HasThrottling, often, (*Use).parseCPUStat2}}
		if filepath.Clean(path) == "/" && !exists(filepath.Join(dir, "memory.current")) {
			// The machine's own root has no numbers of memory but memory.stat.
			out = append(out, source{dir, "memory.stat", HasMemory, often, (*Use).parseRootMemory}, source{"/proc", "meminfo", 0, moved, (*Use).parseSwap},
				source{"/proc", "vmstat", HasOOM, seldom, (*Use).parseMemoryEvents})
			return append(out, psi(dir)...)
		}
		out = append(out,
			source{dir, "memory.current", HasMemory, often, func(u *Use, b []byte) { u.Memory.Usage = number(b) }},
			source{dir, "memory.stat", 0, moved, (*Use).parseMemoryStat2},
			source{dir, "memory.swap.current", 0, moved, func(u *Use, b []byte) { u.Memory.Swap = number(b) }},
			source{dir, "memory.peak", HasMemoryPeak, seldom, func(u *Use, b []byte) { u.Memory.Peak = number(b) }},
			source{dir, "memory.events", HasOOM, seldom, (*Use).parseMemoryEvents},
			source{dir, "pids.current", HasTasks, seldom, func(u *Use, b []byte) { u.Tasks = number(b) }},
		)
		return append(out, psi(dir)...)
	}
	var out []source
	add := func(controller, name string, has Has, when when, parse func(*Use, []byte)) {
		if d := t.dirs[controller]; d != "" {
			out = append(out, source{filepath.Join(d, path), name, has, when, parse})
		}
	}
	add("cpuacct", "cpuacct.usage", HasCPU, often, func(u *Use, b []byte) { u.CPU.Usage = number(b) })
	add("memory", "memory.usage_in_bytes", HasMemory, often, func(u *Use, b []byte) { u.Memory.Usage = number(b) })
	add("memory", "memory.stat", 0, moved, (*Use).parseMemoryStat)
	add("cpu", "cpu.stat", HasThrottling, quota, (*Use).parseCPUStat)
	add("cpuacct", "cpuacct.stat", 0, seldom, (*Use).parseCPUAcct)
	add("memory", "memory.max_usage_in_bytes", HasMemoryPeak, seldom, func(u *Use, b []byte) { u.Memory.Peak = number(b) })
	add("memory", "memory.failcnt", 0, atLimits, func(u *Use, b []byte) { u.Memory.LimitHits = number(b) })
	add("memory", "memory.oom_control", HasOOM, seldom, (*Use).parseOOMControl)
	add("pids", "pids.current", HasTasks, seldom, func(u *Use, b []byte) { u.Tasks = number(b) })
	if d := t.dirs["unified"]; d != "" {
		out = append(out, psi(filepath.Join(d, path))...)
	}
	return out
}

// Limited says which limits the cgroup has: without a limit the kernel does not
// count what it held back, and the files that tell it are not read. Until told,
// they are.
func (r *Reader) Limited(cpu, memory bool) {
	for i := range r.files {
		switch f := &r.files[i]; f.when {
		case quota:
			f.skip = !cpu
		case atLimits:
			f.skip = !memory
		}
	}
}

// Read brings u, which is empty or was read before, up to date. ErrGone means
// that the cgroup was removed; u is then, as after any error, what it was: the
// last numbers there are. A file that went away alone leaves its part out.
func (r *Reader) Read(u *Use) error {
	before := *u
	u.Has = 0
	for i := range r.files {
		if err := r.read(u, &r.files[i]); err != nil {
			*u = before
			return err
		}
	}
	r.ran = false
	return r.finish(u, &before, func(f *file) bool { return f.skip })
}

// Refresh does the same at less cost: it says still, and reads no more, when
// neither CPU time nor memory use changed since, and no Look saw tasks run. Then
// only what others did to the cgroup, or stalls of tasks that never ran, can be
// missing from u; the next Read has them.
func (r *Reader) Refresh(u *Use) (still bool, err error) {
	if r.ran {
		return false, r.Read(u)
	}
	before := *u
	u.Has = 0
	for i := range r.files {
		if i == r.tell && u.Has&before.Has&HasCPU != 0 && u.CPU.Usage == before.CPU.Usage && u.Memory.Usage == before.Memory.Usage {
			u.Has = before.Has
			return true, nil
		}
		if err := r.read(u, &r.files[i]); err != nil {
			*u = before
			return false, err
		}
	}
	return false, r.finish(u, &before, func(f *file) bool { return f.skip })
}

// Ran says that a Look saw tasks run since all files were read last: then those
// that Look leaves out may have changed too.
func (r *Reader) Ran() bool { return r.ran }

// Look brings the numbers that are worth a look each second up to date: CPU time,
// throttling, memory. It says idle, and reads no more, when no task of the cgroup
// ran since u was read.
func (r *Reader) Look(u *Use) (idle bool, err error) {
	if r.tell == 0 || u.Has&HasCPU == 0 {
		return false, r.Read(u)
	}
	before := *u
	u.Has = 0
	leave := func(f *file) bool {
		return f.skip || f.when >= seldom || f.when == moved && u.Memory.Usage == before.Memory.Usage
	}
	for i := range r.files {
		if leave(&r.files[i]) {
			continue
		}
		if err := r.read(u, &r.files[i]); err != nil {
			*u = before
			return false, err
		}
		switch {
		case i > 0:
		case u.Has == 0: // the cgroup is gone, or only this
			u.Has = before.Has
			return false, r.Read(u)
		case u.CPU.Usage == before.CPU.Usage:
			u.Has = before.Has
			return true, nil
		default:
			r.ran = true
		}
	}
	return false, r.finish(u, &before, leave)
}

func (r *Reader) read(u *Use, f *file) error {
	if f.skip {
		return nil
	}
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

// finish takes the parts of files that were left for what they were.
func (r *Reader) finish(u, before *Use, left func(*file) bool) error {
	if u.Has == 0 {
		*u = *before
		return fmt.Errorf("read cgroup %s: %w", r.path, ErrGone)
	}
	for i := range r.files {
		if left(&r.files[i]) {
			u.Has |= before.Has & r.files[i].has
		}
	}
	u.Memory.WorkingSet = u.Memory.Usage - min(u.Memory.Usage, u.Memory.InactiveFile)
	return nil
}

// Descriptors adds the files that are open.
func (r *Reader) Descriptors(to map[int]bool) {
	for _, f := range r.files {
		to[f.fd] = true
	}
}

// Close closes the files.
func (r *Reader) Close() {
	for _, f := range r.files {
		_ = unix.Close(f.fd) // read only
	}
	r.files = nil
}

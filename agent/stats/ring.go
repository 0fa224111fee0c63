package stats

import (
	"time"

	"perch/agent/cgroup"
)

// point is one second of a cgroup. Counters are since its start; times in ns,
// sizes in bytes. What is below whole is of a warm round and repeated until the
// next one.
type point struct {
	t          int64 // ms
	cpu        uint64
	throttled  uint64
	usage      uint64
	workingSet uint64
	rss        uint64
	swap       uint64

	whole      bool // all was read
	tasks      uint32
	cpuSome    uint64
	memorySome uint64
	memoryFull uint64
	ioSome     uint64
	ioFull     uint64
}

func pointOf(at time.Time, u *cgroup.Use, whole bool) point {
	return point{
		t: at.UnixMilli(), cpu: u.CPU.Usage, throttled: u.CPU.Throttled,
		usage: u.Memory.Usage, workingSet: u.Memory.WorkingSet, rss: u.Memory.RSS, swap: u.Memory.Swap,
		whole: whole, tasks: uint32(u.Tasks), cpuSome: u.PSI.CPU.Some, memorySome: u.PSI.Memory.Some, memoryFull: u.PSI.Memory.Full,
		ioSome: u.PSI.IO.Some, ioFull: u.PSI.IO.Full,
	}
}

// ring keeps the newest points. It grows as it is filled, so that a container
// of one second does not cost ten minutes of memory.
type ring struct {
	points []point
	size   int
	next   int // where the oldest is, once full
}

// add keeps times in order: a point that is not newer than the one before is
// left out, and a clock that was set back begins anew.
func (r *ring) add(p point) {
	if n := len(r.points); n > 0 {
		switch before := r.points[(r.next+n-1)%n].t; {
		case before-p.t >= setBack:
			r.points, r.next = r.points[:0], 0
		case before >= p.t:
			return
		}
	}
	if len(r.points) < r.size {
		r.points = append(r.points, p)
		return
	}
	r.points[r.next] = p
	r.next = (r.next + 1) % r.size
}

// since copies the points from t (ms) on, oldest first.
func (r *ring) since(t int64) []point {
	var out []point
	for i := range r.points {
		if p := r.points[(r.next+i)%len(r.points)]; p.t >= t {
			out = append(out, p)
		}
	}
	return out
}

package stats

import (
	"time"

	"perch/agent/cgroup"
)

// Point is one second of a cgroup. Counters are since its start; times in ns,
// sizes in bytes.
type Point struct {
	T          int64  `json:"t"` // ms
	CPU        uint64 `json:"cpu"`
	Throttled  uint64 `json:"throttled"`
	Usage      uint64 `json:"usage"`
	WorkingSet uint64 `json:"workingSet"`
	RSS        uint64 `json:"rss"`
	Swap       uint64 `json:"swap"`
	CPUSome    uint64 `json:"cpuSome"`
	MemorySome uint64 `json:"memorySome"`
	MemoryFull uint64 `json:"memoryFull"`
	IOSome     uint64 `json:"ioSome"`
	IOFull     uint64 `json:"ioFull"`
	Tasks      uint32 `json:"tasks"`
	OOMKills   uint32 `json:"oomKills"`
}

func point(at time.Time, u *cgroup.Use) Point {
	return Point{
		T: at.UnixMilli(), CPU: u.CPU.Usage, Throttled: u.CPU.Throttled,
		Usage: u.Memory.Usage, WorkingSet: u.Memory.WorkingSet, RSS: u.Memory.RSS, Swap: u.Memory.Swap,
		CPUSome: u.PSI.CPU.Some, MemorySome: u.PSI.Memory.Some, MemoryFull: u.PSI.Memory.Full,
		IOSome: u.PSI.IO.Some, IOFull: u.PSI.IO.Full,
		Tasks: uint32(u.Tasks), OOMKills: uint32(u.Memory.OOMKills),
	}
}

// ring keeps the newest points. It grows as it is filled, so that a container
// of one second does not cost ten minutes of memory.
type ring struct {
	points []Point
	size   int
	next   int // where the oldest is, once full
}

func (r *ring) add(p Point) {
	if len(r.points) < r.size {
		r.points = append(r.points, p)
		return
	}
	r.points[r.next] = p
	r.next = (r.next + 1) % r.size
}

// since copies the points from t (ms) on, oldest first.
func (r *ring) since(t int64) []Point {
	var out []Point
	for i := range r.points {
		if p := r.points[(r.next+i)%len(r.points)]; p.T >= t {
			out = append(out, p)
		}
	}
	return out
}

package store

import (
	"time"

	"perch/logs/block"
	"perch/logs/record"
)

// place is a spot in the write-ahead log.
type place struct {
	Seq uint64 `json:"seq"`
	Ord uint32 `json:"ord"`
}

func (p place) before(q place) bool { return p.Seq < q.Seq || p.Seq == q.Seq && p.Ord < q.Ord }

// head holds the lines of one stream that are not in a block yet.
type head struct {
	stream *record.Stream
	hash   uint64
	first  uint64 // number of its first line
	oldest uint64 // write-ahead entry of its first line
	last   place  // of its last line
	born   time.Time
	min    int64
	max    int64
	lines  block.Lines
	memory int // with its lines, as counted in the store's headBytes
}

// content is how much a block of the head would hold.
func (h *head) content() int { return len(h.lines.Text) + len(h.lines.Fields) }

// beside is about the memory of a head and its source without lines.
const beside = 512

func (h *head) bytes() int { return beside + h.lines.Bytes() }

func (h *head) add(r *record.Record, at place) {
	if h.lines.Len() == 0 {
		h.min, h.max = r.Time, r.Time
	}
	h.min, h.max = min(h.min, r.Time), max(h.max, r.Time)
	h.lines.Add(r)
	h.last = at
}

// source is what the store remembers of a stream while it runs.
type source struct {
	stream *record.Stream
	hash   uint64
	head   *head  // nil when all its lines are cut
	next   uint64 // number of its next line
	done   place  // last place that is in a block
	idle   time.Time
	fast   bool // the last head was cut because it was full
	lines  int  // of that head
	fields int  // its bytes
}

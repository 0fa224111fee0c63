package tail

import (
	"perch/logs/record"
)

const (
	batchLines = 4096
	batchBytes = 1 << 20
)

// batch gathers lines until they are handed to the sink.
type batch struct {
	records []record.Record
	arena   []byte // holds the bodies
	bytes   int
}

func (b *batch) full() bool { return len(b.records) >= batchLines || b.bytes >= batchBytes }

// add copies body into the batch. over bytes of it are missing.
func (b *batch) add(s *record.Stream, at int64, body []byte, over int64) {
	if need := len(body) + 64; cap(b.arena)-len(b.arena) < need {
		b.arena = make([]byte, 0, max(need, batchBytes/4))
	}
	start := len(b.arena)
	b.arena = append(b.arena, body...)
	if over > 0 || len(body) > record.MaxBody {
		b.arena = append(b.arena[:start], record.Cut(b.arena[start:len(b.arena):len(b.arena)], over)...)
	}
	b.records = append(b.records, record.Record{Time: at, Stream: s, Body: b.arena[start:len(b.arena):len(b.arena)]})
	b.bytes += len(body)
}

func (b *batch) reset() {
	clear(b.records)
	b.records = b.records[:0]
	b.arena, b.bytes = b.arena[:0], 0
}

package store

import (
	"bytes"
	"sync"
	"sync/atomic"

	"perch/logs/record"
)

// Numbered is a durable record with its number within its stream.
type Numbered struct {
	record.Record
	Hash   uint64
	Number uint64
}

// Follower receives new lines until it is closed.
type Follower struct {
	s       *Store
	want    func(*record.Stream) bool
	lines   chan Numbered
	waiting atomic.Int64 // bytes of lines
	dropped atomic.Int64

	mu    sync.Mutex
	wants map[uint64]bool // what want said, by stream; guarded by mu
}

// followBytes of lines may wait for one follower, and followAll for all of them.
const (
	followBytes = 8 << 20
	followAll   = 64 << 20
)

// followStreams are as many as a follower remembers whether it wants them.
const followStreams = 1 << 16

// size is about the memory that a waiting line takes.
func (n *Numbered) size() int64 {
	size := 200 + len(n.Body)
	for _, f := range n.Fields {
		size += len(f.Key) + len(f.Value)
	}
	return int64(size)
}

// Follow starts to receive new lines of wanted streams. When buffer lines wait, or
// fewer that are large, or many bytes for all followers together, further ones are
// dropped and counted. What want answers holds for a stream, and want may take long:
// nobody else waits for it.
func (s *Store) Follow(buffer int, want func(*record.Stream) bool) *Follower {
	f := &Follower{s: s, want: want, lines: make(chan Numbered, buffer), wants: map[uint64]bool{}}
	s.mu.RLock()
	known := make(map[uint64]*record.Stream, len(s.sources))
	for hash, src := range s.sources {
		known[hash] = src.stream
	}
	s.mu.RUnlock()
	for hash, stream := range known {
		f.asked(hash, stream)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		close(f.lines)
	} else {
		s.followers[f] = struct{}{}
	}
	return f
}

// Lines is closed when the follower or the store is. Who takes one says so: Took.
func (f *Follower) Lines() <-chan Numbered { return f.lines }

// Took makes room for further lines, and tells whether this one is wanted: of a
// stream that is new nobody has asked before.
func (f *Follower) Took(n *Numbered) bool {
	f.waiting.Add(-n.size())
	return f.asked(n.Hash, n.Stream)
}

// asked is what want says of a stream, which it is asked once.
func (f *Follower) asked(hash uint64, stream *record.Stream) bool {
	f.mu.Lock()
	is, known := f.wants[hash]
	f.mu.Unlock()
	if known {
		return is
	}
	is = f.want(stream)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.wants) >= followStreams {
		clear(f.wants)
	}
	f.wants[hash] = is
	return is
}

// mayWant is false for a stream that want has refused.
func (f *Follower) mayWant(hash uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	is, known := f.wants[hash]
	return is || !known
}

// Dropped returns how many lines were dropped since it was asked last.
func (f *Follower) Dropped() int64 { return f.dropped.Swap(0) }

// Close stops receiving.
func (f *Follower) Close() {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if _, ok := f.s.followers[f]; ok {
		delete(f.s.followers, f)
		close(f.lines)
	}
}

// following is the memory of lines that wait for followers. Called with mu held.
func (s *Store) following() (bytes int64) {
	for f := range s.followers {
		bytes += f.waiting.Load()
	}
	return bytes
}

// publish hands records that were just applied to followers. Called with mu
// held; never blocks.
func (s *Store) publish(records []record.Record) {
	if len(s.followers) == 0 {
		return
	}
	all := s.following()
	// The numbers are known from the end: a source's last line has next-1.
	left := map[*source]uint64{}
	for i := range records {
		left[s.source(records[i].Stream)]++
	}
	for i := range records {
		src := s.source(records[i].Stream)
		number := src.next - left[src]
		left[src]--
		n := Numbered{Record: records[i], Hash: src.hash, Number: number}
		copied := false
		for f := range s.followers {
			if !f.mayWant(src.hash) {
				continue
			}
			if waiting := f.waiting.Load(); len(f.lines) == cap(f.lines) || waiting > 0 && (waiting+n.size() > followBytes || all+n.size() > followAll) {
				f.dropped.Add(1)
				s.m.followDrop.Inc()
				continue
			}
			if !copied {
				n.Body, copied = bytes.Clone(n.Body), true
			}
			f.waiting.Add(n.size())
			all += n.size()
			f.lines <- n
		}
	}
}

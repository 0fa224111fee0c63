package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"

	"perch/logs/record"
)

// ErrFull is returned by Append while the store cannot take more. The sender
// keeps the batch and tries again.
var ErrFull = errors.New("log store is full")

// Entries of the write-ahead log begin with how they are packed.
const (
	packedRaw = 0
	packedS2  = 1
	packFrom  = 2 << 10 // shorter batches are not compressed
)

// pack returns an entry that holds b.
func (s *Store) pack(b []byte) []byte {
	if len(b) < packFrom {
		return append(append(s.entries.get(1+len(b)), packedRaw), b...)
	}
	n := s2.MaxEncodedLen(len(b))
	z := s2.Encode(s.buffers.get(n)[:n], b)
	entry := append(append(s.entries.get(1+len(z)), packedS2), z...)
	s.buffers.put(z)
	return entry
}

func unpack(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, record.ErrFormat
	}
	if b[0] == packedS2 {
		if n, err := s2.DecodedLen(b[1:]); err != nil || n > maxBatch {
			return nil, record.ErrFormat
		}
		return s2.Decode(nil, b[1:])
	}
	return append([]byte(nil), b[1:]...), nil
}

// What a batch, a record and a field may take beside their text when written;
// more makes the memory grow.
const (
	appendRoom = 4 << 10
	recordRoom = 16
	fieldRoom  = 4
)

// maxBatch limits the encoded bytes of one Append.
const maxBatch = 100 << 20

// Append stores records and positions together. When it returns nil both are
// durable and visible to views; when it fails neither is. Records' levels are
// filled in. Bodies longer than record.MaxBody, and fields longer than
// record.MaxFields, are cut with a marker.
func (s *Store) Append(ctx context.Context, records []record.Record, positions []record.Position) error {
	if len(records) == 0 && len(positions) == 0 {
		return nil
	}
	if err := s.begin(); err != nil {
		s.m.refused.WithLabelValues("full").Inc()
		return err
	}
	defer s.appending.Done()
	raw, size := 0, appendRoom // of bodies, and of all that is written
	for i := range records {
		r := &records[i]
		if r.Stream == nil {
			return fmt.Errorf("append %d lines: line %d has no stream", len(records), i)
		}
		if len(r.Body) > record.MaxBody+64 {
			r.Body = record.Cut(r.Body, 0)
		}
		if r.Level == record.Unknown {
			r.Level = record.Detect(r.Body)
		}
		raw += len(r.Body)
		size += recordRoom
		beside := 0
		for _, f := range r.Fields {
			beside += len(f.Key) + len(f.Value)
		}
		if beside > record.MaxFields { // a head and an answer have limits too
			r.Fields = record.CutFields(r.Fields)
			beside = record.MaxFields
		}
		size += beside + fieldRoom*len(r.Fields)
	}
	plain := record.AppendBatch(s.buffers.get(size+raw), records, positions)
	if len(plain) > maxBatch {
		s.buffers.put(plain)
		return fmt.Errorf("append %d lines: %d bytes are more than %d", len(records), len(plain), maxBatch)
	}
	payload := s.pack(plain)
	s.buffers.put(plain)
	defer s.entries.put(payload)
	err := s.wal.Append(ctx, payload, func(seq uint64) { s.apply(seq, records, positions, false) })
	if err != nil {
		s.m.refused.WithLabelValues("write").Inc()
		return fmt.Errorf("append %d lines: %w", len(records), err)
	}
	s.m.lines.Add(float64(len(records)))
	s.m.raw.Add(float64(raw))
	return s.help()
}

// spare is memory that is used again. Many entries wait for the disk at the
// same time, so they have memory of their size.
type spare struct{ pool sync.Pool }

const spareStep = 32 << 10

// get returns empty memory for n bytes.
func (s *spare) get(n int) []byte {
	if b, ok := s.pool.Get().(*[]byte); ok && cap(*b) >= n {
		return (*b)[:0]
	}
	return make([]byte, 0, (n+spareStep-1)/spareStep*spareStep)
}

func (s *spare) put(b []byte) {
	if cap(b) <= 4<<20 {
		s.pool.Put(&b)
	}
}

// begin counts an append that Close waits for. It refuses when lines cannot be cut
// and heads have grown to twice their budget.
func (s *Store) begin() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return errClosed
	}
	if s.wal == nil {
		return errCopy
	}
	if s.cutErr != nil && s.headBytes > 2*s.cfg.HeadBytes {
		return fmt.Errorf("%w: %w", ErrFull, s.cutErr)
	}
	s.appending.Add(1)
	return nil
}

var (
	errClosed = errors.New("log store is closed")
	errCopy   = errors.New("log store is a copy, to be read only")
)

// apply puts durable records into heads. Calls come in write-ahead order, one
// at a time. replay leaves out what blocks hold already.
func (s *Store) apply(seq uint64, records []record.Record, positions []record.Position, replay bool) {
	now := time.Now()
	s.mu.Lock()
	var last *record.Stream
	var src *source
	for i := range records {
		r := &records[i]
		if r.Stream != last {
			last, src = r.Stream, s.source(r.Stream)
		}
		at := place{seq, uint32(i)}
		if replay && !src.done.before(at) {
			continue
		}
		h := src.head
		if h == nil {
			h = &head{stream: src.stream, hash: src.hash, first: src.next, oldest: seq, born: now}
			s.makeRoom(src, h)
			src.head = h
		}
		h.add(r, at)
		src.next++
		if now := h.bytes(); now != h.memory {
			s.headBytes += now - h.memory
			h.memory = now
		}
		if h.content() >= s.cfg.BlockBytes {
			src.fast, src.lines, src.fields = true, h.lines.Len(), len(h.lines.Fields)
			s.seal(src)
		}
	}
	if src != nil {
		src.idle = now
	}
	for _, p := range positions {
		s.positions[fileKey{p.File, p.Inode}] = p
	}
	s.lastSeq = seq
	s.dirty = true
	for s.headBytes-s.sealedBytes > s.cfg.HeadBytes {
		if !s.sealLargest() {
			break
		}
	}
	s.publish(records)
	s.mu.Unlock()
}

// makeRoom gives a head of a fast stream the memory of a whole block, instead of
// growing into it, while heads have a quarter of their memory left.
func (s *Store) makeRoom(src *source, h *head) {
	if !src.fast || s.headBytes-s.sealedBytes > s.cfg.HeadBytes*3/4 {
		return
	}
	if n := len(s.spare); n > 0 {
		h.lines = s.spare[n-1]
		s.spare = s.spare[:n-1]
		return
	}
	fields := min(src.fields, s.cfg.BlockBytes) // one record's may be larger
	h.lines.Grow(src.lines+src.lines/8, s.cfg.BlockBytes+s.cfg.BlockBytes/16-fields, fields+fields/8)
}

// source finds or makes the source of a stream. Labels are looked up by
// pointer first; the pointers of a source are forgotten with it.
func (s *Store) source(stream *record.Stream) *source {
	if src, ok := s.byPointer[stream]; ok {
		return src
	}
	h := stream.Hash()
	src, ok := s.sources[h]
	if !ok {
		src = &source{stream: stream, hash: h, next: s.numberAfter(h), idle: time.Now()}
		s.sources[h] = src
	}
	if src.stream == nil { // known only by a checkpoint
		src.stream = stream
	}
	if len(s.byPointer) >= maxPointers {
		clear(s.byPointer)
	}
	s.byPointer[stream] = src
	return src
}

// numberAfter is the number of the next line of a stream that was forgotten while
// it was silent. No two lines that are stored have the same.
func (s *Store) numberAfter(hash uint64) uint64 {
	for _, p := range slices.Backward(s.parts) {
		if n, ok := p.ended(hash); ok {
			return n
		}
	}
	return 0
}

const maxPointers = 1 << 14

// seal moves the head of src to the queue of blocks to be cut.
func (s *Store) seal(src *source) {
	h := src.head
	if h == nil {
		return
	}
	src.head = nil
	s.sealed = append(s.sealed, h)
	s.sealedBytes += h.memory
	if h.content() >= s.cfg.small() {
		s.sealedLarge++
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// sealLargest seals the head that makes the largest block: small ones cost more. When
// all are small it seals many at once, to be written together.
func (s *Store) sealLargest() bool {
	var most *source
	for _, src := range s.sources {
		if src.head != nil && (most == nil || src.head.content() > most.head.content()) {
			most = src
		}
	}
	if most == nil {
		return false
	}
	if most.head.content() < s.cfg.small() {
		s.sealAll(s.largest(s.headBytes - s.sealedBytes - s.cfg.HeadBytes/16*15))
		return true
	}
	most.fast = false
	s.seal(most)
	return true
}

// largest are the sources whose heads, the largest of all, take so much memory.
func (s *Store) largest(bytes int) []*source {
	var all []*source
	for _, src := range s.sources {
		if src.head != nil {
			all = append(all, src)
		}
	}
	slices.SortFunc(all, func(a, b *source) int { return cmp.Compare(b.head.content(), a.head.content()) })
	for n, src := range all {
		if bytes -= src.head.memory; bytes <= 0 {
			return all[:n+1]
		}
	}
	return all
}

// Position returns how much of a source file is stored.
func (s *Store) Position(file string, inode uint64) (record.Position, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	p, ok := s.positions[fileKey{file, inode}]
	return p, ok
}

// Positions returns all remembered positions.
func (s *Store) Positions() []record.Position {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]record.Position, 0, len(s.positions))
	for _, p := range s.positions {
		out = append(out, p)
	}
	return out
}

// Forget drops the position of a file that no longer exists.
func (s *Store) Forget(file string, inode uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.positions, fileKey{file, inode})
	s.dirty = true
}

type fileKey struct {
	file  string
	inode uint64
}

package wal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config says where and in what portions.
type Config struct {
	Dir          string
	SegmentBytes int64  // a segment is closed when it is larger
	First        uint64 // no entry is numbered lower from now on: its owner has seen such ones
	// Create makes a new segment file for writing; nil means the real one.
	Create func(path string) (File, error)
}

// Log is the write-ahead log of one directory.
type Log struct {
	cfg Config
	log *slog.Logger
	m   *metrics

	mu      sync.Mutex // guards what follows
	waiting []*entry
	leading bool
	closed  bool

	applying sync.Mutex // held while a group is applied; taken in commit order

	// The fields below belong to the leader.
	segMu    sync.Mutex // guards segments for readers of Bytes and Truncate
	segments []segment
	file     File
	bad      bool // the open segment must not be written any more
	next     uint64
	buf      []byte
}

type entry struct {
	payload []byte
	apply   func(seq uint64)
	wake    chan error // nil error: durable and applied
	lead    chan struct{}
}

// ErrClosed is returned by Append after Close.
var ErrClosed = errors.New("write-ahead log is closed")

func createFile(path string) (File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
}

// Open reads the log in cfg.Dir, calls replay for every entry in order, cuts a
// torn tail, and makes the log ready to append. Payloads are valid only during
// the call.
func Open(cfg Config, replay func(seq uint64, payload []byte) error, log *slog.Logger, reg prometheus.Registerer) (*Log, error) {
	if cfg.Create == nil {
		cfg.Create = createFile
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open write-ahead log: %w", err)
	}
	l := &Log{cfg: cfg, log: log, m: newMetrics(reg), next: 1, bad: true}
	if err := l.load(replay); err != nil {
		return nil, fmt.Errorf("open write-ahead log %s: %w", cfg.Dir, err)
	}
	l.next = max(l.next, cfg.First)
	l.measure()
	return l, nil
}

func (l *Log) load(replay func(uint64, []byte) error) error {
	headless, err := scan(l.cfg.Dir, replay, func(s segment, lost, torn int64) error {
		l.segments = append(l.segments, s)
		if lost > 0 || s.headless {
			l.m.broken.Inc()
			l.log.Error("write-ahead segment was damaged", "count", s.number, "bytes", lost)
		}
		if torn == 0 {
			return nil
		}
		l.log.Info("torn tail cut", "bytes", torn)
		return os.Truncate(segmentPath(l.cfg.Dir, s.number), s.size)
	}, &l.next)
	if err == nil && headless != 0 { // died while the segment was made
		err = os.Remove(segmentPath(l.cfg.Dir, headless))
	}
	return err
}

// First is the number of the first entry that the log in dir keeps or will have; 1
// says that nothing was let go of. It is 0 when the header of the oldest segment is
// broken.
func First(dir string) (uint64, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	oldest := uint64(0)
	for _, e := range names {
		if n, ok := segmentNumber(e.Name()); ok && (oldest == 0 || n < oldest) {
			oldest = n
		}
	}
	if oldest == 0 {
		return 1, nil
	}
	first, _, err := readHeader(segmentPath(dir, oldest))
	if err != nil {
		return 0, nil //nolint:nilerr // that is what 0 says
	}
	return first, nil
}

// Read calls replay for every entry in dir in order, as Open does, and changes
// nothing there. What is torn or damaged is left out.
func Read(dir string, replay func(seq uint64, payload []byte) error) error {
	next := uint64(1)
	if _, err := scan(dir, replay, func(segment, int64, int64) error { return nil }, &next); err != nil {
		return fmt.Errorf("read write-ahead log %s: %w", dir, err)
	}
	return nil
}

// scan replays the segments of dir. It tells found of each, with how many bytes
// of it are lost, and how many of the last one were never whole, and in next the
// number after the last entry. A last segment that was only begun is returned by
// its number.
func scan(dir string, replay func(uint64, []byte) error, found func(s segment, lost, torn int64) error, next *uint64) (headless uint64, err error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	var numbers []uint64
	for _, e := range names {
		if n, ok := segmentNumber(e.Name()); ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	// limits[i] is what the next segment says is valid of segment i.
	limits := make([]int64, len(numbers))
	heads := make([]uint64, len(numbers)) // 0: the header is broken
	for i := len(numbers) - 1; i >= 0; i-- {
		first, before, err := readHeader(segmentPath(dir, numbers[i]))
		switch {
		case errors.Is(err, errBegun) && i == len(numbers)-1:
			headless = numbers[i]
			numbers = numbers[:i]
		case errors.Is(err, errHeader), errors.Is(err, errBegun): // its entries tell their numbers
		case err != nil:
			return 0, fmt.Errorf("segment %d: %w", numbers[i], err)
		default:
			heads[i] = first
			if i > 0 {
				limits[i-1] = before
			}
		}
	}
	for i, n := range numbers {
		b, err := os.ReadFile(segmentPath(dir, n))
		if err != nil {
			return 0, err
		}
		s := segment{number: n, first: heads[i], headless: heads[i] == 0}
		if last := i == len(numbers)-1; !last && limits[i] > 0 && limits[i] < int64(len(b)) {
			b = b[:limits[i]]
		}
		body := b[min(headerBytes, len(b)):]
		if seq, _, ok := entryAt(body); s.headless && ok && seq >= *next {
			s.first = seq
		}
		s.first = max(s.first, *next) // in any case they ascend
		valid, damaged, after, err := walk(body, s.first, replay)
		if err != nil {
			return 0, fmt.Errorf("replay segment %d: %w", n, err)
		}
		s.size = int64(len(b) - len(body) + valid)
		lost, torn := int64(damaged), int64(len(body)-valid)
		if i < len(numbers)-1 {
			lost, torn = lost+torn, 0
		}
		if err := found(s, lost, torn); err != nil {
			return 0, err
		}
		*next = max(after, s.first)
	}
	return headless, nil
}

func readHeader(path string) (uint64, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close() // read only
	var b [headerBytes]byte
	if _, err := io.ReadFull(f, b[:]); err != nil {
		return 0, 0, errBegun
	}
	first, before, err := parseHeader(b[:])
	if err == nil {
		return first, before, nil
	}
	// Nothing is written after a header before it is durable.
	if info, statErr := f.Stat(); statErr != nil || info.Size() == headerBytes {
		return 0, 0, errors.Join(errBegun, statErr)
	}
	return 0, 0, err
}

// Append makes payload durable and then calls apply with its sequence number.
// It returns after apply. When it fails nothing was stored and apply was not
// called. It does not give up once the write has begun, even when ctx ends.
func (l *Log) Append(ctx context.Context, payload []byte, apply func(seq uint64)) error {
	if len(payload) > MaxEntry {
		return fmt.Errorf("append %d bytes: longer than %d", len(payload), MaxEntry)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	a := &entry{payload: payload, apply: apply, wake: make(chan error, 1), lead: make(chan struct{}, 1)}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	l.waiting = append(l.waiting, a)
	if l.leading {
		l.mu.Unlock()
		select {
		case err := <-a.wake:
			return err
		case <-a.lead:
		}
		l.mu.Lock()
	}
	l.leading = true
	group := l.waiting
	l.waiting = nil
	l.mu.Unlock()

	start := time.Now()
	first, err := l.commit(group)
	l.m.fsync.Observe(time.Since(start).Seconds())

	if err == nil {
		l.applying.Lock()
	}
	l.mu.Lock()
	if len(l.waiting) > 0 {
		l.waiting[0].lead <- struct{}{}
	} else {
		l.leading = false
	}
	l.mu.Unlock()

	if err != nil {
		l.m.failures.Inc()
		for _, g := range group {
			if g != a {
				g.wake <- err
			}
		}
		return err
	}
	for i, g := range group {
		if g.apply != nil {
			g.apply(first + uint64(i))
		}
	}
	l.applying.Unlock()
	l.m.entries.Add(float64(len(group)))
	for _, g := range group {
		if g != a {
			g.wake <- nil
		}
	}
	return nil
}

// commit writes a group and fsyncs it. The caller leads.
func (l *Log) commit(group []*entry) (uint64, error) {
	if err := l.ready(); err != nil {
		return 0, fmt.Errorf("open write-ahead segment: %w", err)
	}
	l.segMu.Lock()
	seg := &l.segments[len(l.segments)-1]
	size := seg.size
	l.segMu.Unlock()
	first := l.next
	buf := l.buf[:0]
	for i, g := range group {
		buf = appendEntry(buf, first+uint64(i), g.payload)
	}
	if cap(buf) <= 4<<20 {
		l.buf = buf[:0]
	} else {
		l.buf = nil
	}
	_, err := l.file.Write(buf)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		l.retract(size)
		return 0, fmt.Errorf("write write-ahead log: %w", err)
	}
	l.next = first + uint64(len(group))
	l.segMu.Lock()
	l.segments[len(l.segments)-1].size = size + int64(len(buf))
	l.segMu.Unlock()
	l.measure()
	return first, nil
}

// retract takes back what a failed commit left. When that fails too, the
// segment is not written again and its successor says how much of it counts.
// After a failed fsync the kernel may have dropped pages, so the file is left
// in any case.
func (l *Log) retract(size int64) {
	l.bad = true
	if err := l.file.Truncate(size); err != nil {
		l.log.Warn("failed entry was not cut off", "err", err)
	}
}

// ready makes sure that a good segment with room is open.
func (l *Log) ready() error {
	l.segMu.Lock()
	n := len(l.segments)
	var last segment
	if n > 0 {
		last = l.segments[n-1]
	}
	l.segMu.Unlock()
	if !l.bad && last.size < l.cfg.SegmentBytes {
		return nil
	}
	path := segmentPath(l.cfg.Dir, last.number+1)
	f, err := l.cfg.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(appendHeader(nil, l.next, last.size))
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = syncDir(l.cfg.Dir)
	}
	if err != nil {
		// A half-made segment is removed, or else ignored and made again.
		return errors.Join(err, f.Close(), os.Remove(path))
	}
	if l.file != nil {
		_ = l.file.Close() // its entries are fsynced or retracted
	}
	l.file, l.bad = f, false
	l.segMu.Lock()
	l.segments = append(l.segments, segment{number: last.number + 1, first: l.next, size: headerBytes})
	l.segMu.Unlock()
	return nil
}

func (l *Log) measure() { l.m.bytes.Set(float64(l.Bytes())) }

// Bytes is the size of all segments.
func (l *Log) Bytes() int64 {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	var n int64
	for _, s := range l.segments {
		n += s.size
	}
	return n
}

// Segment is a file of the log and how much of it is durable. What is durable
// never changes.
type Segment struct {
	Name string // in the directory of the log
	Size int64
}

// Segments lists the files of the log, oldest first. Truncate may remove some
// at any time.
func (l *Log) Segments() []Segment {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	out := make([]Segment, len(l.segments))
	for i, s := range l.segments {
		out[i] = Segment{filepath.Base(segmentPath("", s.number)), s.size}
	}
	return out
}

// Oldest is the sequence number of the first entry that is still kept, and of
// the first entry of the segment after it (0 when there is only one segment).
func (l *Log) Oldest() (first, second uint64) {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	if len(l.segments) > 0 {
		first = l.segments[0].first
	}
	if len(l.segments) > 1 {
		second = l.segments[1].first
	}
	return first, second
}

// Truncate removes the segments that hold only entries before seq. The last
// segment always stays: it carries the numbering.
func (l *Log) Truncate(seq uint64) error {
	l.segMu.Lock()
	var gone []segment
	for len(l.segments) > 1 && l.segments[1].first <= seq {
		gone = append(gone, l.segments[0])
		l.segments = l.segments[1:]
	}
	l.segMu.Unlock()
	for _, s := range gone {
		if err := os.Remove(segmentPath(l.cfg.Dir, s.number)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove write-ahead segment %d: %w", s.number, err)
		}
	}
	if len(gone) > 0 {
		l.measure()
	}
	return nil
}

// Close refuses further appends and closes the open segment. The caller makes
// sure that no Append is under way.
func (l *Log) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

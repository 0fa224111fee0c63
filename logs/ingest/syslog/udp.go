package syslog

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"perch/logs/record"
)

const (
	datagramBytes = 64 << 10
	waitingBytes  = 32 << 20 // of records that wait to be stored
)

// waiting are records that wait to be stored, by number and by size.
type waiting struct {
	records chan record.Record
	bytes   atomic.Int64
}

// put tells whether there was room for r.
func (w *waiting) put(r record.Record) bool {
	size := int64(r.Size())
	if w.bytes.Add(size) <= waitingBytes {
		select {
		case w.records <- r:
			return true
		default:
		}
	}
	w.bytes.Add(-size)
	return false
}

// gather adds r, which was taken, and those that wait behind it as long as a batch
// has room. Their memory is the caller's from now on.
func (w *waiting) gather(records []record.Record, r record.Record) []record.Record {
	for size := 0; ; {
		records = append(records, r)
		size += r.Size()
		w.bytes.Add(-int64(r.Size()))
		if len(records) >= batchLines || size >= record.BatchBytes {
			return records
		}
		var ok bool
		select {
		case r, ok = <-w.records:
		default:
		}
		if !ok {
			return records
		}
	}
}

// datagrams reads and stores datagrams until the socket is closed. Reading does
// not wait for storing: what waits is bounded, what does not fit is counted.
func (s *Syslog) datagrams(ctx context.Context) {
	queue := &waiting{records: make(chan record.Record, s.cfg.Queue)}
	var storing sync.WaitGroup
	storing.Go(func() { s.storeDatagrams(ctx, queue) })
	defer storing.Wait()
	defer close(queue.records)
	s.countDrops()
	known := map[netip.Addr]*record.Stream{} // of the last seconds
	asked := time.Now()
	b := make([]byte, datagramBytes)
	oob := make([]byte, 128)
	drops := uint32(0)
	for {
		n, on, _, from, err := s.udp.ReadMsgUDPAddrPort(b, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an answer to something nobody sent
		}
		if total, ok := dropped(oob[:on]); ok && total != drops {
			s.m.lost.WithLabelValues("kernel").Add(float64(total - drops))
			drops = total
		}
		now := time.Now()
		if now.Sub(asked) > 5*time.Second || len(known) > 4096 {
			clear(known) // an address may be another's by now
			asked = now
		}
		a := from.Addr().Unmap()
		stream, ok := known[a]
		if !ok {
			stream, err = s.who(a)
			if err != nil {
				stream = nil
			}
			known[a] = stream
		}
		switch {
		case stream == nil:
			s.m.lost.WithLabelValues("unknown").Inc()
			continue
		case s.parts.Sources.Take("syslog", a.String(), now, 0, 0) > 0:
			s.m.lost.WithLabelValues("limited").Inc()
			continue
		}
		s.parts.Sources.Take("syslog", a.String(), now, 1, n)
		r := record.Record{Stream: stream}
		s.m.fields.Add(float64(Parse(&r, append([]byte(nil), b[:n]...), now)))
		if !queue.put(r) {
			s.m.lost.WithLabelValues("buffer").Inc()
		}
	}
}

func (s *Syslog) storeDatagrams(ctx context.Context, queue *waiting) {
	var records []record.Record
	for r := range queue.records {
		clear(records)
		records = queue.gather(records[:0], r)
		if s.keep(ctx, records) != nil {
			s.m.lost.WithLabelValues("buffer").Add(float64(len(records)))
			continue
		}
		s.m.lines.WithLabelValues("udp").Add(float64(len(records)))
	}
}

// countDrops asks the kernel to say how many datagrams it had no room for.
func (s *Syslog) countDrops() {
	raw, err := s.udp.SyscallConn()
	if err != nil {
		return // then they are not counted
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1) }) // as above
}

// dropped reads the kernel's total out of what came with a datagram.
func dropped(oob []byte) (uint32, bool) {
	list, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, false
	}
	for _, m := range list {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_RXQ_OVFL && len(m.Data) >= 4 {
			return binary.NativeEndian.Uint32(m.Data), true
		}
	}
	return 0, false
}

package syslog

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"perch/logs/record"
)

const datagramBytes = 64 << 10

// datagrams reads and stores datagrams until the socket is closed. Reading does
// not wait for storing: what waits is bounded, what does not fit is counted.
func (s *Syslog) datagrams(ctx context.Context) {
	queue := make(chan record.Record, s.cfg.Queue)
	var storing sync.WaitGroup
	storing.Go(func() { s.storeDatagrams(ctx, queue) })
	defer storing.Wait()
	defer close(queue)
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
		select {
		case queue <- r:
		default:
			s.m.lost.WithLabelValues("buffer").Inc()
		}
	}
}

func (s *Syslog) storeDatagrams(ctx context.Context, queue <-chan record.Record) {
	var records []record.Record
	for r := range queue {
		records = append(records[:0], r)
		for more := true; more && len(records) < batchLines; {
			select {
			case r, ok := <-queue:
				if more = ok; ok {
					records = append(records, r)
				}
			default:
				more = false
			}
		}
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

package syslog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/ingest/chunk"
	"perch/logs/ingest/source"
	"perch/logs/record"
)

// Config of the door.
type Config struct {
	Listen         string // address for TCP and UDP
	Node           string // name of this node, for senders that are no pod
	MaxMessage     int    // bytes
	MaxConnections int
	Idle           time.Duration // a connection that is silent for so long is closed
	Queue          int           // datagrams that wait to be stored
}

// Default returns the configuration for a node.
func Default(listen, node string) Config {
	return Config{Listen: listen, Node: node, MaxMessage: 1 << 20, MaxConnections: 256, Idle: time.Hour, Queue: 4096}
}

// Validate names all problems at once.
func (c Config) Validate() error {
	var errs []error
	if c.Listen == "" {
		errs = append(errs, errors.New("syslog listen address is empty"))
	}
	if c.MaxMessage <= 0 || c.MaxConnections <= 0 || c.Idle <= 0 || c.Queue <= 0 {
		errs = append(errs, errors.New("syslog limits must be more than 0"))
	}
	return errors.Join(errs...)
}

// Parts are what the door works with.
type Parts struct {
	// Identify tells which pod has an address. ok is false for one that is no
	// pod: its lines get namespace _host. allowed is false for senders that may
	// not send.
	Identify func(from netip.Addr) (s record.Stream, ok, allowed bool)
	Sink     chunk.Sink
	Sources  *source.Sources // nil: no limits of rate
}

// Syslog is the door. Make it with New.
type Syslog struct {
	cfg   Config
	parts Parts
	log   *slog.Logger
	m     *metrics
	tcp   net.Listener
	udp   *net.UDPConn
}

// New opens the listeners.
func New(cfg Config, parts Parts, log *slog.Logger, reg prometheus.Registerer) (*Syslog, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	tcp, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("open syslog door: %w", err)
	}
	at, err := net.ResolveUDPAddr("udp", tcp.Addr().String())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open syslog door: %w", err), tcp.Close())
	}
	udp, err := net.ListenUDP("udp", at)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open syslog door: %w", err), tcp.Close())
	}
	_ = udp.SetReadBuffer(4 << 20) // the kernel may give less; what it drops is counted
	return &Syslog{cfg: cfg, parts: parts, log: log, m: newMetrics(reg), tcp: tcp, udp: udp}, nil
}

// Addr is where the door listens, for both transports.
func (s *Syslog) Addr() net.Addr { return s.tcp.Addr() }

// Run serves until ctx ends; connections end with it.
func (s *Syslog) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	defer parts.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(ctx, func() {
		_ = s.tcp.Close() // ends Accept
		_ = s.udp.Close()
	})
	parts.Go(func() { s.datagrams(ctx) })
	places := source.NewPlaces(s.cfg.MaxConnections)
	for {
		c, err := s.tcp.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept syslog connection: %w", err)
		}
		if err != nil { // no descriptor is free, or the peer is gone already
			_ = source.Rest(ctx, 100*time.Millisecond)
			continue
		}
		from := source.Address(c)
		if !places.Take(from) {
			s.m.rejected.WithLabelValues("many").Inc()
			_ = c.Close() // too many, or too many of one sender
			continue
		}
		parts.Go(func() {
			defer places.Give(from)
			s.m.connections.Inc()
			defer s.m.connections.Dec()
			end := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer end()
			err := s.serve(ctx, c)
			_ = c.Close() // nothing is buffered
			s.tell(ctx, c, err)
		})
	}
}

var (
	errFormat  = errors.New("not syslog")
	errUnknown = errors.New("sender may not send")
)

func (s *Syslog) tell(ctx context.Context, c net.Conn, err error) {
	reason := ""
	switch {
	case err == nil || ctx.Err() != nil:
		return
	case errors.Is(err, errFormat):
		reason = "format"
	case errors.Is(err, errUnknown):
		reason = "unknown"
	default: // the network
		return
	}
	s.m.rejected.WithLabelValues(reason).Inc()
	s.log.Warn("syslog connection was closed", "reason", reason, "node", c.RemoteAddr().String(), "err", err)
}

// who gives the labels of a sender's lines.
func (s *Syslog) who(a netip.Addr) (*record.Stream, error) {
	a = a.Unmap()
	st, isPod, allowed := s.parts.Identify(a)
	if !allowed {
		return nil, fmt.Errorf("%w: address %s", errUnknown, a)
	}
	if !isPod {
		st = record.Stream{Namespace: record.HostNamespace}
	}
	if st.Node == "" {
		st.Node = s.cfg.Node
	}
	st.Output, st.Kind = record.Push, record.KindLog
	return &st, nil
}

const (
	batchLines = 1024
	batchBytes = 1 << 20
)

// serve reads messages of one connection and stores what has arrived so far
// whenever there is nothing more to read at once.
func (s *Syslog) serve(ctx context.Context, c net.Conn) error {
	from, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return fmt.Errorf("%w: address %s", errUnknown, c.RemoteAddr())
	}
	stream, err := s.who(from.Addr())
	if err != nil {
		return err
	}
	in := bufio.NewReaderSize(c, 64<<10)
	var records []record.Record
	size := 0
	store := func() error {
		if len(records) == 0 {
			return nil
		}
		if err := s.keep(ctx, records); err != nil {
			return err
		}
		s.m.lines.WithLabelValues("tcp").Add(float64(len(records)))
		wait := s.parts.Sources.Take("syslog", from.Addr().Unmap().String(), time.Now(), len(records), size)
		clear(records)
		records, size = records[:0], 0
		return source.Rest(ctx, wait) // meanwhile nothing is read: the sender feels it
	}
	for {
		if !whole(in) || len(records) >= batchLines || size >= batchBytes { // what came does not wait for what may come
			if err := store(); err != nil {
				return err
			}
		}
		if err := c.SetReadDeadline(time.Now().Add(s.cfg.Idle)); err != nil {
			return err
		}
		b, err := next(in, s.cfg.MaxMessage)
		if len(b) > 0 {
			r := record.Record{Stream: stream}
			s.m.fields.Add(float64(Parse(&r, b, time.Now())))
			if len(r.Body) > 0 || len(r.Fields) > 0 {
				records = append(records, r)
			}
			size += len(b)
		}
		if err != nil {
			if kept := store(); kept != nil {
				return kept
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// next reads one message: "<length> <message>", or up to a newline. A message
// that goes on beyond limit is cut into several.
func next(in *bufio.Reader, limit int) ([]byte, error) {
	if _, err := in.Peek(1); err != nil {
		return nil, err
	}
	for want := 2; ; want++ {
		b, err := in.Peek(want)
		n, digits, more := length(b)
		switch {
		case digits > 0:
			return counted(in, n, digits, limit)
		case !more || errors.Is(err, io.EOF):
			return line(in, limit)
		case err != nil:
			return nil, err
		}
	}
}

// length reads the length before a message. digits is 0 when there is none: a
// message with its length begins with its priority, any other text may begin with
// a number. more says that b is too short to tell.
func length(b []byte) (n, digits int, more bool) {
	const most = 9
	for i, c := range b {
		switch {
		case c == ' ' && i > 0:
			if i+1 == len(b) {
				return 0, 0, true
			}
			if b[i+1] == '<' {
				return n, i, false
			}
			return 0, 0, false
		case c < '0' || c > '9' || i == 0 && c == '0' || i == most:
			return 0, 0, false
		}
		n = n*10 + int(c-'0')
	}
	return 0, 0, true
}

// whole tells whether the next message is here to its end.
func whole(in *bufio.Reader) bool {
	b, _ := in.Peek(in.Buffered()) // it has so many
	n, digits, more := length(b)
	if digits > 0 {
		return len(b) > digits+n
	}
	return !more && bytes.IndexByte(b, '\n') >= 0
}

// line reads up to a newline.
func line(in *bufio.Reader, limit int) ([]byte, error) {
	var out []byte
	for {
		part, err := in.ReadSlice('\n')
		out = append(out, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull) && len(out) < limit:
			continue
		case errors.Is(err, bufio.ErrBufferFull):
			err = nil
		}
		return bytes.TrimRight(out, "\r\n\x00"), err
	}
}

// counted reads a message of n bytes after their number.
func counted(in *bufio.Reader, n, digits, limit int) ([]byte, error) {
	if n > limit {
		return nil, fmt.Errorf("%w: a message of %d bytes, %d are allowed", errFormat, n, limit)
	}
	if _, err := in.Discard(digits + 1); err != nil {
		return nil, err
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(in, b); err != nil {
		return nil, io.EOF // half a message is none
	}
	return b, nil
}

// keep tries until the sink takes the records or ctx ends.
func (s *Syslog) keep(ctx context.Context, records []record.Record) error {
	return source.Keep(ctx, s.m.refused, func() error { return s.parts.Sink(ctx, records, nil) })
}

package ingest

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tinylib/msgp/msgp"

	"perch/logs/ingest/chunk"
	"perch/logs/ingest/source"
	"perch/logs/record"
)

// Config of the Forward door.
type Config struct {
	Listen         string                           // TCP address; the heartbeat answers on the same UDP port
	Node           string                           // name of this node, for senders that are no pod
	Keys           []Key                            // of senders that are not known by their address
	Certificate    func() (*tls.Certificate, error) // for senders that begin with TLS; nil: there is no TLS
	OnlyTLS        bool                             // senders that are not known by their address must use TLS
	Hostname       string                           // told in the handshake
	MaxMessage     int                              // bytes of one message as sent
	MaxUnpacked    int64                            // bytes of one message's entries
	MaxPending     int64                            // bytes of all messages over 64 KB that are being received or stored; more wait
	MaxConnections int
	Idle           time.Duration // a connection that is silent for so long is closed
	Greeting       time.Duration // time for TLS, and for showing a key
}

// Default returns the configuration for a node.
func Default(listen, node string) Config {
	return Config{Listen: listen, Node: node, Hostname: node, MaxMessage: 32 << 20, MaxUnpacked: 64 << 20, MaxPending: 8 << 20, MaxConnections: 512, Idle: 10 * time.Minute, Greeting: 10 * time.Second}
}

// Key lets senders in that are not known by their address, and is who they are.
type Key struct {
	Name      string // told as field sender with each line
	Secret    string
	Namespace string // of their lines; empty: _host
}

// maxKeys are tried for each PING.
const maxKeys = 64

// Validate names all problems at once.
func (c Config) Validate() error {
	var errs []error
	if c.Listen == "" {
		errs = append(errs, errors.New("forward listen address is empty"))
	}
	if len(c.Keys) > maxKeys {
		errs = append(errs, fmt.Errorf("forward has %d keys; %d are allowed", len(c.Keys), maxKeys))
	}
	for _, k := range c.Keys {
		if k.Name == "" || k.Secret == "" {
			errs = append(errs, errors.New("forward key without name or secret"))
		}
	}
	if c.OnlyTLS && c.Certificate == nil {
		errs = append(errs, errors.New("forward senders must use TLS, but there is no certificate"))
	}
	if c.MaxMessage <= 0 || c.MaxUnpacked <= 0 || c.MaxPending <= 0 || c.MaxConnections <= 0 || c.Idle <= 0 || c.Greeting <= 0 {
		errs = append(errs, errors.New("forward limits must be more than 0"))
	}
	return errors.Join(errs...)
}

// Identify tells which pod has an address. ok is false for one that is no pod:
// its lines get namespace _host. allowed is false for senders that may not
// send without a key. It is asked once for each connection.
type Identify func(from netip.Addr) (s record.Stream, ok, allowed bool)

// Parts are what the door works with.
type Parts struct {
	Identify Identify
	Sink     chunk.Sink
	Seen     *chunk.Seen     // chunks stored before
	Sources  *source.Sources // nil: no limits of rate
}

// Forward is the Fluent Forward door. Make it with New.
type Forward struct {
	cfg   Config
	parts Parts
	log   *slog.Logger
	m     *metrics
	tcp   net.Listener
	udp   net.PacketConn

	pending *budget
	large   *budget   // messages that are more than few when taken apart
	records sync.Pool // of *[]record.Record
}

// New opens the listeners.
func New(cfg Config, parts Parts, log *slog.Logger, reg prometheus.Registerer) (*Forward, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	tcp, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("open forward door: %w", err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open forward heartbeat: %w", err), tcp.Close())
	}
	f := &Forward{cfg: cfg, parts: parts, log: log, m: newMetrics(reg), tcp: tcp, udp: udp}
	f.pending = &budget{limit: cfg.MaxPending, used: f.m.pending, waits: f.m.waits}
	f.large = &budget{limit: maxLarge, used: f.m.large, waits: f.m.waits}
	return f, nil
}

// Addr is where the door listens.
func (f *Forward) Addr() net.Addr { return f.tcp.Addr() }

// Run serves until ctx ends; connections end with it.
func (f *Forward) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	defer parts.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(ctx, func() {
		_ = f.tcp.Close() // ends Accept
		_ = f.udp.Close()
	})
	parts.Go(f.heartbeat)
	places := source.NewPlaces(f.cfg.MaxConnections)
	for {
		c, err := f.tcp.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept forward connection: %w", err)
		}
		if err != nil { // no descriptor or memory is free, or the peer is gone already
			f.m.rejected.WithLabelValues("accept").Inc()
			pause := time.NewTimer(acceptPause)
			select {
			case <-ctx.Done():
			case <-pause.C:
			}
			pause.Stop()
			continue
		}
		from := source.Address(c)
		if !places.Take(from) {
			f.m.rejected.WithLabelValues("many").Inc()
			_ = c.Close() // too many, or too many of one sender
			continue
		}
		parts.Go(func() {
			defer places.Give(from)
			f.m.connections.Inc()
			defer f.m.connections.Dec()
			end := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer end()
			err := f.serve(ctx, c)
			_ = c.Close() // nothing is buffered
			f.tell(ctx, c, err)
		})
	}
}

const acceptPause = 100 * time.Millisecond

func (f *Forward) tell(ctx context.Context, c net.Conn, err error) {
	reason := ""
	switch {
	case err == nil || ctx.Err() != nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed):
		return
	case errors.Is(err, errLarge):
		reason = "large"
	case errors.Is(err, errKey):
		reason = "key"
	case errors.Is(err, errUnknown):
		reason = "unknown"
	case errors.Is(err, errTLS):
		reason = "tls"
	case errors.Is(err, errFormat):
		reason = "format"
	default: // the network
		f.log.Debug("forward connection ended", "err", err)
		return
	}
	f.m.rejected.WithLabelValues(reason).Inc()
	f.log.Warn("forward connection was closed", "reason", reason, "node", c.RemoteAddr().String(), "err", err)
}

func (f *Forward) heartbeat() {
	b := make([]byte, 16)
	for {
		_, from, err := f.udp.ReadFrom(b)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		_, _ = f.udp.WriteTo([]byte{0}, from) // the next heartbeat tries again
	}
}

var errUnknown = errors.New("sender may not send")

// origin is who is at the other end of a connection.
type origin struct {
	stream *record.Stream
	key    string // name of the key it used, "" if it is known by its address
	name   string // under which its rate is limited
}

// serve reads messages of one connection.
func (f *Forward) serve(ctx context.Context, c net.Conn) error {
	r := &reader{c: c, limit: f.cfg.MaxMessage, idle: f.cfg.Idle, m: f.m, pending: f.pending, ended: ctx.Done()}
	defer r.close()
	from, err := f.who(r)
	defer func() {
		if t, ok := r.c.(*tls.Conn); ok {
			_ = t.Close() // says goodbye; nothing is buffered
		}
	}()
	if err != nil {
		return err
	}
	for {
		m, err := r.next()
		if err != nil {
			return err
		}
		lines := 0
		err = f.parts.Seen.Store(ctx, from.stream, m.chunk, func(mark []record.Position) error {
			var err error
			lines, err = f.store(ctx, from, m, mark)
			return err
		})
		if err != nil {
			return err
		}
		r.done()
		// Reading waits, then the acknowledgement, so that the sender feels it.
		if err := source.Rest(ctx, f.parts.Sources.Take("forward", from.name, time.Now(), lines, r.taken())); err != nil {
			return err
		}
		if m.chunk != "" {
			ack := msgp.AppendMapHeader(nil, 1)
			ack = msgp.AppendString(ack, "ack")
			ack = msgp.AppendString(ack, m.chunk)
			if err := r.c.SetWriteDeadline(time.Now().Add(f.cfg.Idle)); err != nil {
				return err
			}
			if _, err := r.c.Write(ack); err != nil {
				return err
			}
		}
	}
}

// who gives the labels of a connection's lines. Senders that are not known by
// their address prove that they have a key.
func (f *Forward) who(r *reader) (origin, error) {
	a := source.Address(r.c)
	if !a.IsValid() {
		return origin{}, fmt.Errorf("%w: address %s", errUnknown, r.c.RemoteAddr())
	}
	s, isPod, allowed := f.parts.Identify(a)
	from := origin{stream: &s, name: a.String()}
	if !allowed && len(f.cfg.Keys) == 0 {
		return origin{}, fmt.Errorf("%w: address %s", errUnknown, a)
	}
	secret, err := f.secure(r, allowed)
	if err != nil {
		return origin{}, err
	}
	switch {
	case !allowed && f.cfg.OnlyTLS && !secret:
		return origin{}, fmt.Errorf("%w: it was not used, and other machines must", errTLS)
	case !allowed:
		k, err := f.handshake(r)
		if err != nil {
			return origin{}, err
		}
		s = record.Stream{Namespace: cmp.Or(k.Namespace, record.HostNamespace)}
		from.key, from.name = k.Name, "key "+k.Name
	case !isPod:
		s = record.Stream{Namespace: record.HostNamespace}
	}
	s.Output, s.Kind = record.Forward, record.KindLog
	s.Node = cmp.Or(s.Node, f.cfg.Node)
	return from, nil
}

// store hands a message's entries to the sink, waits until they are taken and
// tells how many that were.
func (f *Forward) store(ctx context.Context, from origin, m message, mark []record.Position) (int, error) {
	// A message may be a thousand times what was sent, and so do those of other
	// connections: few take much memory at the same time.
	held := int64(0)
	ask := func() (err error) {
		if held == 0 {
			held, err = f.large.take(ctx.Done(), 1)
		}
		return err
	}
	defer func() {
		if held > 0 {
			f.large.give(held)
		}
	}()
	packed := m.packed
	if m.compressed {
		var err error
		if packed, err = inflate(packed, fewUnpacked, f.cfg.MaxUnpacked, ask); err != nil {
			return 0, err
		}
	}
	room, ok := f.records.Get().(*[]record.Record)
	if !ok {
		room = new([]record.Record)
	}
	records, err := f.recordsOf(from, m.tag, packed, (*room)[:0], ask)
	if err == nil {
		err = f.keep(ctx, records, mark)
	}
	if err == nil {
		f.m.lines.Add(float64(len(records)))
	}
	if n := len(records); cap(records) <= maxRoom {
		clear(records)
		*room = records[:0]
		f.records.Put(room)
		return n, err
	}
	return len(records), err
}

// recordsOf appends the records of packed entries. When they take more than little
// memory it asks before it goes on.
func (f *Forward) recordsOf(from origin, tag string, packed []byte, records []record.Record, ask func() error) ([]record.Record, error) {
	now := time.Now().UnixNano()
	var common []record.Field // of all entries
	if tag != "" {
		common = append(common, record.Field{Key: "tag", Value: tag[:min(len(tag), maxTag)]})
	}
	if from.key != "" {
		common = append(common, record.Field{Key: "sender", Value: from.key})
	}
	size, left := int64(0), 0
	bad, err := entries(packed, func(at int64, meta, fields []byte) error {
		r := record.Record{Time: at, Stream: from.stream}
		if at == 0 {
			r.Time = now
		}
		n, err := fill(&r, fields)
		if err == nil && meta != nil {
			var more int
			more, err = fillMeta(&r, meta)
			n += more
		}
		if err != nil {
			return err
		}
		left += n
		if len(r.Fields) == 0 {
			r.Fields = common[:len(common):len(common)]
		} else {
			r.Fields = append(r.Fields, common...)
		}
		size += recordBytes + int64(len(r.Body))
		for _, x := range r.Fields {
			size += fieldBytes + int64(len(x.Key)+len(x.Value))
		}
		if size > fewApart {
			if err := ask(); err != nil {
				return err
			}
		}
		if size > f.cfg.MaxUnpacked+f.cfg.MaxUnpacked/2 {
			return fmt.Errorf("%w: more than %d bytes when taken apart", errLarge, f.cfg.MaxUnpacked+f.cfg.MaxUnpacked/2)
		}
		records = append(records, r)
		return nil
	})
	f.m.bad.Add(float64(bad))
	f.m.fields.Add(float64(left))
	if err == nil && bad > 0 && len(records) == 0 { // nothing in it is what it should be
		err = fmt.Errorf("%w: %d entries are not [time, map]", errFormat, bad)
	}
	return records, err
}

// What an entry costs beside its text, so that many small ones are not cheaper
// than they are; and for how many records memory is kept.
const (
	recordBytes = 160 // a Record, and the slice growing
	fieldBytes  = 40
	maxTag      = 256 // bytes of it are kept; it is repeated in each record
	maxRoom     = 4096
)

// Messages beyond one of these sizes are stored only so many at a time.
const (
	fewUnpacked = 256 << 10 // bytes of entries that came packed
	fewApart    = 2 << 20   // bytes of records
	maxLarge    = 2
)

// keep tries until the sink takes the records or ctx ends.
func (f *Forward) keep(ctx context.Context, records []record.Record, mark []record.Position) error {
	if len(records) == 0 {
		return nil
	}
	return source.Keep(ctx, f.m.refused, func() error { return f.parts.Sink(ctx, records, mark) })
}

package push

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/ingest/chunk"
	"perch/logs/ingest/entry"
	"perch/logs/ingest/source"
	"perch/logs/record"
)

// Config of the doors.
type Config struct {
	MaxBody     int64         // bytes of one request as sent
	MaxUnpacked int64         // bytes of one request unpacked
	MaxRequests int           // under way at once
	Patience    time.Duration // how long a request waits for its turn, and then for the store to take it
	Arrival     time.Duration // how long a body may take to arrive: meanwhile it has one of MaxRequests' places
}

// Default returns the configuration for a server.
func Default() Config {
	return Config{MaxBody: 16 << 20, MaxUnpacked: 32 << 20, MaxRequests: 6, Patience: 10 * time.Second, Arrival: time.Minute}
}

// Validate names all problems at once.
func (c Config) Validate() error {
	if c.MaxBody <= 0 || c.MaxUnpacked <= 0 || c.MaxRequests <= 0 || c.Patience <= 0 || c.Arrival <= 0 {
		return errors.New("push limits must be more than 0")
	}
	return nil
}

// Caller is who sends.
type Caller struct {
	Stream record.Stream // labels of its lines; Output and Kind are set here
	Name   string        // under which its rate is limited
}

// Parts are what the doors work with.
type Parts struct {
	Identify func(*http.Request) (Caller, error) // an error: it may not push
	Sink     chunk.Sink
	Seen     *chunk.Seen
	Sources  *source.Sources // nil: no limits of rate
}

// Push are the doors. Make it with New.
type Push struct {
	cfg   Config
	parts Parts
	log   *slog.Logger
	m     *metrics
	room  chan struct{}
	zstd  *zstd.Decoder
}

// New opens nothing: the handlers are for the web door.
func New(cfg Config, parts Parts, log *slog.Logger, reg prometheus.Registerer) (*Push, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(cfg.MaxUnpacked)), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return nil, fmt.Errorf("open push door: %w", err)
	}
	return &Push{cfg: cfg, parts: parts, log: log, m: newMetrics(reg), room: make(chan struct{}, cfg.MaxRequests), zstd: z}, nil
}

// batch is what one request held.
type batch struct {
	stream  *record.Stream
	now     int64
	size    int64 // of the records, about
	limit   int64
	parts   weight // what the request may take before it is records
	records []record.Record
	timed   bool // a line has a time of its own
	fine    bool // and one so fine that the same line does not come again with it
	named   bool // all lines have ids of their sender
	bad     int
	left    int
}

// What a record costs beside its text, so that many small ones are not cheaper
// than they are.
const (
	recordBytes = 160
	fieldBytes  = 40
)

// add puts a record at the end; r.Time 0 is now.
func (b *batch) add(r record.Record) error {
	r.Stream = b.stream
	b.timed = b.timed || r.Time > 0
	b.fine = b.fine || r.Time > 0 && r.Time%int64(time.Millisecond) != 0
	if r.Time <= 0 {
		r.Time = b.now
	}
	entry.Cut(&r)
	b.size += recordBytes + int64(len(r.Body))
	for _, f := range r.Fields {
		b.size += fieldBytes + int64(len(f.Key)+len(f.Value))
	}
	if b.size > b.limit {
		return fmt.Errorf("%w: more than %d bytes when taken apart", errLarge, b.limit)
	}
	b.records = append(b.records, r)
	return nil
}

var (
	errFormat  = errors.New("the body is not what this door takes")
	errLarge   = errors.New("the request is too large")
	errUnknown = errors.New("the caller may not push lines")
	errBusy    = errors.New("too many pushes at once, come back later")
	errSlow    = errors.New("the body did not arrive in time, send it again")
	errStore   = errors.New("the lines could not be stored, send them again")
)

// wrong tells a sender what a library could not read, not how it is read here.
func wrong(err error) error {
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, errFormat), errors.Is(err, errLarge):
		return err
	case errors.As(err, &kind):
		return fmt.Errorf("%w: a JSON %s does not belong in %s", errFormat, kind.Value, cmp.Or(strings.Trim(kind.Field, "."), "its place"))
	}
	return fmt.Errorf("%w: %w", errFormat, err)
}

// errLimited says when the sender may come back.
type errLimited struct{ wait time.Duration }

func (e errLimited) Error() string {
	return fmt.Sprintf("this sender is over its limits of lines or bytes, come back in %s", e.wait.Round(time.Second/10))
}

// receive does what all doors have in common: it finds out who sends, waits for
// a place, reads the body, has it decoded, and stores what was in it. When it
// returns nil all of it is durable, now or from before.
func (p *Push) receive(door string, w http.ResponseWriter, r *http.Request, decode func(body []byte, b *batch) error) (*batch, error) {
	b, err := p.take(door, w, r, decode)
	p.m.requests.WithLabelValues(door, result(err)).Inc()
	if err == nil {
		p.m.lines.WithLabelValues(door).Add(float64(len(b.records)))
		p.m.bad.WithLabelValues(door).Add(float64(b.bad))
		p.m.fields.Add(float64(b.left))
	}
	return b, err
}

func result(err error) string {
	var limited errLimited
	switch {
	case err == nil:
		return resultStored
	case errors.As(err, &limited):
		return resultLimited
	case errors.Is(err, errLarge):
		return resultLarge
	case errors.Is(err, errUnknown):
		return resultUnknown
	case errors.Is(err, errBusy), errors.Is(err, errSlow):
		return resultBusy
	case errors.Is(err, errStore):
		return resultRefused
	}
	return resultFormat
}

// status is the HTTP status of an error; it sets Retry-After.
func status(w http.ResponseWriter, err error) int {
	var limited errLimited
	switch {
	case errors.As(err, &limited):
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(limited.wait.Seconds()))))
		return http.StatusTooManyRequests
	case errors.Is(err, errLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, errUnknown):
		return http.StatusForbidden
	case errors.Is(err, errBusy), errors.Is(err, errSlow), errors.Is(err, errStore):
		w.Header().Set("Retry-After", "1")
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest
}

func (p *Push) take(door string, w http.ResponseWriter, r *http.Request, decode func([]byte, *batch) error) (*batch, error) {
	who, err := p.parts.Identify(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnknown, err)
	}
	if wait := p.parts.Sources.Take(door, who.Name, time.Now(), 0, 0); wait > 0 {
		return nil, errLimited{wait}
	}
	patience := time.NewTimer(p.cfg.Patience)
	defer patience.Stop()
	select {
	case p.room <- struct{}{}:
	case <-patience.C:
		return nil, errBusy
	case <-r.Context().Done():
		return nil, errBusy
	}
	p.m.flight.Inc()
	defer func() { <-p.room; p.m.flight.Dec() }()
	body, sent, err := p.body(w, r)
	p.m.bytes.WithLabelValues(door).Add(float64(sent))
	if err != nil {
		p.parts.Sources.Take(door, who.Name, time.Now(), 0, sent)
		return nil, err
	}
	who.Stream.Output = record.Push
	if who.Stream.Kind == "" {
		who.Stream.Kind = record.KindLog
	}
	b := &batch{stream: &who.Stream, now: time.Now().UnixNano(), limit: 3 * p.cfg.MaxUnpacked, parts: weight(p.cfg.MaxUnpacked)}
	err = decode(body, b)
	p.parts.Sources.Take(door, who.Name, time.Now(), len(b.records), sent)
	if err != nil {
		return nil, err
	}
	if len(b.records) == 0 {
		return b, nil
	}
	if err := p.once(r, door, body, b); err != nil {
		if r.Context().Err() == nil {
			p.log.Warn("pushed lines were refused", "err", err)
		}
		return nil, fmt.Errorf("%w: %w", errStore, err)
	}
	return b, nil
}

// once stores what was not stored before. A push with a key, with ids of all lines
// or with fine times is known by that whenever it comes again. Others may rightly
// come again: they are known until their sender has its answer, and, if they have
// times, after a restart, when it cannot have got one.
func (p *Push) once(r *http.Request, door string, body []byte, b *batch) error {
	sum := sha256.Sum256(body)
	name := door + r.URL.Path + string(sum[:])
	key := r.Header.Get("Idempotency-Key")
	if key != "" {
		name = "key " + key
	}
	if key != "" || b.named || b.fine {
		return p.parts.Seen.Store(r.Context(), b.stream, name, func(mark []record.Position) error { return p.keep(r.Context(), b.records, mark) })
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr // no address of a network
	}
	told, err := p.parts.Seen.Unsure(r.Context(), b.stream, host+" "+name, func(mark []record.Position) error {
		if !b.timed {
			mark = nil
		}
		return p.keep(r.Context(), b.records, mark)
	})
	if a, ok := r.Context().Value(answerKey{}).(*answer); ok && err == nil {
		a.told = told
	} else if err == nil {
		told(true)
	}
	return err
}

// keep tries for a while until the sink takes the records: some senders do not
// try again themselves.
func (p *Push) keep(ctx context.Context, records []record.Record, mark []record.Position) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Patience)
	defer cancel()
	for wait := 50 * time.Millisecond; ; wait = min(wait*2, 2*time.Second) {
		err := p.parts.Sink(ctx, records, mark)
		if err == nil {
			return nil
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return err
		case <-t.C:
		}
	}
}

// body reads and unpacks the request's body. sent is how many bytes came.
func (p *Push) body(w http.ResponseWriter, r *http.Request) (body []byte, sent int, err error) {
	var buf bytes.Buffer
	if n := r.ContentLength; n > 0 {
		buf.Grow(int(min(n, p.cfg.MaxBody)) + bytes.MinRead)
	}
	until := http.NewResponseController(w)
	_ = until.SetReadDeadline(time.Now().Add(p.cfg.Arrival)) // a recorder of tests has none
	n, err := buf.ReadFrom(http.MaxBytesReader(w, r.Body, p.cfg.MaxBody))
	sent = int(n)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, sent, errSlow // nobody waits for the rest of it either
	}
	_ = until.SetReadDeadline(time.Time{}) // as above
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return nil, sent, fmt.Errorf("%w: more than %d bytes", errLarge, large.Limit)
	}
	if err != nil {
		return nil, sent, fmt.Errorf("%w: %w", errFormat, err)
	}
	body, err = p.unpack(buf.Bytes(), r.Header.Get("Content-Encoding"))
	return body, sent, err
}

// unpack undoes a content encoding, up to MaxUnpacked bytes.
func (p *Push) unpack(b []byte, encoding string) ([]byte, error) {
	limit := p.cfg.MaxUnpacked
	var err error
	switch encoding {
	case "", "identity":
	case "gzip":
		var z *gzip.Reader
		if z, err = gzip.NewReader(bytes.NewReader(b)); err == nil {
			b, err = io.ReadAll(io.LimitReader(z, limit+1))
		}
	case "snappy":
		var n int
		if n, err = s2.DecodedLen(b); err == nil && int64(n) > limit {
			err = errLarge
		} else if err == nil {
			b, err = s2.Decode(nil, b)
		}
	case "zstd":
		if b, err = p.zstd.DecodeAll(b, nil); errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) {
			err = errLarge
		}
	default:
		return nil, fmt.Errorf("%w: content encoding %q is not known", errFormat, encoding)
	}
	if err != nil && !errors.Is(err, errLarge) {
		return nil, fmt.Errorf("%w: %w", errFormat, err)
	}
	if err != nil || int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: more than %d bytes when unpacked", errLarge, limit)
	}
	return b, nil
}

package onward

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/block"
	"perch/logs/index"
	"perch/logs/record"
	"perch/logs/store"
)

// Config says where lines go.
type Config struct {
	Address string      // host:port of the receiver
	TLS     *tls.Config // nil: in the clear
	Key     string      // shared key, empty: no handshake
	FromNow bool        // a receiver that is new gets only what comes from now on, else all that is stored
	OwnPort int         // this node's own Forward port, where lines must not go; 0: none
	Host    string      // told in the handshake
	Mark    string      // names this cluster in each line, so that it knows its own again; empty: none
	Tag     string      // of all lines: <Tag>.<namespace>.<pod>.<container>
	Lines   int         // of one chunk at most
	Bytes   int         // of one chunk's lines, about
	Timeout time.Duration
	Poll    time.Duration // how often the store is looked at
}

// Default returns the configuration for a receiver.
func Default(address, host string) Config {
	return Config{Address: address, Host: host, Tag: "perch", Lines: 1000, Bytes: 1 << 20, Timeout: 30 * time.Second, Poll: time.Second}
}

// Validate names all problems at once.
func (c Config) Validate() error {
	var errs []error
	if c.Address == "" || c.Tag == "" {
		errs = append(errs, errors.New("address and tag of the receiver of lines must be given"))
	}
	if c.Lines <= 0 || c.Bytes <= 0 || c.Timeout <= 0 || c.Poll <= 0 {
		errs = append(errs, errors.New("limits of sending lines on must be more than 0"))
	}
	return errors.Join(errs...)
}

// Onward sends lines on. Make it with New.
type Onward struct {
	cfg   Config
	store *store.Store
	log   *slog.Logger
	m     *metrics

	// What follows belongs to Run.
	c     *conn
	begun bool              // where to begin is settled
	sent  map[uint64]uint64 // by stream: the number of the next line
	tried map[uint64]int    // by stream: how many lines the chunk has from there that was sent without an answer
	turn  time.Duration     // a pass ends at the first chunk after so long
	first uint64            // the stream the next pass begins with, or the one after it
}

// passTurn bounds how long a view is held, with what retention removed meanwhile, and
// how long the streams that come after one with much to send wait for their turn.
const passTurn = 10 * time.Second

type metrics struct {
	lines, chunks, lost prometheus.Counter
	failed              prometheus.Counter
	behind              prometheus.Gauge
}

// New opens nothing.
func New(cfg Config, s *store.Store, log *slog.Logger, reg prometheus.Registerer) (*Onward, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_onward_" + name, Help: help})
	}
	m := &metrics{
		lines:  counter("lines_total", "Lines the receiver has acknowledged."),
		chunks: counter("chunks_total", "Chunks the receiver has acknowledged."),
		lost:   counter("lost_lines_total", "Lines that retention removed before they were sent, or that damage of the disk made unreadable."),
		failed: counter("failures_total", "Chunks that were not acknowledged; they are sent again."),
		behind: prometheus.NewGauge(prometheus.GaugeOpts{Name: "perch_onward_unsent_lines", Help: "Lines that are not sent yet, at the last look."}),
	}
	reg.MustRegister(m.lines, m.chunks, m.lost, m.failed, m.behind)
	return &Onward{cfg: cfg, store: s, log: log, m: m, begun: !cfg.FromNow, sent: map[uint64]uint64{}, tried: map[uint64]int{}, turn: passTurn}, nil
}

// file is the source under which positions are kept: by receiver.
func (o *Onward) file() string { return File + o.cfg.Address }

// File begins the names of all sources of this package.
const File = "onward/"

// began is the position that is no stream's: the beginning of this receiver is
// settled.
const began = 0

// Run sends until ctx ends.
func (o *Onward) Run(ctx context.Context) error {
	for _, p := range o.store.Positions() {
		if strings.HasPrefix(p.File, File) && p.File != o.file() { // a former receiver's: if it comes back it is a new one
			o.store.Forget(p.File, p.Inode)
		}
		if p.File == o.file() {
			o.begun = true
			if p.Inode != began {
				o.sent[p.Inode] = uint64(p.Stdout)
			}
			if p.Stderr > 0 {
				o.tried[p.Inode] = int(p.Stderr)
			}
		}
	}
	defer o.hangUp()
	wait := o.cfg.Poll
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		more, err := o.pass(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			o.m.failed.Inc()
			o.hangUp()
			wait = min(2*max(wait, o.cfg.Poll), 30*time.Second)
			o.log.Warn("lines were not sent on, trying again", "err", err)
		case more:
			wait = 0
		default:
			wait = o.cfg.Poll
		}
		timer.Reset(wait)
	}
}

func (o *Onward) hangUp() {
	if o.c != nil {
		_ = o.c.Close() // nothing is buffered
		o.c = nil
	}
}

// pass sends what the store holds and was not sent, each stream in its order. When its
// turn ends before that there may be more; the next pass begins with another stream,
// as it does after a failure.
func (o *Onward) pass(ctx context.Context) (more bool, err error) {
	end := time.Now().Add(o.turn)
	v, err := o.store.View()
	if err != nil {
		return false, fmt.Errorf("send lines on: %w", err)
	}
	defer func() { err = errors.Join(err, v.Release()) }()
	pieces := v.Select(ctx, math.MinInt64, math.MaxInt64, func(*record.Stream) bool { return true }, index.Need{Op: index.Any})
	slices.SortFunc(pieces, func(a, b store.Piece) int { return cmp.Or(cmp.Compare(a.Hash, b.Hash), cmp.Compare(a.First, b.First)) })
	if !o.begun {
		if err := o.skip(ctx, pieces); err != nil {
			return false, fmt.Errorf("begin to send lines on: %w", err)
		}
	}
	if v.Lost() == nil { // else streams may have lines that it does not tell of now
		o.forget(pieces)
	}
	behind := uint64(0)
	for i := range pieces {
		p := &pieces[i]
		behind += p.First + uint64(p.Lines) - min(max(o.sent[p.Hash], p.First), p.First+uint64(p.Lines))
	}
	o.m.behind.Set(float64(behind))
	at, _ := slices.BinarySearchFunc(pieces, o.first, func(p store.Piece, hash uint64) int { return cmp.Compare(p.Hash, hash) })
	for i := range pieces {
		p := &pieces[(at+i)%len(pieces)]
		if more, err := o.piece(ctx, p, end); more || err != nil {
			o.first = p.Hash + 1
			return more, err
		}
	}
	o.m.behind.Set(0)
	return false, nil
}

// skip settles that nothing of what is stored now is sent.
func (o *Onward) skip(ctx context.Context, pieces []store.Piece) error {
	at := []record.Position{{File: o.file(), Inode: began}}
	for i := range pieces {
		p := &pieces[i]
		next := p.First + uint64(p.Lines)
		o.sent[p.Hash] = max(o.sent[p.Hash], next)
		at = append(at, record.Position{File: o.file(), Inode: p.Hash, Stdout: int64(o.sent[p.Hash])})
	}
	if err := o.store.Append(ctx, nil, at); err != nil {
		return err
	}
	o.begun = true
	return nil
}

// forget drops positions of streams the store no longer has lines of, and of
// those whose numbers began anew because it had none for a while.
func (o *Onward) forget(pieces []store.Piece) {
	ends := map[uint64]uint64{}
	for i := range pieces {
		p := &pieces[i]
		ends[p.Hash] = max(ends[p.Hash], p.First+uint64(p.Lines))
	}
	for hash, sent := range o.sent {
		if sent > ends[hash] {
			delete(o.sent, hash)
			delete(o.tried, hash)
			o.store.Forget(o.file(), hash)
		}
	}
}

// piece sends what was not sent of a piece. It stops after a chunk at which the turn
// has ended; there may be more then.
func (o *Onward) piece(ctx context.Context, p *store.Piece, turn time.Time) (more bool, err error) {
	next, known := o.sent[p.Hash]
	end := p.First + uint64(p.Lines)
	if next >= end {
		return false, nil
	}
	if next < p.First {
		if known {
			o.m.lost.Add(float64(p.First - next))
		}
		next = p.First
		delete(o.tried, p.Hash)
	}
	lines, err := p.Read(&block.Lines{})
	if errors.Is(err, block.ErrDamaged) { // it stays so; the lines after it must not wait for it
		o.m.lost.Add(float64(end - next))
		o.log.Error("lines of a damaged block were not sent on", "count", end-next, "err", err)
		return false, o.remember(ctx, p.Hash, end, 0)
	}
	if err != nil {
		return false, fmt.Errorf("send lines on: %w", err)
	}
	for next < end {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		most := int(end - next)
		if n, again := o.tried[p.Hash]; again { // the receiver may have it: the same lines under the same name
			most = min(most, n)
		}
		body, n := o.pack(p.Stream, lines, int(next-p.First), most)
		if err := o.send(ctx, p.Stream, chunkID(p.Hash, next, n, lines.Times[next-p.First]), n, body); err != nil {
			err = fmt.Errorf("send %d lines on to %s: %w", n, o.cfg.Address, err)
			if o.tried[p.Hash] != n {
				err = errors.Join(err, o.remember(context.WithoutCancel(ctx), p.Hash, next, n))
			}
			return false, err
		}
		next += uint64(n)
		o.m.lines.Add(float64(n))
		o.m.chunks.Inc()
		if err := o.remember(ctx, p.Hash, next, 0); err != nil { // sent again after a restart
			return false, err
		}
		if !time.Now().Before(turn) {
			return true, nil
		}
	}
	return false, nil
}

// remember notes that the lines of a stream before number next are dealt with, and
// how many after them were sent without an answer.
func (o *Onward) remember(ctx context.Context, hash, next uint64, tried int) error {
	o.sent[hash] = next
	if delete(o.tried, hash); tried > 0 {
		o.tried[hash] = tried
	}
	at := record.Position{File: o.file(), Inode: hash, Stdout: int64(next), Stderr: int64(tried)}
	if err := o.store.Append(ctx, nil, []record.Position{at}); err != nil {
		return fmt.Errorf("remember what was sent on: %w", err)
	}
	return nil
}

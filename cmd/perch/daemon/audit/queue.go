package audit

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/apis/audit"

	"perch/logs/record"
)

// Config of the queue.
type Config struct {
	Node  string
	Queue int           // lines that may wait
	Batch int           // lines sent at once
	Wait  time.Duration // how long the first line of a batch waits for others
	Last  time.Duration // how long the end waits for what is in the queue
}

// Default returns the configuration for a server.
func Default(node string) Config {
	return Config{Node: node, Queue: 10_000, Batch: 500, Wait: 100 * time.Millisecond, Last: 2 * time.Second}
}

// Validate names all problems at once.
func (c Config) Validate() error {
	if c.Queue <= 0 || c.Batch <= 0 || c.Wait <= 0 || c.Last <= 0 {
		return errors.New("limits of audit must be more than 0")
	}
	return nil
}

// Send brings a batch to the log store. It returns nil when all of it is durable,
// now or since the same number of the same boot came before.
type Send func(ctx context.Context, boot string, number int64, batch []byte) error

// Queue takes requests and sends them as lines. Make it with New.
type Queue struct {
	cfg   Config
	send  Send
	namer *namer
	log   *slog.Logger
	lines chan record.Record
	boot  string // tells the batches of this process from those before
	m     metrics

	left atomic.Int64 // lines left out since the last that was told
}

type metrics struct{ stored, left, failed prometheus.Counter }

// New returns a queue that Run empties.
func New(cfg Config, send Send, log *slog.Logger, reg prometheus.Registerer) (*Queue, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "perch_audit_" + name, Help: help})
	}
	q := &Queue{cfg: cfg, send: send, namer: newNamer(cfg.Node), log: log, lines: make(chan record.Record, cfg.Queue), boot: rand.Text(),
		m: metrics{
			stored: counter("lines_total", "Requests to the API that are stored as lines of kind:audit."),
			left:   counter("left_out_total", "Requests to the API that were to become lines and did not, because the queue was full."),
			failed: counter("failures_total", "Batches that the log store did not take; they are sent again."),
		}}
	waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "perch_audit_waiting_lines", Help: "Lines that wait for the log store."}, func() float64 { return float64(len(q.lines)) })
	reg.MustRegister(q.m.stored, q.m.left, q.m.failed, waiting)
	return q, nil
}

// ProcessEvents takes events of the library. It never waits.
func (q *Queue) ProcessEvents(events ...*audit.Event) bool {
	for _, e := range events {
		r, ok := q.namer.line(e)
		if !ok {
			continue
		}
		select {
		case q.lines <- r:
		default:
			q.m.left.Inc()
			q.left.Add(1)
		}
	}
	return true // what was left out is counted here
}

// Run sends until ctx ends, then once what is left.
func (q *Queue) Run(ctx context.Context) error {
	for n := int64(1); ; n++ {
		batch, more := q.collect(ctx)
		if len(batch) > 0 && !q.keep(ctx, n, batch) {
			q.m.left.Add(float64(len(batch) + len(q.lines)))
			q.log.Warn("requests to the API were not written down", "lines", len(batch)+len(q.lines))
			return nil
		}
		if !more {
			return nil
		}
	}
}

// collect waits for a line and a moment for others. more is false when ctx has
// ended and nothing waits.
func (q *Queue) collect(ctx context.Context) (batch []record.Record, more bool) {
	select {
	case r := <-q.lines:
		batch = append(batch, r)
	case <-ctx.Done():
	}
	enough := time.NewTimer(q.cfg.Wait)
	defer enough.Stop()
	for len(batch) < q.cfg.Batch {
		if ctx.Err() != nil { // no more than is there
			select {
			case r := <-q.lines:
				batch = append(batch, r)
				continue
			default:
				return q.tellLeft(batch), false
			}
		}
		select {
		case r := <-q.lines:
			batch = append(batch, r)
		case <-enough.C:
			return q.tellLeft(batch), true
		case <-ctx.Done():
		}
	}
	return q.tellLeft(batch), true
}

// tellLeft adds a line that says how many were left out.
func (q *Queue) tellLeft(batch []record.Record) []record.Record {
	n := q.left.Swap(0)
	if n == 0 {
		return batch
	}
	return append(batch, record.Record{Time: time.Now().UnixNano(), Level: record.Error, Stream: &record.Stream{Node: q.cfg.Node, Output: record.Event, Kind: Kind},
		Body: fmt.Appendf(nil, "%d requests are not written down: the log store was away and the queue full", n)})
}

// keep tries until the store takes the batch; once ctx has ended for a moment
// only.
func (q *Queue) keep(ctx context.Context, number int64, batch []record.Record) bool {
	text := record.AppendBatch(nil, batch, nil)
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := q.try(ctx, number, text)
		if err == nil {
			q.m.stored.Add(float64(len(batch)))
			return true
		}
		q.m.failed.Inc()
		if ctx.Err() != nil {
			return false
		}
		q.log.Debug("audit lines were not stored, trying again", "lines", len(batch), "err", err)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// try outlives ctx by Config.Last.
func (q *Queue) try(ctx context.Context, number int64, text []byte) error {
	limited, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(q.cfg.Last, cancel) })
	defer stop()
	return q.send(limited, q.boot, number, text)
}

// Over sends over HTTP to the receiver at a URL.
func Over(client *http.Client, url string) Send {
	return func(ctx context.Context, boot string, number int64, batch []byte) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(batch))
		if err != nil {
			return fmt.Errorf("send audit lines: %w", err)
		}
		req.Header.Set(bootHeader, boot)
		req.Header.Set(numberHeader, strconv.FormatInt(number, 10))
		resp, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("send audit lines: %w", err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusNoContent {
			said, _ := io.ReadAll(io.LimitReader(resp.Body, 300)) // for the message only
			return fmt.Errorf("send audit lines: %s: %s", resp.Status, said)
		}
		return nil
	}
}

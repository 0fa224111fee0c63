package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
)

// ForwardConfig says how a worker's samples travel.
type ForwardConfig struct {
	Name      string        // of the receiver, in metrics and log
	StateFile string        // remembers what was acknowledged
	Interval  time.Duration // between looks into the WAL
	Batch     int           // samples in one batch
	Retry     time.Duration // after a failure, doubling up to RetryMax
	RetryMax  time.Duration

	// Hold is told when samples begin to wait, and when none do any more: as long
	// as it holds, the WAL must not be deleted. It holds HoldMax at most; nil: the
	// WAL stays without.
	Hold    func(bool)
	HoldMax time.Duration

	Begin Position // without a state file; zero: the oldest sample there is
	Pick  Pick     // nil: all

}

// DefaultForward sends every second.
func DefaultForward(stateFile string) ForwardConfig {
	return ForwardConfig{Name: "server", StateFile: stateFile, Interval: time.Second, Batch: 20_000, Retry: 500 * time.Millisecond, RetryMax: 5 * time.Second, HoldMax: 3 * time.Hour}
}

// Forwarder sends what is committed to a store on to a server, in order and
// from where it left off.
type Forwarder struct {
	cfg     ForwardConfig
	dir     string
	client  *Client
	log     *slog.Logger
	metrics *forwardMetrics
	from    Position
	held    time.Time // since when samples wait; zero: they do not
	gaveUp  bool      // of holding, until samples wait no more
	unkept  bool      // the last position is not on disk
	old     bool      // it was told that the receiver is of an older version
}

// NewForwarder reads the state file. Without one it begins at Begin. The client
// belongs to the forwarder from now on.
func NewForwarder(cfg ForwardConfig, storeDir string, client *Client, log *slog.Logger, reg prometheus.Registerer) (*Forwarder, error) {
	f := &Forwarder{cfg: cfg, dir: storeDir, client: client, log: log, metrics: newForwardMetrics(cfg.Name, reg), from: cfg.Begin}
	text, err := os.ReadFile(cfg.StateFile)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return f, nil
	case err != nil:
		return nil, fmt.Errorf("read stream position: %w", err)
	}
	if err := json.Unmarshal(text, &f.from); err != nil {
		// Sending some samples twice is better than not starting.
		log.Warn("stream position was not readable, begins at the oldest sample", "err", err)
		f.from = Position{}
	}
	return f, nil
}

// Behind is how old the newest sample was that the receiver had, when something was
// sent last.
func (f *Forwarder) Behind() time.Duration { return time.Duration(f.metrics.behind.Load()) }

// Run sends until ctx ends.
func (f *Forwarder) Run(ctx context.Context) error {
	defer f.release()
	t := openTail(f.dir, f.from, f.cfg.Pick, f.log)
	defer t.close()
	if err := t.start(); err != nil {
		return err
	}
	var batch Batch
	for {
		f.metrics.lost.Add(float64(t.lost))
		t.lost = 0
		var err error
		batch, err = t.next(Batch{Samples: batch.Samples[:0], Histograms: batch.Histograms[:0], Exemplars: batch.Exemplars[:0]}, f.cfg.Batch)
		if err != nil {
			return err
		}
		for part := range parts(batch) {
			if !f.deliver(ctx, part) {
				return nil
			}
			_, newest := times(part)
			f.metrics.behind.Store(int64(time.Since(time.UnixMilli(newest))))
		}
		if t.at != f.from {
			f.keep(t.at)
		}
		if sizeOf(batch) >= f.cfg.Batch { // more waits
			if !f.held.IsZero() {
				f.hold() // a receiver that is only slow does not hold the WAL for ever
			}
			continue
		}
		f.release()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(f.cfg.Interval):
		}
	}
}

// times are the oldest and the newest of a batch that is not empty.
func times(b Batch) (oldest, newest int64) {
	oldest, newest = math.MaxInt64, math.MinInt64
	at := func(t int64) { oldest, newest = min(oldest, t), max(newest, t) }
	for i := range b.Samples {
		at(b.Samples[i].T)
	}
	for i := range b.Histograms {
		at(b.Histograms[i].T)
	}
	for i := range b.Exemplars {
		at(b.Exemplars[i].T)
	}
	return oldest, newest
}

// wordy is how many bytes the labels of what is sent at once have: all of them may be
// new to the receiver, which takes 16 MiB.
const wordy = 8 << 20

// heavy is how many spans, buckets and values the histograms of what is sent at
// once have, about: 4 MiB of fractions.
const heavy = 1 << 19

// parts cuts a batch so that a receiver takes it: one commit of a store may have
// many large histograms, or series with long labels.
func parts(b Batch) func(func(Batch) bool) {
	return func(yield func(Batch) bool) {
		var part Batch // what was looked at and not yielded: the beginnings of b's lists
		weight, text := 0, uint64(0)
		full := func(more int, l ...labels.Labels) bool {
			weight += more
			for _, x := range l {
				text += x.ByteSize()
			}
			return weight >= heavy || text >= wordy
		}
		cut := func() bool {
			b.Samples, b.Histograms, b.Exemplars = b.Samples[len(part.Samples):], b.Histograms[len(part.Histograms):], b.Exemplars[len(part.Exemplars):]
			out := part
			part, weight, text = Batch{}, 0, 0
			return out.Len() == 0 || yield(out)
		}
		for range b.Samples {
			n := len(part.Samples) + 1
			if part.Samples = b.Samples[:n]; full(0, part.Samples[n-1].Labels) && !cut() {
				return
			}
		}
		for range b.Histograms {
			n := len(part.Histograms) + 1
			if part.Histograms = b.Histograms[:n]; full(weightOf(&part.Histograms[n-1]), part.Histograms[n-1].Labels) && !cut() {
				return
			}
		}
		for range b.Exemplars {
			n := len(part.Exemplars) + 1
			if part.Exemplars = b.Exemplars[:n]; full(0, part.Exemplars[n-1].Labels, part.Exemplars[n-1].With) && !cut() {
				return
			}
		}
		cut()
	}
}

func weightOf(h *Histogram) int {
	if h.H != nil {
		return len(h.H.PositiveSpans) + len(h.H.NegativeSpans) + len(h.H.PositiveBuckets) + len(h.H.NegativeBuckets) + len(h.H.CustomValues)
	}
	return len(h.FH.PositiveSpans) + len(h.FH.NegativeSpans) + len(h.FH.PositiveBuckets) + len(h.FH.NegativeBuckets) + len(h.FH.CustomValues)
}

// deliver sends one batch until it is acknowledged; false when ctx ended.
func (f *Forwarder) deliver(ctx context.Context, batch Batch) bool {
	wait := f.cfg.Retry
	for told := false; ; {
		err := f.client.SendAll(ctx, batch)
		if err == nil {
			if old := f.client.Old(); old != f.old {
				f.old = old
				if old {
					f.log.Warn("histograms and exemplars are not sent, the receiver is of an older version", "store", f.cfg.Name)
				}
			}
			if told {
				f.log.Info("samples are taken again", "store", f.cfg.Name)
			}
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if !told {
			f.log.Warn("samples were not taken, they wait on disk", "store", f.cfg.Name, "err", err)
			told = true
		}
		oldest, _ := times(batch)
		f.metrics.behind.Store(int64(time.Since(time.UnixMilli(oldest))))
		f.hold()
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
		wait = min(2*wait, f.cfg.RetryMax)
	}
}

// hold has the WAL kept while samples wait, for a while.
func (f *Forwarder) hold() {
	switch {
	case f.cfg.Hold == nil || f.gaveUp:
	case f.held.IsZero():
		f.held = time.Now()
		f.cfg.Hold(true)
	case time.Since(f.held) > f.cfg.HoldMax:
		f.gaveUp = true
		f.log.Warn("the oldest samples wait no longer, they are lost to the receiver", "store", f.cfg.Name, "waited", f.cfg.HoldMax)
		f.cfg.Hold(false)
	}
}

// release ends hold: no samples wait.
func (f *Forwarder) release() {
	if !f.held.IsZero() && !f.gaveUp {
		f.cfg.Hold(false)
	}
	f.held, f.gaveUp = time.Time{}, false
}

// keep remembers a position; after a start behind it samples are sent twice. A
// full disk is no reason to stop sending.
func (f *Forwarder) keep(p Position) {
	err := f.remember(p)
	if err != nil && !f.unkept {
		f.log.Warn("position of what was sent is not kept", "store", f.cfg.Name, "err", err)
	}
	f.unkept, f.from = err != nil, p
}

// remember replaces the state file at once or not at all.
func (f *Forwarder) remember(p Position) error {
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode stream position: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(f.cfg.StateFile), 0o700); err != nil {
		return fmt.Errorf("write stream position: %w", err)
	}
	next := f.cfg.StateFile + ".next"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return fmt.Errorf("write stream position: %w", err)
	}
	if err := os.Rename(next, f.cfg.StateFile); err != nil {
		return fmt.Errorf("write stream position: %w", err)
	}
	return nil
}

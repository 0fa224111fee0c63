package stream

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

// ClientConfig says where to send.
type ClientConfig struct {
	URL     string        // of the receiver
	Timeout time.Duration // of one batch
}

// maxNumbers bounds the series of one session; past it a new session begins,
// which forgets series that ended.
const maxNumbers = maxSeries / 2

// ended is how many series of a session may have ended, besides as many as go on:
// both sides remember them until a new session begins.
const ended = 50_000

// Client sends batches to one receiver. Not for concurrent use.
type Client struct {
	cfg     ClientConfig
	http    *http.Client
	metrics *clientMetrics

	session *session
	numbers map[uint64]uint64 // Sample.ID → number in the session
	next    uint64
	raw     []byte
	old     bool // the receiver of this session reads samples only
}

// NewClient makes a client; the first Send opens the session. The name labels
// its metrics: local or server.
func NewClient(name string, cfg ClientConfig, client *http.Client, reg prometheus.Registerer) *Client {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	c := &Client{cfg: cfg, http: client, metrics: newClientMetrics(name, reg)}
	c.begin()
	return c
}

// begin starts a new session, which knows no series.
func (c *Client) begin() {
	c.session = &session{}
	_, _ = rand.Read(c.session.id[:]) // never fails
	c.numbers = map[uint64]uint64{}
	c.next, c.old = 0, false
}

var (
	// errSession means that the receiver does not know our session.
	errSession = errors.New("session is not known")

	// errOld means that the receiver is of a version that reads samples only.
	errOld = errors.New("receiver takes samples only, no histograms and exemplars: update it")
)

// Send delivers samples; see SendAll.
func (c *Client) Send(ctx context.Context, batch []Sample) error {
	return c.SendAll(ctx, Batch{Samples: batch})
}

// SendAll delivers a batch and returns when the receiver has committed it. After
// an error call it again with the same batch. Every ID must be set and mean one
// series for the life of the process. Series with labels that no receiver takes (more
// than 128, or longer than 16 KiB) are left out and counted. A receiver of an older
// version gets the samples; what it does not read is counted, see Old.
func (c *Client) SendAll(ctx context.Context, batch Batch) error {
	if batch.Len() == 0 {
		return nil
	}
	if goOn := uint64(len(c.numbers)); c.next > min(maxNumbers, ended+2*goOn) {
		c.begin()
	}
	all := batch.Len()
	if !c.legible(batch) {
		batch = legibleOf(batch)
	}
	err := c.try(ctx, batch)
	if errors.Is(err, errSession) {
		c.metrics.sessions.Inc()
		c.begin()
		err = c.try(ctx, batch)
	}
	if errors.Is(err, errOld) {
		c.old = true // until it knows the session no more: it is updated with a restart
		err = c.try(ctx, batch)
	}
	if err != nil {
		c.metrics.failures.Inc()
		return fmt.Errorf("send %d samples to %s: %w", batch.Len(), c.cfg.URL, err)
	}
	c.metrics.illegible.Add(float64(all - batch.Len()))
	c.metrics.samples.Add(float64(len(batch.Samples)))
	if c.old {
		c.metrics.unread.Add(float64(batch.Len() - len(batch.Samples)))
		return nil
	}
	c.metrics.histograms.Add(float64(len(batch.Histograms)))
	c.metrics.exemplars.Add(float64(len(batch.Exemplars)))
	return nil
}

// legible answers whether the receiver takes all series of a batch that are new to it.
func (c *Client) legible(b Batch) bool {
	takes := func(id uint64, l labels.Labels) bool { return c.numbers[id] != 0 || legible(l) }
	for i := range b.Samples {
		if !takes(b.Samples[i].ID, b.Samples[i].Labels) {
			return false
		}
	}
	for i := range b.Histograms {
		if !takes(b.Histograms[i].ID, b.Histograms[i].Labels) {
			return false
		}
	}
	for i := range b.Exemplars {
		if !takes(b.Exemplars[i].ID, b.Exemplars[i].Labels) || !legible(b.Exemplars[i].With) {
			return false
		}
	}
	return true
}

// legibleOf is a batch without what no receiver takes.
func legibleOf(b Batch) (out Batch) {
	for _, x := range b.Samples {
		if legible(x.Labels) {
			out.Samples = append(out.Samples, x)
		}
	}
	for _, x := range b.Histograms {
		if legible(x.Labels) {
			out.Histograms = append(out.Histograms, x)
		}
	}
	for _, x := range b.Exemplars {
		if legible(x.Labels) && legible(x.With) {
			out.Exemplars = append(out.Exemplars, x)
		}
	}
	return out
}

// Old answers whether the receiver is of a version that reads samples only.
func (c *Client) Old() bool { return c.old }

func (c *Client) try(ctx context.Context, batch Batch) error {
	if c.old {
		if batch = (Batch{Samples: batch.Samples}); batch.Len() == 0 {
			return nil
		}
	}
	if batch.Len() == 0 {
		return nil
	}
	var fresh []labels.Labels
	var named []uint64 // IDs that got a number for this batch
	numbers := make([]uint64, 0, batch.Len())
	next := c.next
	number := func(id uint64, l labels.Labels) {
		n := c.numbers[id]
		if n == 0 {
			next++
			n = next
			c.numbers[id] = n
			named = append(named, id)
			fresh = append(fresh, l)
		}
		numbers = append(numbers, n)
	}
	for i := range batch.Samples {
		number(batch.Samples[i].ID, batch.Samples[i].Labels)
	}
	for i := range batch.Histograms {
		number(batch.Histograms[i].ID, batch.Histograms[i].Labels)
	}
	for i := range batch.Exemplars {
		number(batch.Exemplars[i].ID, batch.Exemplars[i].Labels)
	}
	var st staged
	c.raw = encode(c.raw[:0], c.session, c.session.seq+1, fresh, batch, numbers, &st)
	err := c.post(ctx, s2.Encode(nil, c.raw), formOf(batch))
	if err != nil {
		// The receiver may or may not have it. Encoded again from the same
		// state the batch is the same, and its sequence tells.
		for _, id := range named {
			delete(c.numbers, id)
		}
		return err
	}
	c.next = next
	c.session.commit(&st)
	for i := range batch.Samples {
		if value.IsStaleNaN(batch.Samples[i].V) {
			delete(c.numbers, batch.Samples[i].ID)
		}
	}
	for i := range batch.Histograms {
		if batch.Histograms[i].Stale() {
			delete(c.numbers, batch.Histograms[i].ID)
		}
	}
	return nil
}

func (c *Client) post(ctx context.Context, body []byte, form string) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-perch-samples")
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 1024)) // only to tell why
	c.metrics.bytes.Add(float64(len(body)))
	switch res.StatusCode {
	case http.StatusNoContent:
		return nil
	case http.StatusConflict:
		return errSession
	case http.StatusBadRequest:
		if form == magic2 && res.Header.Get(formHeader) == "" {
			return errOld
		}
	}
	return fmt.Errorf("receiver answers %s: %s", res.Status, strings.TrimSpace(string(text)))
}

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
	c.next = 0
}

// errSession means that the receiver does not know our session.
var errSession = errors.New("session is not known")

// Send delivers a batch and returns when the receiver has committed it. After
// an error call it again with the same batch. Every Sample.ID must be set and
// mean one series for the life of the process.
func (c *Client) Send(ctx context.Context, batch []Sample) error {
	if len(batch) == 0 {
		return nil
	}
	if goOn := uint64(len(c.numbers)); c.next > min(maxNumbers, ended+2*goOn) {
		c.begin()
	}
	err := c.try(ctx, batch)
	if errors.Is(err, errSession) {
		c.metrics.sessions.Inc()
		c.begin()
		err = c.try(ctx, batch)
	}
	if err != nil {
		c.metrics.failures.Inc()
		return fmt.Errorf("send %d samples to %s: %w", len(batch), c.cfg.URL, err)
	}
	c.metrics.samples.Add(float64(len(batch)))
	return nil
}

func (c *Client) try(ctx context.Context, batch []Sample) error {
	var fresh []labels.Labels
	var named []uint64 // IDs that got a number for this batch
	numbers := make([]uint64, len(batch))
	next := c.next
	for i := range batch {
		n := c.numbers[batch[i].ID]
		if n == 0 {
			next++
			n = next
			c.numbers[batch[i].ID] = n
			named = append(named, batch[i].ID)
			fresh = append(fresh, batch[i].Labels)
		}
		numbers[i] = n
	}
	var st staged
	c.raw = encode(c.raw[:0], c.session, c.session.seq+1, fresh, batch, numbers, &st)
	err := c.post(ctx, s2.Encode(nil, c.raw))
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
	for i := range batch {
		if value.IsStaleNaN(batch[i].V) {
			delete(c.numbers, batch[i].ID)
		}
	}
	return nil
}

func (c *Client) post(ctx context.Context, body []byte) error {
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
	}
	return fmt.Errorf("receiver answers %s: %s", res.Status, strings.TrimSpace(string(text)))
}

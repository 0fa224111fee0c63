package assign

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/metrics/scrape"
	"perch/metrics/target"
)

// answerLimit bounds an answer of the desk.
const answerLimit = 64 << 20

// A request tells rows of at most so many bytes: the desk takes 8 MiB. What is over is
// counted and not told; without that the node would ask for ever and get no targets.
const (
	rowBytes = 6 << 20
	maxRows  = 2000
)

// told is a request as it is written.
type told struct {
	Mark   string            `json:"mark"`
	Here   []json.RawMessage `json:"here"`
	Left   []json.RawMessage `json:"left"`
	Untold int               `json:"untold,omitempty"`
}

// rowsOf writes rows as far as they fit, and takes what they need from room.
func rowsOf[T any](all []T, room *int) (out []json.RawMessage, untold int, _ error) {
	out = []json.RawMessage{}
	for i, row := range all {
		text, err := json.Marshal(row)
		if err != nil {
			return nil, 0, err
		}
		if *room -= len(text) + 1; *room < 0 || len(out) == maxRows {
			return out, len(all) - i, nil
		}
		out = append(out, text)
	}
	return out, 0, nil
}

// ClientConfig says where the desk is.
type ClientConfig struct {
	URL     string
	Timeout time.Duration // of one request; longer than the desk holds it
	Retry   time.Duration // after a failure, doubled up to ten times
}

// Client keeps the part of one node.
type Client struct {
	cfg    ClientConfig
	http   *http.Client
	log    *slog.Logger
	failed prometheus.Counter

	mu   sync.Mutex
	mark string
	jobs []target.Job
}

// NewClient asks nothing yet. The HTTP client proves which node this is.
func NewClient(cfg ClientConfig, client *http.Client, log *slog.Logger, reg prometheus.Registerer) *Client {
	c := &Client{cfg: cfg, http: client, log: log, failed: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "perch_assign_requests_failed_total", Help: "Requests for this node's targets that failed and are tried again."})}
	reg.MustRegister(c.failed)
	return c
}

// Jobs are what this node scrapes; what is left out the desk knows.
func (c *Client) Jobs() ([]target.Job, []target.Dropped) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.jobs, nil
}

// Run asks until ctx ends; here are the rows and what is left out, to tell.
func (c *Client) Run(ctx context.Context, here func() ([]scrape.Status, []target.Dropped)) error {
	wait := c.cfg.Retry
	silent := false
	for {
		rows, left := here()
		err := c.ask(ctx, rows, left)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			wait, silent = c.cfg.Retry, false
			continue
		}
		c.failed.Inc()
		if !silent {
			silent = true
			c.log.Warn("targets of this node were not asked for, those known stay", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(2*wait, 10*c.cfg.Retry)
	}
}

func (c *Client) ask(ctx context.Context, here []scrape.Status, left []target.Dropped) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	room := rowBytes / 2
	why, untoldWhy, err := rowsOf(left, &room)
	room += rowBytes / 2
	rows, untold, errRows := rowsOf(here, &room)
	if err := errors.Join(err, errRows); err != nil {
		return fmt.Errorf("write targets: %w", err)
	}
	c.mu.Lock()
	body, err := json.Marshal(told{Mark: c.mark, Here: rows, Left: why, Untold: untold + untoldWhy})
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("write targets: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask for targets: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask for targets: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 200)) // the status alone is enough
		return fmt.Errorf("ask for targets: %s: %s", resp.Status, said)
	}
	var got answer
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerLimit)).Decode(&got); err != nil {
		return fmt.Errorf("read targets: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if got.Mark != c.mark {
		c.mark, c.jobs = got.Mark, got.Jobs
	}
	return nil
}

package share

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
)

// errTooLarge ends an answer that is larger than Limits.Bytes.
var errTooLarge = errors.New("answer is too large")

var errBusy = errors.New("too many ask")

// errNoDoor means that a store does not know such a question.
var errNoDoor = errors.New("status 404 Not Found")

// peer is another store, as the server asks it.
type peer struct {
	store  Store
	url    string
	limits Limits
	http   *http.Client
	read   remote.ReadClient
	turns  chan struct{}

	mu   sync.Mutex // guards what follows
	now  View
	late int // answers that came too late since one came
}

func newPeer(s Store, base string, client *http.Client, limits Limits, bytesRead func(int)) (*peer, error) {
	u, err := url.Parse(base + readPath)
	if err != nil {
		return nil, fmt.Errorf("ask store %s: %w", s.Name, err)
	}
	r, err := remote.NewReadClient("series", &remote.ClientConfig{URL: &commonconfig.URL{URL: u}, Timeout: model.Duration(limits.Timeout), ChunkedReadLimit: uint64(limits.Bytes)})
	if err != nil {
		return nil, fmt.Errorf("ask store %s: %w", s.Name, err)
	}
	bounded := &http.Client{Transport: bounded{client.Transport, limits.Bytes, bytesRead}}
	r.(*remote.Client).Client = bounded
	// Until it answers, nobody knows that it is there.
	return &peer{store: s, url: base, limits: limits, http: bounded, read: r, turns: make(chan struct{}, limits.AtOnce), now: View{Away: true}}, nil
}

// look asks what it has.
func (p *peer) look(ctx context.Context) error {
	var told status
	err := p.ask(ctx, http.MethodGet, statusPath, nil, &told)
	if ctx.Err() != nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now.Away = err != nil; !p.now.Away {
		p.now.Known, p.now.Oldest, p.late = true, told.Oldest, 0
	}
	return err
}

func (p *peer) view() View {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

// lateAway answers that come too late one after the other are a store that is away.
const lateAway = 3

// failed remembers that an answer did not come, unless its asker left or it may be
// this question's fault: too large, or too slow as long as others are not.
func (p *peer) failed(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		p.mu.Lock()
		switch why(err) {
		case ofStore:
			p.now.Away = true
		case late:
			if p.late++; p.late >= lateAway {
				p.now.Away = true
			}
		}
		p.mu.Unlock()
	}
	return fmt.Errorf("ask store %s: %w", p.store.Name, err)
}

// came remembers that an answer came.
func (p *peer) came() {
	p.mu.Lock()
	p.late = 0
	p.mu.Unlock()
}

const (
	ofQuestion = iota // it says nothing of other questions
	late
	ofStore
)

func why(err error) int {
	var slow net.Error
	var op *net.OpError
	switch {
	case errors.Is(err, errTooLarge):
		return ofQuestion
	case errors.As(err, &op) && op.Op == "dial":
		return ofStore
	case errors.Is(err, errBusy), errors.Is(err, context.DeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		return late
	}
	return ofStore
}

// turn waits until it may be asked, as long as an answer may take.
func (p *peer) turn(ctx context.Context) (done func(), _ error) {
	late := time.NewTimer(p.limits.Timeout)
	defer late.Stop()
	select {
	case p.turns <- struct{}{}:
		return func() { <-p.turns }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-late.C:
		return nil, fmt.Errorf("%w: %d reads are under way", errBusy, cap(p.turns))
	}
}

// list reads series whole, in order; times in ms.
func (p *peer) list(ctx context.Context, mint, maxt int64, hints *storage.SelectHints, ms []*labels.Matcher) ([]storage.Series, error) {
	done, err := p.turn(ctx)
	if err != nil {
		return nil, p.failed(ctx, err)
	}
	defer done()
	if hints != nil {
		own := *hints
		own.Func = "" // series without samples are not sent
		hints = &own
	}
	q, err := remote.ToQuery(mint, maxt, ms, hints)
	if err != nil {
		return nil, p.failed(ctx, err)
	}
	set, err := p.read.Read(ctx, q, true)
	if err != nil {
		return nil, p.failed(ctx, err)
	}
	var out []storage.Series
	for {
		more, err := next(set)
		if err != nil {
			return nil, p.failed(ctx, err)
		}
		if !more {
			break
		}
		s := set.At()
		// A long series comes in several parts.
		if n := len(out); n > 0 && labels.Equal(out[n-1].Labels(), s.Labels()) {
			out[n-1] = storage.ChainedSeriesMerge(out[n-1], s)
			continue
		}
		out = append(out, keptLabels{s, s.Labels()})
	}
	p.came()
	return out, nil
}

// next is set.Next for an answer that may be anything: the library's reader panics
// at a frame without series.
func next(set storage.SeriesSet) (more bool, err error) {
	defer func() {
		if why := recover(); why != nil {
			err = fmt.Errorf("answer is malformed: %v", why)
		}
	}()
	return set.Next(), set.Err()
}

// keptLabels are made once.
type keptLabels struct {
	storage.Series
	l labels.Labels
}

func (k keptLabels) Labels() labels.Labels { return k.l }

// labels reads names, or the values of one, sorted.
func (p *peer) labels(ctx context.Context, ask labelsQuestion) (out []string, _ error) {
	done, err := p.turn(ctx)
	if err != nil {
		return nil, p.failed(ctx, err)
	}
	defer done()
	body, err := json.Marshal(ask)
	if err != nil {
		return nil, p.failed(ctx, err)
	}
	if err := p.ask(ctx, http.MethodPost, labelsPath, body, &out); err != nil {
		return nil, p.failed(ctx, err)
	}
	p.came()
	slices.Sort(out)
	return out, nil
}

func (p *peer) ask(ctx context.Context, method, path string, body []byte, to any) error {
	ctx, cancel := context.WithTimeout(ctx, p.limits.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, p.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() // read only
	if resp.StatusCode == http.StatusNotFound {
		return errNoDoor
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(to)
}

// bounded cuts answers off.
type bounded struct {
	next  http.RoundTripper
	bytes int64
	read  func(int)
}

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	next := b.next
	if next == nil {
		next = http.DefaultTransport
	}
	resp, err := next.RoundTrip(r)
	if err == nil {
		resp.Body = &boundedBody{resp.Body, b.bytes, b.read}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	left int64
	read func(int)
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read(n)
	if b.left -= int64(n); b.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}

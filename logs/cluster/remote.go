package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"perch/logs/query"
)

// Peer is another node whose lines can be asked for.
type Peer struct {
	Node   string
	URL    string // before query.Prefix, without a slash at the end
	Client *http.Client
}

// Remote asks one peer.
type Remote struct{ peer Peer }

// NewRemote makes a searcher of a peer.
func NewRemote(p Peer) *Remote { return &Remote{p} }

const (
	maxLine  = 8 << 20 // bytes of one line of an answer
	maxReply = 64 << 20
)

func values(r query.Request) url.Values {
	v := url.Values{}
	v.Set("q", r.Text)
	v.Set("from", stamp(r.From))
	v.Set("to", stamp(r.To))
	set := func(key string, n int64) {
		if n > 0 {
			v.Set(key, strconv.FormatInt(n, 10))
		}
	}
	set("limit", int64(r.Limit))
	set("buckets", int64(r.Buckets))
	if r.Step > 0 {
		v.Set("step", time.Duration(r.Step).String())
	}
	if r.Timeout > 0 {
		v.Set("timeout", r.Timeout.String())
	}
	if r.Order == query.OldestFirst {
		v.Set("order", "asc")
	}
	if r.Cursor != nil {
		v.Set("cursor", r.Cursor.String())
	}
	if r.Field != "" {
		v.Set("field", r.Field)
	}
	if r.By != "" {
		v.Set("by", r.By)
	}
	if r.Raw {
		v.Set("raw", "1")
	}
	if len(r.First) > 0 {
		v["first"] = r.First
	}
	return v
}

// stamp writes a time so that every ns arrives; times out of the calendar are
// the ends of it.
func stamp(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }

func (c *Remote) get(ctx context.Context, path string, v url.Values, namespaces []string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.peer.URL+query.Prefix+path, strings.NewReader(v.Encode()))
	if err != nil {
		return nil, fmt.Errorf("ask node %s: %w", c.peer.Node, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set(query.NamespacesHeader, query.Access{All: namespaces == nil, Namespaces: namespaces}.Header())
	resp, err := c.peer.Client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask node %s: %w", c.peer.Node, err)
	}
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // only for the message
		_ = resp.Body.Close()
		return nil, fmt.Errorf("ask node %s: status %d: %s", c.peer.Node, resp.StatusCode, bytes.TrimSpace(b))
	}
	return resp, nil
}

var errEnd = errors.New("answer ended early")

// Query asks the peer and emits its lines in their order.
func (c *Remote) Query(ctx context.Context, r query.Request, emit func(*query.Line) error) (query.Summary, error) {
	v, path := values(r), "query"
	if a := r.Around; a != nil {
		path = "context"
		v = url.Values{"id": {fmt.Sprintf("%016x-%d", a.Hash, a.Number)}, "before": {strconv.Itoa(a.Before)}, "after": {strconv.Itoa(a.After)}}
	}
	resp, err := c.get(ctx, path, v, r.Namespaces)
	if err != nil {
		return query.Summary{}, err
	}
	defer resp.Body.Close() // read only
	scan := bufio.NewScanner(resp.Body)
	scan.Buffer(make([]byte, 64<<10), maxLine)
	for scan.Scan() {
		l, ok, err := query.ParseLine(scan.Bytes())
		if err != nil {
			return query.Summary{}, fmt.Errorf("ask node %s: %w", c.peer.Node, err)
		}
		if !ok {
			var sum query.Summary
			if err := json.Unmarshal(scan.Bytes(), &sum); err != nil {
				return query.Summary{}, fmt.Errorf("ask node %s: %w", c.peer.Node, err)
			}
			return sum, nil
		}
		if err := emit(l); err != nil {
			return query.Summary{}, err
		}
	}
	err = scan.Err()
	if err == nil {
		err = errEnd
	}
	return query.Summary{}, fmt.Errorf("ask node %s: %w", c.peer.Node, err)
}

func (c *Remote) decode(ctx context.Context, path string, r query.Request, to any) error {
	resp, err := c.get(ctx, path, values(r), r.Namespaces)
	if err != nil {
		return err
	}
	defer resp.Body.Close() // read only
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxReply)).Decode(to); err != nil {
		return fmt.Errorf("ask node %s: %w", c.peer.Node, err)
	}
	return nil
}

// Histogram asks the peer.
func (c *Remote) Histogram(ctx context.Context, r query.Request) (h query.Histogram, err error) {
	err = c.decode(ctx, "histogram", r, &h)
	return h, err
}

// Values asks the peer.
func (c *Remote) Values(ctx context.Context, r query.Request) (v query.Values, err error) {
	path := "values"
	if r.Field == "" {
		path = "fields"
	}
	err = c.decode(ctx, path, r, &v)
	return v, err
}

// Patterns asks the peer.
func (c *Remote) Patterns(ctx context.Context, r query.Request) (p query.Patterns, err error) {
	err = c.decode(ctx, "patterns", r, &p)
	return p, err
}

// Stats asks the peer.
func (c *Remote) Stats(ctx context.Context, r query.Request) (s query.FieldStats, err error) {
	err = c.decode(ctx, "stats", r, &s)
	return s, err
}

// Tail follows the peer until the connection ends.
func (c *Remote) Tail(ctx context.Context, r query.Request, emit func(query.TailEvent) error) error {
	v := url.Values{"q": {r.Text}}
	if r.Cursor != nil {
		v.Set("cursor", r.Cursor.String())
	}
	resp, err := c.get(ctx, "tail", v, r.Namespaces)
	if err != nil {
		return err
	}
	defer resp.Body.Close() // read only
	scan := bufio.NewScanner(resp.Body)
	scan.Buffer(make([]byte, 64<<10), maxLine)
	event := ""
	for scan.Scan() {
		line := scan.Text()
		if line == "" {
			event = ""
		} else if e, ok := strings.CutPrefix(line, "event: "); ok {
			event = e
		} else if data, ok := strings.CutPrefix(line, "data: "); ok {
			e, err := parseEvent(event, []byte(data))
			if err != nil {
				return fmt.Errorf("follow node %s: %w", c.peer.Node, err)
			}
			if err := emit(e); err != nil {
				return err
			}
		}
	}
	err = scan.Err()
	if err == nil {
		err = errEnd
	}
	return fmt.Errorf("follow node %s: %w", c.peer.Node, err)
}

func parseEvent(event string, data []byte) (query.TailEvent, error) {
	switch event {
	case "":
		l, ok, err := query.ParseLine(data)
		if err == nil && !ok {
			err = errors.New("an event without a line")
		}
		return query.TailEvent{Line: l}, err
	case "dropped":
		var d struct{ Count int64 }
		err := json.Unmarshal(data, &d)
		return query.TailEvent{Dropped: d.Count}, err
	case "missing":
		var d struct{ Nodes []string }
		err := json.Unmarshal(data, &d)
		return query.TailEvent{Missing: d.Nodes}, err
	case "hidden":
		var d struct{ Namespaces []string }
		err := json.Unmarshal(data, &d)
		return query.TailEvent{Hidden: d.Namespaces}, err
	case "live":
		return query.TailEvent{Live: true}, nil
	case "error":
		return query.TailEvent{}, fmt.Errorf("%s", data)
	}
	return query.TailEvent{}, nil
}

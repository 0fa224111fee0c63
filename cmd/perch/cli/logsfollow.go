package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"time"
)

// overlap is how far following goes back behind the newest line: nodes do not
// store lines in one order.
const overlap = time.Second

// follow prints new lines until ctx ends. It goes on at the newest line that was
// printed, so that nothing is missed between, also when the door was away.
func follow(ctx context.Context, s Streams, w *web, ask url.Values, p *printer) error {
	wait, away := time.Second/2, false
	for {
		ask := url.Values{"query": ask["query"]}
		if !p.newest.IsZero() {
			from := p.newest.Add(-overlap)
			if f := p.floor; f != nil && !from.After(f.Time) { // after that very line: many may have its time
				ask.Set("cursor", fmt.Sprintf("%d.%s", f.Time.UnixNano(), f.ID))
			} else {
				ask.Set("cursor", fmt.Sprintf("%d.%016x-0", from.UnixNano(), 0))
			}
			p.again = maps.Clone(p.recent)
		}
		opened, err := followOnce(ctx, s, w, ask, p)
		if ctx.Err() != nil || p.full() {
			return nil
		}
		if errors.As(err, new(Usage)) || !opened && !away {
			return err // it never worked
		}
		if opened {
			wait, away = time.Second/2, false
		}
		if !away {
			fmt.Fprintln(s.Err, "note: the web door went away, trying to follow on")
			away = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
			wait = min(2*wait, 5*time.Second)
		}
	}
}

// followOnce prints lines until the stream ends; opened says that there was one.
func followOnce(ctx context.Context, s Streams, w *web, ask url.Values, p *printer) (opened bool, _ error) {
	body, err := w.get(ctx, "/logs/api/v1/tail", ask)
	if err != nil {
		return false, err
	}
	defer body.Close()
	in := bufio.NewScanner(body)
	in.Buffer(nil, 8<<20)
	kind := ""
	for in.Scan() {
		if in.Text() == "" {
			kind = ""
		}
		if v, ok := strings.CutPrefix(in.Text(), "event:"); ok {
			kind = strings.TrimSpace(v)
		}
		data, ok := strings.CutPrefix(in.Text(), "data:")
		if !ok {
			continue
		}
		if kind != "" {
			tellEvent(s, kind, []byte(data))
			continue
		}
		l, isLine, err := parseLine([]byte(strings.TrimSpace(data) + "\n"))
		if err != nil {
			return true, err
		}
		if _, printed := p.again[l.ID]; isLine && !printed {
			p.print(l)
		}
		if err := p.out.Flush(); err != nil {
			return true, fmt.Errorf("write lines: %w", err)
		}
		if p.full() {
			return true, nil
		}
	}
	return true, in.Err()
}

// tellEvent says what a stream tells beside lines.
func tellEvent(s Streams, kind string, data []byte) {
	var e struct {
		Count      int
		Nodes      []string
		Namespaces []string
		Error      string
	}
	if json.Unmarshal(data, &e) != nil {
		return // of another version
	}
	switch kind {
	case "dropped":
		fmt.Fprintf(s.Err, "note: %d lines or more are left out here, they came too fast or the expression takes too long; --since shows them\n", e.Count)
	case "missing":
		fmt.Fprintf(s.Err, "note: without %s, which does not answer\n", strings.Join(e.Nodes, ", "))
	case "hidden":
		fmt.Fprintf(s.Err, "note: %d namespaces are not visible to you: %s\n", len(e.Namespaces), strings.Join(e.Namespaces, ", "))
	case "error":
		fmt.Fprintf(s.Err, "note: %s\n", e.Error)
	}
}

package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

// pattern is one kind of line as /logs/api/v1/patterns answers it.
type pattern struct {
	Pattern string  `json:"pattern"`
	Count   int64   `json:"count"`
	Level   string  `json:"level"`
	Trend   []int64 `json:"trend"`
	Image   string  `json:"image"`
	wrote
	Seen *wrote `json:"seen"` // nil: it was not looked for
}

// wrote tells who wrote a line.
type wrote struct {
	First        time.Time `json:"first"`
	Time         time.Time `json:"time"`
	Namespace    string    `json:"namespace"`
	Pod          string    `json:"pod"`
	MaybeEarlier bool      `json:"maybe_earlier"`
}

// first tells of the first line of the pattern in all that is stored, as far as that
// is known.
func (p *pattern) first() string {
	w, before := p.wrote, " or before"
	at := w.First
	if p.Seen != nil {
		w, at = *p.Seen, p.Seen.Time
		if !w.MaybeEarlier {
			before = ""
		}
	}
	out := fmt.Sprintf("first %s%s in %s/%s", at.Local().Format("2006-01-02 15:04:05"), before, w.Namespace, w.Pod)
	if p.Image != "" {
		out += " " + p.Image
	}
	return out
}

// maxPatterns are shown when --tail does not say otherwise.
const maxPatterns = 50

// showPatterns prints the kinds of lines, most frequent first.
func showPatterns(ctx context.Context, s Streams, w *web, ask url.Values, o logsOptions) error {
	limit := o.tail
	if limit <= 0 {
		limit = maxPatterns
	}
	ask.Set("limit", strconv.Itoa(limit))
	ask.Set("buckets", "16")
	if ask.Get("from") == "0" { // else all of the trend is in its last bar
		first := maps.Clone(ask)
		first.Set("order", "asc")
		first.Set("limit", "1")
		lines, _, err := fetch(ctx, w, "/logs/api/v1/query", first)
		if err != nil {
			return err
		}
		if len(lines) > 0 {
			ask.Set("from", lines[0].Time.Format(time.RFC3339Nano))
		}
	}
	body, err := w.get(ctx, "/logs/api/v1/patterns", ask)
	if err != nil {
		return err
	}
	defer body.Close() // read only
	var got struct {
		Total    int64             `json:"total"`
		Other    int64             `json:"other"`
		Patterns []json.RawMessage `json:"patterns"`
		trailer
	}
	if err := json.NewDecoder(body).Decode(&got); err != nil {
		return fmt.Errorf("read patterns: %w", err)
	}
	out := bufio.NewWriter(s.Out)
	for _, raw := range got.Patterns {
		if o.output == "json" {
			fmt.Fprintf(out, "%s\n", raw)
			continue
		}
		var p pattern
		if err := json.Unmarshal(raw, &p); err != nil {
			return fmt.Errorf("read pattern: %w", err)
		}
		fmt.Fprintf(out, "%8d %s %-7s %s\n         %s\n", p.Count, bars(p.Trend), p.Level, p.Pattern, p.first())
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write patterns: %w", err)
	}
	if got.Other > 0 {
		fmt.Fprintf(s.Err, "note: %d of %d lines are of other patterns; --tail shows more\n", got.Other, got.Total)
	}
	tellTrailer(s.Err, got.trailer)
	return nil
}

// bars draws counts as a line of blocks.
func bars(counts []int64) string {
	most := int64(1)
	for _, n := range counts {
		most = max(most, n)
	}
	var b strings.Builder
	for _, n := range counts {
		if n == 0 {
			b.WriteByte(' ')
			continue
		}
		b.WriteRune([]rune("▁▂▃▄▅▆▇█")[(n*7+most-1)/most])
	}
	return b.String()
}

// maxContexts lines are shown with what stands around them.
const maxContexts = 200

// withContext adds the lines of the same container around each of lines, which are
// oldest first. Lines come once, in the order of their groups; nil stands where
// lines are left out between two groups.
func withContext(ctx context.Context, w *web, lines []line, n int) (out []*line, last trailer, _ error) {
	if len(lines) > maxContexts {
		return nil, last, Usage{fmt.Errorf("--context is for at most %d lines, these are %d; use --tail or a narrower query", maxContexts, len(lines))}
	}
	shown := map[string]bool{}
	for _, l := range lines {
		around, t, err := fetch(ctx, w, "/logs/api/v1/context", url.Values{"id": {l.ID}, "before": {strconv.Itoa(n)}, "after": {strconv.Itoa(n)}, "scope": {"container"}})
		if err != nil {
			return nil, last, err
		}
		last.merge(t)
		fresh := len(around) > 0 && !shown[around[0].ID] && len(out) > 0
		if fresh {
			out = append(out, nil)
		}
		for i := range around {
			if !shown[around[i].ID] {
				shown[around[i].ID] = true
				out = append(out, &around[i])
			}
		}
	}
	return out, last, nil
}

// parseMoment reads a duration before now, or a time in RFC 3339.
func parseMoment(flag, text string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	if flag == "since-time" {
		return time.Time{}, Usage{fmt.Errorf("--since-time %q: write a time in RFC 3339, such as %s", text, now.UTC().Truncate(time.Minute).Format(time.RFC3339))}
	}
	d, err := time.ParseDuration(text) // kubectl's, with 1.5h
	if err != nil {
		days, derr := model.ParseDuration(text) // with 2d
		d, err = time.Duration(days), derr
	}
	if err != nil || d < 0 {
		return time.Time{}, Usage{fmt.Errorf("--%s %q: write a duration such as 10m, or a time in RFC 3339, such as %s", flag, text, now.UTC().Truncate(time.Minute).Format(time.RFC3339))}
	}
	return now.Add(-d), nil
}

// atSpan is how much --at shows on both sides.
const atSpan = time.Minute

// timeRange limits the time: all that is stored, when no flag says otherwise.
func timeRange(ask url.Values, o logsOptions, now time.Time) (url.Values, error) {
	if o.at != "" && (o.since != "" || o.sinceTime != "" || o.until != "" || o.follow) {
		return nil, Usage{errors.New("--at shows the minutes around a time; leave out --since, --since-time, --until and -f")}
	}
	if o.since != "" && o.sinceTime != "" {
		return nil, Usage{errors.New("give --since or --since-time, not both")}
	}
	ask.Set("from", "0")
	if o.until == "" && !o.patterns {
		ask.Set("to", "now+1d") // of a node whose clock is ahead, too
	}
	for _, f := range []struct{ flag, text, key string }{{"since", o.since, "from"}, {"since-time", o.sinceTime, "from"}, {"until", o.until, "to"}, {"at", o.at, "at"}} {
		if f.text == "" {
			continue
		}
		at, err := parseMoment(f.flag, f.text, now)
		if err != nil {
			return nil, err
		}
		if f.flag == "since" && at.Equal(now) {
			continue // kubectl's 0: all
		}
		if f.key == "at" {
			ask.Set("from", at.Add(-atSpan).UTC().Format(time.RFC3339Nano))
			ask.Set("to", at.Add(atSpan).UTC().Format(time.RFC3339Nano))
			continue
		}
		ask.Set(f.key, at.UTC().Format(time.RFC3339Nano))
	}
	return ask, nil
}

// limited writes at most so many bytes and forgets the rest.
type limited struct {
	to   io.Writer
	left int64
}

func (l *limited) Write(b []byte) (int, error) {
	n := int64(len(b))
	if n > l.left {
		n = l.left
	}
	l.left -= n
	if _, err := l.to.Write(b[:n]); err != nil {
		return 0, err
	}
	return len(b), nil
}

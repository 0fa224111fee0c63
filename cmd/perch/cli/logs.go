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
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// line is one record as /logs/api/v1/query answers it.
type line struct {
	Time      time.Time `json:"time"`
	ID        string    `json:"id,omitempty"`
	Namespace string    `json:"namespace,omitempty"`
	Pod       string    `json:"pod,omitempty"`
	Container string    `json:"container,omitempty"`
	UID       string    `json:"uid,omitempty"`
	Instance  string    `json:"instance,omitempty"`
	Node      string    `json:"node,omitempty"`
	Stream    string    `json:"stream,omitempty"`
	Level     string    `json:"level,omitempty"`
	Kind      string    `json:"kind,omitempty"`
	Line      string    `json:"line"`
	raw       []byte
}

type trailer struct {
	Partial bool     `json:"partial"`
	Reason  string   `json:"reason"`
	Missing []string `json:"missing"`
	Hidden  []string `json:"hidden"`
	Cursor  string   `json:"cursor"`
	Copies  []copied `json:"copies"`
}

// copied is a node whose lines come from its copy at another.
type copied struct {
	Node string    `json:"node"`
	By   string    `json:"by"`
	At   time.Time `json:"at"` // all lines up to then
	Age  int64     `json:"age_ms"`
}

type logsOptions struct {
	all, follow, previous, events, timestamps bool
	since, until, grep, query, container      string
	selector, output, instance                string
	at, sinceTime                             string
	tail, context                             int
	patterns, prefix, whole                   bool
	limitBytes                                int64
}

// maxLines bounds what one call prints when neither --tail nor a time says
// otherwise; the newest are shown and the cut is told.
const maxLines = 10_000

func logsCommand(s Streams) *cobra.Command {
	var o logsOptions
	c := &cobra.Command{
		Use:   "logs [KIND/NAME|POD]…",
		Short: "Show lines of many pods, ended and deleted ones too",
		Example: `  perch logs deploy/web --since 10m --grep 'timeout|refused'
  perch logs web-7d9f4c6b8-kx2mq -p
  perch logs -l app=web -f
  perch logs deploy/web --patterns --since 1h
  perch logs web-7d9f4c6b8-kx2mq --at 2026-11-20T14:02:00Z --grep panic --context 5
  perch logs -q 'level:>=warn -healthz' -A --since 1h -o json`,
	}
	a := newAccess(c.PersistentFlags())
	f := c.Flags()
	f.BoolVarP(&o.all, "all-namespaces", "A", false, "lines of all namespaces")
	f.BoolVarP(&o.follow, "follow", "f", false, "go on with new lines")
	f.BoolVarP(&o.previous, "previous", "p", false, "the instance before the current one")
	f.StringVar(&o.instance, "instance", "", "the container's instance by number, 0 is the first")
	f.BoolVar(&o.events, "events", false, "Kubernetes events of these pods among the lines")
	f.BoolVar(&o.timestamps, "timestamps", false, "the full time before each line")
	f.StringVar(&o.since, "since", "", "newer than 10m, 2h, or a time in RFC 3339; 0 for all")
	f.StringVar(&o.until, "until", "", "older than 10m, or a time in RFC 3339")
	f.StringVar(&o.at, "at", "", "the minute before and after a time in RFC 3339, or 10m ago")
	f.StringVar(&o.sinceTime, "since-time", "", "newer than a time in RFC 3339")
	f.IntVar(&o.context, "context", 0, "this many lines of the same container before and after each line that is found")
	f.BoolVar(&o.patterns, "patterns", false, "the kinds of lines, with counts, trend, and when and where each was first seen in all that is stored")
	f.BoolVar(&o.prefix, "prefix", false, "pod and container before each line")
	f.Int64Var(&o.limitBytes, "limit-bytes", 0, "at most this many bytes")
	f.Bool("all-containers", true, "lines of all containers, which is so without it too; -c chooses one")
	f.Bool("ignore-errors", false, "go on when a node does not answer, which is so without it too")
	f.Int("max-log-requests", 0, "no meaning here: all lines come in one request")
	allPods := f.Bool("all-pods", false, "lines of all pods of a workload, which is so without it too; with --prefix")
	f.Duration("pod-running-timeout", 0, "no meaning here: lines are shown whether a pod runs or not, and -f shows those of pods that come")
	f.Bool("insecure-skip-tls-verify-backend", false, "no meaning here: lines come from the store, not from a kubelet")
	f.StringVar(&o.grep, "grep", "", "lines that match this regular expression")
	f.StringVarP(&o.query, "query", "q", "", "a query in the log language: words, \"phrases\", field:value, -not")
	f.StringVarP(&o.container, "container", "c", "", "lines of this container")
	f.StringVarP(&o.selector, "selector", "l", "", "lines of the pods with these labels (pods that exist now)")
	f.IntVar(&o.tail, "tail", -1, "at most this many lines, the newest; -1 for all (default: all of a time that is given, else 10000)")
	f.StringVarP(&o.output, "output", "o", "text", "text or json")
	c.RunE = func(c *cobra.Command, args []string) error {
		ask, err := o.check(c.Flags().Changed("limit-bytes"), time.Now())
		if err != nil {
			return err
		}
		if o.limitBytes > 0 {
			s.Out = &limited{s.Out, o.limitBytes}
		}
		o.prefix = o.prefix || *allPods
		o.whole = o.tail < 0 && (c.Flags().Changed("tail") || o.since != "" || o.sinceTime != "" || o.at != "")
		w, err := a.web(c.Context())
		if err != nil {
			return err
		}
		ns, err := a.namespace()
		if err != nil {
			return err
		}
		return runLogs(c.Context(), s, w, ns, args, ask, o)
	}
	return c
}

// check refuses flags that no cluster need be asked about, and says of which time
// the lines are.
func (o logsOptions) check(limited bool, now time.Time) (url.Values, error) {
	if o.output != "text" && o.output != "json" {
		return nil, Usage{fmt.Errorf("-o %s: use text or json", o.output)}
	}
	if o.context < 0 || o.context > 0 && o.follow {
		return nil, Usage{errors.New("--context needs a number above 0 and is not for -f")}
	}
	if limited && o.limitBytes <= 0 {
		return nil, Usage{errors.New("--limit-bytes needs a number above 0")}
	}
	if o.tail < -1 {
		return nil, Usage{fmt.Errorf("--tail %d: use a number of lines, or -1 for all", o.tail)}
	}
	if o.follow && o.until != "" {
		return nil, Usage{errors.New("--until is not for -f, which has no end")}
	}
	if _, err := regexp.Compile(o.grep); err != nil {
		return nil, Usage{fmt.Errorf("--grep: %w", err)}
	}
	return timeRange(url.Values{}, o, now)
}

// runLogs prints lines of the time that ask says.
func runLogs(ctx context.Context, s Streams, w *web, ns string, args []string, ask url.Values, o logsOptions) error {
	query, err := logQuery(ctx, w, ns, args, o)
	if err != nil {
		return err
	}
	ask["query"] = []string{query, o.query} // apart, so that positions in errors are those of what was typed
	if o.patterns {
		return showPatterns(ctx, s, w, ask, o)
	}
	p := newPrinter(s.Out, o, args)
	var last trailer
	switch {
	case o.tail == 0:
	case o.whole && o.context == 0:
		last, err = printAll(ctx, w, ask, p)
	default:
		last, err = printNewest(ctx, s, w, ask, p, o)
	}
	if err != nil {
		return err
	}
	if err := p.out.Flush(); err != nil {
		return fmt.Errorf("write lines: %w", err)
	}
	tellTrailer(s.Err, last)
	if o.follow {
		return follow(ctx, s, w, ask, p)
	}
	if p.newest.IsZero() && o.tail != 0 {
		return w.whyNothing(ctx, s.Err, ns, args, o)
	}
	return nil
}

// printNewest prints so many lines, the newest, oldest first.
func printNewest(ctx context.Context, s Streams, w *web, ask url.Values, p *printer, o logsOptions) (trailer, error) {
	limit := o.tail
	if limit < 0 {
		limit = maxLines
	}
	lines, last, err := fetchNewest(ctx, w, ask, limit)
	if err != nil {
		return last, err
	}
	slices.Reverse(lines)
	if len(lines) == limit && limit > 0 {
		p.floor = &line{Time: lines[0].Time, ID: lines[0].ID} // not the array of all
	}
	shown := make([]*line, 0, len(lines))
	for i := range lines {
		shown = append(shown, &lines[i])
	}
	if o.context > 0 {
		var around trailer
		if shown, around, err = withContext(ctx, w, lines, o.context); err != nil {
			return last, err
		}
		last.merge(around)
	}
	p.look(lines)
	for _, l := range shown {
		if l != nil {
			p.print(*l)
		} else if !p.json {
			p.out.WriteString("--\n")
		}
	}
	if len(lines) == limit && o.tail < 0 {
		fmt.Fprintf(s.Err, "note: the newest %d lines; --tail -1 shows all, --since those of a time\n", limit)
	}
	return last, nil
}

// printAll prints the lines of the time that was asked for, oldest first, as they
// come.
func printAll(ctx context.Context, w *web, ask url.Values, p *printer) (last trailer, _ error) {
	ask = maps.Clone(ask)
	ask.Set("order", "asc")
	ask.Set("limit", strconv.Itoa(page))
	for {
		lines, t, err := fetch(ctx, w, "/logs/api/v1/query", ask)
		if err != nil {
			return last, err
		}
		last.merge(t)
		p.look(lines)
		for i := range lines {
			p.print(lines[i])
		}
		if t.Cursor == "" || p.full() { // an answer of large lines has fewer than a page
			return last, nil
		}
		ask.Set("cursor", t.Cursor)
	}
}

// merge adds what was told of a further part of the answer.
func (t *trailer) merge(o trailer) {
	t.Partial = t.Partial || o.Partial
	for _, r := range strings.Split(o.Reason, "; ") {
		if have := strings.Split(t.Reason, "; "); r != "" && !slices.Contains(have, r) {
			t.Reason = strings.TrimPrefix(t.Reason+"; "+r, "; ")
		}
	}
	add := func(to *[]string, more []string) {
		for _, name := range more {
			if !slices.Contains(*to, name) {
				*to = append(*to, name)
			}
		}
	}
	add(&t.Missing, o.Missing)
	add(&t.Hidden, o.Hidden)
	for _, c := range o.Copies { // each part asks the copy again: the first is the oldest
		if !slices.ContainsFunc(t.Copies, func(have copied) bool { return have.Node == c.Node && have.By == c.By }) {
			t.Copies = append(t.Copies, c)
		}
	}
	t.Cursor = o.Cursor
}

func tellTrailer(out io.Writer, t trailer) {
	if len(t.Missing) > 0 {
		fmt.Fprintf(out, "note: without %s, which does not answer\n", strings.Join(t.Missing, ", "))
	}
	for _, c := range t.Copies {
		fmt.Fprintf(out, "note: lines of node %s come from its copy at %s, as of %s, %s before now\n", c.Node, c.By, c.At.Local().Format(time.DateTime), ageOf(c.Age))
	}
	if reason := otherReason(t); reason != "" {
		fmt.Fprintf(out, "note: the answer is not whole (%s)\n", reason)
	}
	if len(t.Hidden) > 0 {
		fmt.Fprintf(out, "note: %d namespaces are not visible to you: %s\n", len(t.Hidden), strings.Join(t.Hidden, ", "))
	}
}

func ageOf(ms int64) string {
	return (time.Duration(ms) * time.Millisecond).Round(time.Second).String()
}

// otherReason is why an answer is not whole, without what missing nodes and
// copies say already.
func otherReason(t trailer) string {
	if !t.Partial {
		return ""
	}
	var out []string
	for _, r := range strings.Split(t.Reason, "; ") {
		switch {
		case len(t.Missing) > 0 && r == "not all nodes answered", len(t.Copies) > 0 && strings.Contains(r, "its copy ends at"):
		case r == "time is up", strings.HasSuffix(r, "bytes to read"):
			out = append(out, r+": narrow the time or the query")
		default:
			out = append(out, r)
		}
	}
	return strings.Join(out, "; ")
}

// page is how many lines one answer may have.
const page = 50_000

// fetchNewest asks page by page, newest first, until there are enough lines or
// no more.
func fetchNewest(ctx context.Context, w *web, ask url.Values, limit int) (all []line, last trailer, _ error) {
	ask = maps.Clone(ask)
	ask.Set("order", "desc")
	for len(all) < limit {
		want := min(page, limit-len(all))
		ask.Set("limit", strconv.Itoa(want))
		lines, t, err := fetch(ctx, w, "/logs/api/v1/query", ask)
		if err != nil {
			return nil, last, err
		}
		all = append(all, lines...)
		last.merge(t)
		if t.Cursor == "" {
			break
		}
		ask.Set("cursor", t.Cursor)
	}
	return all, last, nil
}

func fetch(ctx context.Context, w *web, path string, ask url.Values) (lines []line, last trailer, _ error) {
	body, err := w.get(ctx, path, ask)
	if err != nil {
		return nil, last, err
	}
	defer body.Close()
	in := bufio.NewReaderSize(body, 64<<10)
	for {
		raw, err := in.ReadBytes('\n')
		if len(strings.TrimSpace(string(raw))) > 0 {
			l, isLine, perr := parseLine(raw)
			if perr != nil {
				return nil, last, perr
			}
			if isLine {
				lines = append(lines, l)
			} else if err := json.Unmarshal(raw, &last); err != nil {
				return nil, last, fmt.Errorf("read end of lines: %w", err)
			}
		}
		if errors.Is(err, io.EOF) {
			return lines, last, nil
		} else if err != nil {
			return nil, last, fmt.Errorf("read lines: %w", err)
		}
	}
}

func parseLine(raw []byte) (l line, isLine bool, _ error) {
	if err := json.Unmarshal(raw, &l); err != nil {
		return l, false, fmt.Errorf("read line: %w", err)
	}
	l.raw = raw
	return l, !l.Time.IsZero(), nil
}

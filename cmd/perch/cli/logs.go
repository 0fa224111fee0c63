package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
}

type logsOptions struct {
	all, follow, previous, events, timestamps bool
	since, until, grep, query, container      string
	selector, output, instance                string
	at, sinceTime                             string
	tail, context                             int
	patterns, prefix                          bool
	limitBytes                                int64
}

// maxLines bounds what one call prints when neither --tail nor --since says
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
	f.StringVar(&o.since, "since", "", "newer than 10m, 2h, or a time in RFC 3339")
	f.StringVar(&o.until, "until", "", "older than 10m, or a time in RFC 3339")
	f.StringVar(&o.at, "at", "", "the minute before and after a time in RFC 3339, or 10m ago")
	f.StringVar(&o.sinceTime, "since-time", "", "newer than a time in RFC 3339")
	f.IntVar(&o.context, "context", 0, "this many lines of the same container before and after each line")
	f.BoolVar(&o.patterns, "patterns", false, "the kinds of lines, with counts, trend, and where the first was written")
	f.BoolVar(&o.prefix, "prefix", false, "pod and container before each line")
	f.Int64Var(&o.limitBytes, "limit-bytes", 0, "at most this many bytes")
	f.Bool("all-containers", true, "lines of all containers, which is so without it too; -c chooses one")
	f.Bool("ignore-errors", false, "go on when a node does not answer, which is so without it too")
	f.Int("max-log-requests", 0, "no meaning here: all lines come in one request")
	f.StringVar(&o.grep, "grep", "", "lines that match this regular expression")
	f.StringVarP(&o.query, "query", "q", "", "a query in the log language: words, \"phrases\", field:value, -not")
	f.StringVarP(&o.container, "container", "c", "", "lines of this container")
	f.StringVarP(&o.selector, "selector", "l", "", "lines of the pods with these labels (pods that exist now)")
	f.IntVar(&o.tail, "tail", -1, "at most this many lines, the newest")
	f.StringVarP(&o.output, "output", "o", "text", "text or json")
	c.RunE = func(c *cobra.Command, args []string) error {
		if o.output != "text" && o.output != "json" {
			return Usage{fmt.Errorf("-o %s: use text or json", o.output)}
		}
		if o.context < 0 || o.context > 0 && o.follow {
			return Usage{errors.New("--context needs a number above 0 and is not for -f")}
		}
		if o.limitBytes > 0 {
			s.Out = &limited{s.Out, o.limitBytes}
		}
		w, err := a.web(c.Context())
		if err != nil {
			return err
		}
		ns, err := a.namespace()
		if err != nil {
			return err
		}
		return runLogs(c.Context(), s, w, ns, args, o)
	}
	return c
}

func runLogs(ctx context.Context, s Streams, w *web, ns string, args []string, o logsOptions) error {
	now := time.Now()
	query, err := logQuery(ctx, w, ns, args, o)
	if err != nil {
		return err
	}
	ask := url.Values{"query": {query}}
	if ask, err = timeRange(ask, o, now); err != nil {
		return err
	}
	if o.patterns {
		return showPatterns(ctx, s, w, ask, o)
	}
	limit := o.tail
	if limit < 0 {
		limit = maxLines
	}
	many := len(args) != 1 || strings.Contains(args[0], "/") && !strings.HasPrefix(args[0], "pod") || o.selector != ""
	p := printer{out: bufio.NewWriter(s.Out), json: o.output == "json", many: many, colour: colour(s.Out), timestamps: o.timestamps, prefix: o.prefix, grep: grepRE(o.grep)}
	var last trailer
	if limit > 0 {
		lines, t, err := fetchNewest(ctx, w, ask, limit)
		if err != nil {
			return ownError(ctx, w, o.query, err)
		}
		if len(lines) == 0 && !o.follow {
			if err := w.whyNothing(ctx, s.Err, ns, args, o); err != nil {
				return err
			}
		}
		last = t
		slices.Reverse(lines)
		shown := make([]*line, 0, len(lines))
		for i := range lines {
			shown = append(shown, &lines[i])
		}
		if o.context > 0 {
			if shown, err = withContext(ctx, w, lines, o.context); err != nil {
				return err
			}
		}
		for _, l := range shown {
			if l != nil {
				p.print(*l)
			} else if !p.json {
				p.out.WriteString("--\n")
			}
		}
		if len(lines) == limit && o.tail < 0 {
			fmt.Fprintf(s.Err, "note: the newest %d lines; --tail or --since choose others\n", limit)
		}
	}
	if err := p.out.Flush(); err != nil {
		return fmt.Errorf("write lines: %w", err)
	}
	tellTrailer(s.Err, last)
	if !o.follow {
		return nil
	}
	return follow(ctx, w, query, p)
}

// ownError tells the error of the user's own query, whose positions they can
// count, instead of the one it is part of.
func ownError(ctx context.Context, w *web, query string, err error) error {
	if query == "" || !errors.As(err, new(Usage)) {
		return err
	}
	body, own := w.get(ctx, "/logs/api/v1/query", url.Values{"query": {query}, "limit": {"1"}})
	if own == nil {
		_ = body.Close() // its lines are of no use
		return err
	}
	return own
}

func tellTrailer(out io.Writer, t trailer) {
	if len(t.Missing) > 0 {
		fmt.Fprintf(out, "note: without %s, which does not answer\n", strings.Join(t.Missing, ", "))
	} else if t.Partial {
		fmt.Fprintf(out, "note: the answer is not whole (%s); narrow the time or the query\n", t.Reason)
	}
	if len(t.Hidden) > 0 {
		fmt.Fprintf(out, "note: %d namespaces are not visible to you: %s\n", len(t.Hidden), strings.Join(t.Hidden, ", "))
	}
}

// logQuery builds the query in the log language.
func logQuery(ctx context.Context, w *web, ns string, args []string, o logsOptions) (string, error) {
	var parts []string
	if !o.all {
		parts = append(parts, "namespace:"+quoted(ns))
	}
	var pods []string
	for _, arg := range args {
		t, err := podTerm(arg)
		if err != nil {
			return "", Usage{err}
		}
		pods = append(pods, t)
	}
	if o.selector != "" {
		names, err := w.podsBySelector(ctx, ns, o)
		if err != nil {
			return "", err
		}
		for _, n := range names {
			pods = append(pods, "pod:"+quoted(n))
		}
	}
	if len(pods) > 0 {
		parts = append(parts, "("+strings.Join(pods, " or ")+")")
	} else if o.query == "" && o.grep == "" && !o.all {
		return "", Usage{errors.New("say whose lines: POD, deploy/NAME, -l SELECTOR, -q QUERY or -A")}
	}
	if o.container != "" {
		parts = append(parts, "container:"+quoted(o.container))
	}
	if o.instance != "" {
		parts = append(parts, "instance:"+quoted(o.instance))
	}
	if o.previous {
		n, err := w.previousInstance(ctx, ns, args, o)
		if err != nil {
			return "", err
		}
		parts = append(parts, "instance:"+n)
	}
	if !strings.Contains(o.query, "kind:") { // whoever asks for a kind gets it
		if !o.events {
			parts = append(parts, "-kind:event")
		}
		parts = append(parts, "-kind:audit", "-kind:alert") // about pods, not of them
	}
	if o.grep != "" {
		if _, err := regexp.Compile(o.grep); err != nil {
			return "", Usage{fmt.Errorf("--grep: %w", err)}
		}
		parts = append(parts, "line:~"+strconv.Quote(o.grep))
	}
	if o.query != "" {
		parts = append(parts, "("+o.query+")")
	}
	return strings.Join(parts, " "), nil
}

var plain = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

func quoted(v string) string {
	if plain.MatchString(v) {
		return v
	}
	return strconv.Quote(v)
}

// podTerm names pods by their owner, whether they still exist or not: the names
// that controllers give to their pods tell it.
func podTerm(arg string) (string, error) {
	kind, name, ok := strings.Cut(arg, "/")
	if !ok {
		return "pod:" + quoted(arg), nil
	}
	const five = "[a-z0-9]{5}"
	suffix := ""
	switch strings.ToLower(kind) {
	case "po", "pod", "pods":
		return "pod:" + quoted(name), nil
	case "deploy", "deployment", "deployments", "deployments.apps", "deployment.apps":
		suffix = "-[a-z0-9]{1,10}-" + five
	case "rs", "replicaset", "replicasets", "ds", "daemonset", "daemonsets", "job", "jobs", "rc", "replicationcontroller":
		suffix = "-" + five
	case "sts", "statefulset", "statefulsets":
		suffix = "-[0-9]+"
	default:
		return "", fmt.Errorf("%q: use pod, deploy, rs, sts, ds or job", arg)
	}
	return "pod:~" + strconv.Quote("^"+regexp.QuoteMeta(name)+suffix+"$"), nil
}

// page is how many lines one answer may have.
const page = 50_000

// fetchNewest asks page by page, newest first, until there are enough lines or
// no more.
func fetchNewest(ctx context.Context, w *web, ask url.Values, limit int) (all []line, last trailer, _ error) {
	ask.Set("order", "desc")
	for len(all) < limit {
		want := min(page, limit-len(all))
		ask.Set("limit", strconv.Itoa(want))
		lines, t, err := fetch(ctx, w, "/logs/api/v1/query", ask)
		if err != nil {
			return nil, last, err
		}
		all, last = append(all, lines...), t
		if len(lines) < want || t.Cursor == "" {
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

// follow prints new lines until ctx ends or the door closes.
func follow(ctx context.Context, w *web, query string, p printer) error {
	body, err := w.get(ctx, "/logs/api/v1/tail", url.Values{"query": {query}})
	if err != nil {
		return err
	}
	defer body.Close()
	in := bufio.NewScanner(body)
	in.Buffer(nil, 8<<20)
	for in.Scan() {
		data, ok := strings.CutPrefix(in.Text(), "data:")
		if !ok {
			continue
		}
		l, isLine, err := parseLine([]byte(strings.TrimSpace(data) + "\n"))
		if err != nil {
			return err
		}
		if !isLine {
			continue
		}
		p.print(l)
		if err := p.out.Flush(); err != nil {
			return fmt.Errorf("write lines: %w", err)
		}
	}
	if err := in.Err(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("follow lines: %w", err)
	}
	return nil
}

func grepRE(text string) *regexp.Regexp {
	if text == "" {
		return nil
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil // told already
	}
	return re
}

// printer writes lines: bare for one pod, with time and pod for many.
type printer struct {
	out                            *bufio.Writer
	json, many, colour, timestamps bool
	prefix                         bool
	grep                           *regexp.Regexp
}

var podColours = []string{"36", "35", "33", "34", "32", "96", "95", "94"}

func (p printer) print(l line) {
	if p.json {
		p.out.Write(l.raw)
		return
	}
	paint := func(code, text string) string {
		if !p.colour {
			return text
		}
		return "\x1b[" + code + "m" + text + "\x1b[0m"
	}
	if p.prefix { // as kubectl writes it
		fmt.Fprintf(p.out, "[pod/%s/%s] ", l.Pod, l.Container)
	}
	if p.timestamps {
		fmt.Fprintf(p.out, "%s ", l.Time.UTC().Format(time.RFC3339Nano))
	}
	if p.many && !p.prefix {
		if !p.timestamps {
			fmt.Fprintf(p.out, "%s ", paint("2", l.Time.Local().Format("15:04:05.000")))
		}
		who := l.Pod
		if i := strings.LastIndexByte(who, '-'); i >= 0 && len(who)-i <= 11 {
			who = who[i+1:]
		}
		h := 0
		for _, r := range l.Pod {
			h = h*31 + int(r)
		}
		fmt.Fprintf(p.out, "%s ", paint(podColours[uint(h)%uint(len(podColours))], who))
	}
	text := strings.TrimRight(l.Line, "\n")
	if l.Kind == "event" {
		text = paint("35", "● "+text)
	} else if p.grep != nil && p.colour {
		text = p.grep.ReplaceAllStringFunc(text, func(m string) string { return paint("43;30", m) })
	} else if code, ok := map[string]string{"error": "31", "fatal": "31", "warn": "33"}[l.Level]; ok && p.colour {
		text = paint(code, text)
	}
	p.out.WriteString(text)
	p.out.WriteByte('\n')
}

package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Access says which namespaces an asker may read.
type Access struct {
	All        bool
	Namespaces []string // when not All
}

// Prefix is where Handler's paths begin.
const Prefix = "/logs/api/v1/"

// NamespacesHeader carries an Access between perch's own processes: "*" or
// names separated by commas. Only a door that knows its caller to be perch
// itself may trust it.
const NamespacesHeader = "Perch-Log-Namespaces"

// Header is the written form of an Access. It is never empty: who may read nothing is
// another one than who said nothing.
func (a Access) Header() string {
	switch {
	case a.All:
		return "*"
	case len(a.Namespaces) == 0:
		return ","
	}
	return strings.Join(a.Namespaces, ",")
}

// AccessFromHeader reads what Header wrote; nothing written allows nothing.
func AccessFromHeader(v string) Access {
	if v == "*" {
		return Access{All: true}
	}
	var a Access
	for _, n := range strings.Split(v, ",") {
		if n != "" {
			a.Namespaces = append(a.Namespaces, n)
		}
	}
	return a
}

// TrustedAccess is for Handlers that only perch itself can reach: what the header says,
// and everything when there is none, because perch asks for itself then.
func TrustedAccess(_ context.Context, r *http.Request) (Access, error) {
	said := r.Header.Values(NamespacesHeader)
	if len(said) == 0 {
		return Access{All: true}, nil
	}
	return AccessFromHeader(strings.Join(said, ",")), nil
}

// Handler serves the HTTP API described in doc.go under Prefix. allowed is
// asked once for each request and may run concurrently.
func Handler(s Searcher, allowed func(context.Context, *http.Request) (Access, error), log *slog.Logger) http.Handler {
	d := &door{s: s, allowed: allowed, log: log, now: time.Now, wait: tailWait}
	mux := http.NewServeMux()
	mux.HandleFunc(Prefix+"query", d.query)
	mux.HandleFunc(Prefix+"histogram", d.histogram)
	mux.HandleFunc(Prefix+"tail", d.tail)
	mux.HandleFunc(Prefix+"fields", d.values)
	mux.HandleFunc(Prefix+"values", d.values)
	mux.HandleFunc(Prefix+"context", d.context)
	mux.HandleFunc(Prefix+"patterns", d.patterns)
	mux.HandleFunc(Prefix+"stats", d.stats)
	mux.HandleFunc(Prefix, func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, fmt.Errorf("there is no %s; try query, histogram, tail, fields, values, context, patterns, stats", r.URL.Path))
	})
	return mux
}

type door struct {
	s       Searcher
	allowed func(context.Context, *http.Request) (Access, error)
	log     *slog.Logger
	now     func() time.Time
	wait    time.Duration // how long a tail may take to hand over what it has to tell
}

type problem struct {
	Error    string `json:"error"`
	Position *int   `json:"position,omitempty"`
	Expected string `json:"expected,omitempty"`
}

func fail(w http.ResponseWriter, status int, err error) {
	p := problem{Error: err.Error()}
	if q := (*Error)(nil); errors.As(err, &q) {
		p.Position, p.Expected = &q.Position, q.Expected
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(p) // the client is gone if this fails
}

// request reads what all paths share. It answers itself when that fails.
func (d *door) request(w http.ResponseWriter, r *http.Request) (Request, bool) {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		w.Header().Set("Allow", "GET, POST")
		fail(w, http.StatusMethodNotAllowed, fmt.Errorf("method %s is not GET or POST", r.Method))
		return Request{}, false
	}
	access, err := d.allowed(r.Context(), r)
	if err != nil {
		fail(w, http.StatusForbidden, err)
		return Request{}, false
	}
	r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
	if err := r.ParseForm(); err != nil {
		fail(w, http.StatusBadRequest, err)
		return Request{}, false
	}
	q, err := d.parse(r)
	if err == nil {
		if !access.All {
			q.Namespaces = append([]string{}, access.Namespaces...)
		}
		q, err = q.Normal()
	}
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return Request{}, false
	}
	return q, true
}

func (d *door) parse(r *http.Request) (Request, error) {
	get := r.Form.Get
	now := d.now()
	var q Request
	var err error
	if q.Text, err = joined(slices.Concat(r.Form["q"], r.Form["query"])); err != nil {
		return q, err
	}
	q.To, q.From = now.UnixNano(), 0
	if v := get("to"); v != "" {
		if q.To, err = ParseTime(v, now); err != nil {
			return q, fmt.Errorf("to: %w", err)
		}
	}
	q.From = q.To - int64(time.Hour)
	if v := get("from"); v != "" {
		if q.From, err = ParseTime(v, now); err != nil {
			return q, fmt.Errorf("from: %w", err)
		}
	}
	for _, n := range []struct {
		name string
		to   *int
	}{{"limit", &q.Limit}, {"buckets", &q.Buckets}} {
		if v := get(n.name); v != "" {
			if *n.to, err = strconv.Atoi(v); err != nil || *n.to < 1 {
				return q, fmt.Errorf("%s %q is not a number above 0", n.name, v)
			}
		}
	}
	for _, n := range []struct {
		name string
		to   *int64
	}{{"step", &q.Step}, {"timeout", (*int64)(&q.Timeout)}} {
		if v := get(n.name); v != "" {
			dur, err := parseSpan(v)
			if err != nil || dur <= 0 {
				return q, fmt.Errorf("%s %q is not a duration like 30s", n.name, v)
			}
			*n.to = int64(dur)
		}
	}
	switch v := get("order"); v {
	case "", "desc", "newest":
	case "asc", "oldest":
		q.Order = OldestFirst
	default:
		return q, fmt.Errorf("order %q is not asc or desc", v)
	}
	cursor := get("cursor")
	if v := r.Header.Get("Last-Event-ID"); v != "" {
		cursor = v
	}
	if cursor != "" {
		c, err := ParseCursor(cursor)
		if err != nil {
			return q, err
		}
		q.Cursor = &c
	}
	q.Field, q.By, q.Raw = get("field"), get("by"), get("raw") == "1"
	if q.First = r.Form["first"]; !q.Raw || len(q.First) > seenPatterns {
		q.First = nil
	}
	return q, nil
}

// joined is the query that finds what all of texts find. Each is looked at by
// itself, so that positions in errors are those of the text its writer sees.
func joined(texts []string) (string, error) {
	texts = slices.DeleteFunc(texts, func(t string) bool { return strings.TrimSpace(t) == "" })
	if len(texts) == 0 {
		return "", nil
	}
	if len(texts) == 1 {
		return texts[0], nil
	}
	for _, t := range texts {
		if _, err := Parse(t); err != nil {
			return "", err
		}
	}
	return "(" + strings.Join(texts, ") (") + ")", nil
}

// ParseTime reads RFC3339, unix seconds, now, or now-1h, as ns. What ns cannot
// say, before 1678 and after 2262, becomes the first or the last time they can.
func ParseTime(v string, now time.Time) (int64, error) {
	t, ok := parseTime(v, now)
	if !ok {
		return 0, fmt.Errorf("time %q is not RFC3339, unix seconds, now or now-1h", v)
	}
	switch {
	case t.Before(time.Unix(0, minTime)):
		return minTime, nil
	case t.After(time.Unix(0, maxTime)):
		return maxTime, nil
	}
	return t.UnixNano(), nil
}

func parseTime(v string, now time.Time) (t time.Time, ok bool) {
	if rest, ok := strings.CutPrefix(v, "now"); ok {
		if rest == "" {
			return now, true
		}
		d, err := parseSpan(rest[1:])
		switch {
		case err != nil || d < 0:
		case rest[0] == '-':
			return now.Add(-d), true
		case rest[0] == '+':
			return now.Add(d), true
		}
		return t, false
	}
	if f, err := strconv.ParseFloat(v, 64); err == nil && math.Abs(f) < 1e12 {
		whole, part := math.Modf(f)
		return time.Unix(int64(whole), int64(math.Round(part*1e6))*1e3), true
	}
	t, err := time.Parse(time.RFC3339Nano, v)
	return t, err == nil
}

// parseSpan reads a duration; days and weeks are known too, a bare number is
// seconds.
func parseSpan(v string) (time.Duration, error) {
	if f, err := strconv.ParseFloat(v, 64); err == nil && math.Abs(f) < 9e9 {
		return time.Duration(f * 1e9), nil
	}
	for unit, d := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if n, ok := strings.CutSuffix(v, unit); ok {
			if f, err := strconv.ParseFloat(n, 64); err == nil && math.Abs(f) < 1e5 {
				return time.Duration(f * float64(d)), nil
			}
		}
	}
	return time.ParseDuration(v)
}

func (d *door) query(w http.ResponseWriter, r *http.Request) {
	if q, ok := d.request(w, r); ok {
		d.lines(w, r, d.s, q)
	}
}

func (d *door) context(w http.ResponseWriter, r *http.Request) {
	q, ok := d.request(w, r)
	if !ok {
		return
	}
	h, n, err := ParseID(r.Form.Get("id"))
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	q.Around = &Around{Hash: h, Number: n, Before: 10, After: 10}
	for name, to := range map[string]*int{"before": &q.Around.Before, "after": &q.Around.After} {
		if v := r.Form.Get(name); v != "" {
			if *to, err = strconv.Atoi(v); err != nil || *to < 0 || *to > MaxLimit {
				fail(w, http.StatusBadRequest, fmt.Errorf("%s %q is not a number from 0 to %d", name, v, MaxLimit))
				return
			}
		}
	}
	search := d.s
	switch scope := r.Form.Get("scope"); scope {
	case "", "stream":
	case "container", "pod", "workload", "node":
		search = beside{d.s, scope}
	default:
		fail(w, http.StatusBadRequest, fmt.Errorf("scope %q is not stream, container, pod, workload or node", scope))
		return
	}
	d.lines(w, r, search, q)
}

func (d *door) lines(w http.ResponseWriter, r *http.Request, search Searcher, q Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	started := false
	var buf []byte
	sum, err := search.Query(r.Context(), q, func(l *Line) error {
		started = true
		buf = append(l.AppendJSON(buf), '\n')
		if len(buf) < 32<<10 {
			return nil
		}
		_, err := w.Write(buf)
		buf = buf[:0]
		return err
	})
	if err != nil && !started {
		fail(w, http.StatusServiceUnavailable, err)
		return
	}
	if err != nil {
		sum = Summary{Partial: true, Reason: err.Error(), Missing: []string{}, Hidden: []string{}}
	}
	end, err := json.Marshal(sum)
	if err != nil {
		panic("BUG: summary: " + err.Error())
	}
	buf = append(append(buf, end...), '\n')
	_, _ = w.Write(buf) // the client is gone if this fails
}

func (d *door) histogram(w http.ResponseWriter, r *http.Request) {
	q, ok := d.request(w, r)
	if !ok {
		return
	}
	if q.Field == "" {
		q.Field = q.By
	}
	h, err := d.s.Histogram(r.Context(), q)
	reply(w, h, err)
}

func (d *door) values(w http.ResponseWriter, r *http.Request) {
	q, ok := d.request(w, r)
	if !ok {
		return
	}
	if strings.HasSuffix(r.URL.Path, "fields") {
		q.Field = ""
	} else if q.Field == "" {
		fail(w, http.StatusBadRequest, errors.New("field is missing; name the field whose values to count"))
		return
	}
	v, err := d.s.Values(r.Context(), q)
	reply(w, v, err)
}

func (d *door) patterns(w http.ResponseWriter, r *http.Request) {
	q, ok := d.request(w, r)
	if !ok {
		return
	}
	if r.Form.Get("buckets") == "" {
		q.Buckets = patternBuckets
	}
	p, err := d.s.Patterns(r.Context(), q)
	if err == nil && !q.Raw {
		tellSeen(r.Context(), d.s, q, &p)
	}
	reply(w, p, err)
}

func (d *door) stats(w http.ResponseWriter, r *http.Request) {
	q, ok := d.request(w, r)
	if !ok {
		return
	}
	f, err := d.s.Stats(r.Context(), q)
	reply(w, f, err)
}

func reply(w http.ResponseWriter, v any, err error) {
	if err != nil {
		fail(w, http.StatusServiceUnavailable, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // the client is gone if this fails
}

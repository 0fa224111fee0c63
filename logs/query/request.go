package query

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"perch/logs/record"
)

// Searcher answers queries: the Engine of one machine, or many of them.
type Searcher interface {
	// Query emits lines in order and returns what is to be known about them.
	Query(ctx context.Context, r Request, emit func(*Line) error) (Summary, error)
	Histogram(ctx context.Context, r Request) (Histogram, error)
	// Values counts the values of r.Field, or the fields when that is empty.
	Values(ctx context.Context, r Request) (Values, error)
	// Patterns counts the kinds of lines, Stats the values of r.Field.
	Patterns(ctx context.Context, r Request) (Patterns, error)
	Stats(ctx context.Context, r Request) (FieldStats, error)
	// Tail emits new lines until ctx ends or emit fails.
	Tail(ctx context.Context, r Request, emit func(TailEvent) error) error
}

// Order of lines.
type Order uint8

// Orders.
const (
	NewestFirst Order = iota
	OldestFirst
)

// Request is a question. The zero value asks for nothing; see Normal.
type Request struct {
	Text       string
	Query      *Query // of Text; parsed by Normal when nil
	From, To   int64  // ns, both included
	Limit      int
	Order      Order
	Cursor     *Cursor  // only lines after it in Order
	Namespaces []string // nil: all; else only these, and "namespace" of the rest is named in Hidden
	Buckets    int      // of a histogram
	Step       int64    // ns; wins over Buckets
	Field      string   // of Values, Stats and Histogram
	By         string   // of Stats: the field that groups
	Raw        bool     // of a node's part of an answer: with all that a merge needs
	First      []string // of Patterns: only the first line of each of these is looked for, nothing is counted
	Around     *Around  // lines around one; wins over Text
	Timeout    time.Duration
	MaxBytes   int64
}

// Around asks for the lines beside one of the same stream.
type Around struct {
	Hash          uint64
	Number        uint64
	Before, After int
}

// Cursor is a place in the order of lines: time, then stream, then number.
type Cursor struct {
	Time   int64
	Hash   uint64
	Number uint64
}

// String is the written form: "<ns>.<id>".
func (c Cursor) String() string {
	return fmt.Sprintf("%d.%016x-%d", c.Time, c.Hash, c.Number)
}

// ParseCursor reads the written form.
func ParseCursor(s string) (Cursor, error) {
	at, id, ok := strings.Cut(s, ".")
	if ok {
		t, err := strconv.ParseInt(at, 10, 64)
		if h, n, err2 := ParseID(id); err == nil && err2 == nil {
			return Cursor{t, h, n}, nil
		}
	}
	return Cursor{}, fmt.Errorf("cursor %q is not one this API gave", s)
}

// ParseID reads a line's id.
func ParseID(s string) (hash, number uint64, err error) {
	h, n, ok := strings.Cut(s, "-")
	if ok {
		var e1, e2 error
		hash, e1 = strconv.ParseUint(h, 16, 64)
		number, e2 = strconv.ParseUint(n, 10, 64)
		if e1 == nil && e2 == nil && len(h) == 16 {
			return hash, number, nil
		}
	}
	return 0, 0, fmt.Errorf("id %q is not one this API gave", s)
}

func (c Cursor) compare(d Cursor) int {
	switch {
	case c.Time != d.Time:
		return order(c.Time < d.Time)
	case c.Hash != d.Hash:
		return order(c.Hash < d.Hash)
	case c.Number != d.Number:
		return order(c.Number < d.Number)
	}
	return 0
}

func order(less bool) int {
	if less {
		return -1
	}
	return 1
}

// Before tells whether c comes before d in the order.
func (o Order) Before(c, d Cursor) bool {
	if o == OldestFirst {
		return c.compare(d) < 0
	}
	return c.compare(d) > 0
}

// Limits of one request.
const (
	DefaultLimit    = 100
	MaxLimit        = 50_000
	DefaultBuckets  = 60
	MaxBuckets      = 2000
	DefaultTimeout  = 15 * time.Second
	MaxTimeout      = 2 * time.Minute
	DefaultMaxBytes = 8 << 30
)

// Normal fills in defaults and parses the query. The error is for the asker.
func (r Request) Normal() (Request, error) {
	if r.Query == nil {
		q, err := Parse(r.Text)
		if err != nil {
			return r, err
		}
		r.Query = q
	}
	r.Text = r.Query.Text
	if r.From > r.To {
		return r, fmt.Errorf("from is after to")
	}
	if r.Limit <= 0 {
		r.Limit = DefaultLimit
	}
	r.Limit = min(r.Limit, MaxLimit)
	if r.Buckets <= 0 {
		r.Buckets = DefaultBuckets
	}
	r.Buckets = min(r.Buckets, MaxBuckets)
	if r.Timeout <= 0 {
		r.Timeout = DefaultTimeout
	}
	r.Timeout = min(r.Timeout, MaxTimeout)
	if r.MaxBytes <= 0 {
		r.MaxBytes = DefaultMaxBytes
	}
	return r, nil
}

// Lines are counted over time between these, 1933 and 2079, so that no sum of
// times overflows.
const (
	countFrom = -1 << 60
	countTo   = 3<<60 - 1
)

// countable is the part of the request in which lines are counted over time.
func (r Request) countable() Request {
	r.From, r.To = min(max(r.From, countFrom), countTo), min(max(r.To, countFrom), countTo)
	return r
}

func (r *Request) allows(namespace string) bool {
	return r.Namespaces == nil || namespace != "" && slices.Contains(r.Namespaces, namespace)
}

// Stats says what an answer cost.
type Stats struct {
	Lines  int64 `json:"lines"`  // looked at
	Bytes  int64 `json:"bytes"`  // unpacked and looked at
	Blocks int64 `json:"blocks"` // read
	Took   int64 `json:"took_ms"`
}

// Summary is the end of every answer.
type Summary struct {
	Stats   Stats    `json:"stats"`
	Partial bool     `json:"partial"`
	Reason  string   `json:"reason,omitempty"`
	Missing []string `json:"missing"`          // nodes that did not answer
	Hidden  []string `json:"hidden"`           // namespaces the asker may not read
	Cursor  string   `json:"cursor,omitempty"` // goes on after the last line, when there may be more
	Copies  []Copied `json:"copies,omitempty"` // that answered for nodes
}

// Copied is a node whose lines come from a copy that another node keeps.
type Copied struct {
	Node string    `json:"node"`
	By   string    `json:"by"`
	At   time.Time `json:"at"`            // all lines up to then are there
	From time.Time `json:"from,omitzero"` // of partitions that began before, none is there; zero: all are
	Age  int64     `json:"age_ms"`        // of At
}

// Merge adds the summary of another part of the answer.
func (s *Summary) Merge(o Summary) {
	s.Stats.Lines += o.Stats.Lines
	s.Stats.Bytes += o.Stats.Bytes
	s.Stats.Blocks += o.Stats.Blocks
	s.Stats.Took = max(s.Stats.Took, o.Stats.Took)
	s.Partial = s.Partial || o.Partial
	if s.Reason == "" {
		s.Reason = o.Reason
	} else if o.Reason != "" && !slices.Contains(strings.Split(s.Reason, "; "), o.Reason) {
		s.Reason += "; " + o.Reason
	}
	s.Missing = union(s.Missing, o.Missing)
	s.Hidden = union(s.Hidden, o.Hidden)
	s.Copies = append(s.Copies, o.Copies...)
}

func union(a, b []string) []string {
	out := append(slices.Clone(a), b...)
	slices.Sort(out)
	return slices.Compact(out)
}

// Bucket is one bar of a histogram.
type Bucket struct {
	Time   time.Time        `json:"time"`
	Count  int64            `json:"count"`
	Levels map[string]int64 `json:"levels"`
	Values map[string]int64 `json:"values,omitempty"` // of Histogram.By
}

// Histogram counts lines over time. Values are told apart by their first 256 bytes.
type Histogram struct {
	From    time.Time        `json:"from"`
	To      time.Time        `json:"to"`
	Step    int64            `json:"step_ms"`
	Total   int64            `json:"total"`
	Levels  map[string]int64 `json:"levels"`
	By      string           `json:"by,omitempty"`     // the field asked for, when that is not the level
	Values  map[string]int64 `json:"values,omitempty"` // of By; NoValue and Others are none
	Buckets []Bucket         `json:"buckets"`
	Summary
}

// grid is the first bucket's start, the step and the number of buckets of a
// countable request; it is the same on every node for one request.
func (r *Request) grid() (start, step int64, n int) {
	step = r.Step
	if step <= 0 {
		step = niceStep((r.To - r.From) / int64(r.Buckets))
	}
	step = min(max(step, int64(time.Millisecond), (r.To-r.From)/MaxBuckets+1), countTo-countFrom)
	start = r.From - mod(r.From, step)
	return start, step, int((r.To-start)/step) + 1
}

func mod(a, b int64) int64 {
	if m := a % b; m < 0 {
		return m + b
	} else {
		return m
	}
}

// niceStep rounds up to a step people read easily.
func niceStep(step int64) int64 {
	for _, d := range []time.Duration{time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond,
		50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second,
		10 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute,
		30 * time.Minute, time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour} {
		if int64(d) >= step {
			return int64(d)
		}
	}
	day := int64(24 * time.Hour)
	return (step + day - 1) / day * day
}

// ValueCount is a value and how many lines have it.
type ValueCount struct {
	Value string `json:"value"`
	Count int64  `json:"count"`
}

// Values are values of a field, or names of fields, told apart by their first 256 bytes.
type Values struct {
	Values  []ValueCount `json:"values"`
	Sampled bool         `json:"sampled"` // counts are of a sample of lines
	Summary
}

// TailEvent is a line, or a note about lines that are not shown.
type TailEvent struct {
	Line    *Line
	Dropped int64    // lines were dropped because the reader is slow, or an expression is
	Missing []string // nodes that do not answer now
	Hidden  []string // namespaces with lines that the asker may not read, each once
	Live    bool     // lines from before were told; what comes from now on is new
}

// Line is one line of an answer.
type Line struct {
	Cursor
	Stream *record.Stream
	Level  record.Level
	Body   []byte
	Fields []byte // JSON object of sender's fields, or empty
}

// ID identifies the line for as long as it is stored.
func (l *Line) ID() string { return fmt.Sprintf("%016x-%d", l.Hash, l.Number) }

// endless is the time range without limits.
const (
	minTime = math.MinInt64
	maxTime = math.MaxInt64
)

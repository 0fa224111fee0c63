package query

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"perch/logs/block"
	"perch/logs/index"
	"perch/logs/record"
	"perch/logs/store"
)

// Engine answers from the store of this machine.
type Engine struct {
	store *store.Store
	log   *slog.Logger
}

// New makes an engine. It has no state of its own.
func New(s *store.Store, log *slog.Logger) *Engine { return &Engine{store: s, log: log} }

// search is one request under way.
type search struct {
	e      *Engine
	ctx    context.Context
	r      *Request
	view   *store.View
	start  time.Time
	sum    Summary
	hidden map[string]struct{}
	root   *node
	driver *node
	folds  bool // the driver is looked for in folded text
	lines  *block.Lines
	folded []byte
	cand   candidate
}

func (e *Engine) begin(ctx context.Context, r *Request) (*search, context.CancelFunc, error) {
	view, err := e.store.View()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	s := &search{e: e, ctx: ctx, r: r, view: view, start: time.Now(), hidden: map[string]struct{}{}, root: r.Query.root, lines: &block.Lines{}}
	s.driver = s.root.driver()
	s.folds = s.driver != nil && !s.driver.exact
	return s, func() {
		cancel()
		if err := view.Release(); err != nil {
			e.log.Warn("view was not released", "err", err)
		}
	}, nil
}

func (s *search) want(st *record.Stream) bool {
	if s.root.ask(st) == no {
		return false
	}
	if !s.r.allows(st.Namespace) {
		s.hidden[cmp.Or(st.Namespace, "(none)")] = struct{}{}
		return false
	}
	return true
}

// due tells whether the request must end before the next piece.
func (s *search) due() bool {
	switch {
	case s.ctx.Err() != nil:
		s.partial("time is up")
	case s.sum.Stats.Bytes > s.r.MaxBytes:
		s.partial(fmt.Sprintf("more than %d bytes to read", s.r.MaxBytes))
	default:
		return false
	}
	return true
}

func (s *search) partial(reason string) {
	s.sum.Partial = true
	if s.sum.Reason == "" {
		s.sum.Reason = reason
	}
}

func (s *search) summary() Summary {
	s.sum.Missing, s.sum.Hidden = []string{}, []string{}
	for n := range s.hidden {
		s.sum.Hidden = append(s.sum.Hidden, n)
	}
	slices.Sort(s.sum.Hidden)
	s.sum.Stats.Took = time.Since(s.start).Milliseconds()
	return s.sum
}

// read reads a piece; one that is damaged makes the answer partial.
func (s *search) read(p *store.Piece) *block.Lines {
	l, err := p.Read(s.lines)
	if err != nil {
		s.e.log.Error("block was not read", "err", err)
		s.partial("a block could not be read")
		return nil
	}
	s.sum.Stats.Blocks++
	s.sum.Stats.Bytes += p.Bytes
	s.sum.Stats.Lines += int64(p.Lines)
	return l
}

// scan calls hit for every line of a piece that matches, in the order of the
// piece; hit returns false to skip the rest.
func (s *search) scan(p *store.Piece, l *block.Lines, hit func(i int) bool) {
	ask := s.root.ask(p.Stream)
	var hay []byte
	if ask == maybe && s.driver != nil {
		if hay = l.Text; s.folds {
			if cap(s.folded) < len(l.Text) {
				s.folded = make([]byte, len(l.Text)+len(l.Text)/8)
			}
			hay = s.folded[:len(l.Text)]
			foldInto(hay, l.Text)
		}
	}
	needle := []byte(nil)
	if s.driver != nil {
		needle = []byte(s.driver.text)
	}
	for i := 0; i < l.Len(); i++ {
		if hay != nil { // jump to the next line that has the text
			start := lineStart(l, i)
			k := bytes.Index(hay[start:], needle)
			if k < 0 {
				return
			}
			at := uint32(start + k)
			n, _ := slices.BinarySearch(l.Ends[i:], at)
			i += n
			if i >= l.Len() {
				return
			}
		}
		if t := l.Times[i]; t < s.r.From || t > s.r.To {
			continue
		}
		if ask == maybe {
			var folded []byte
			if hay != nil && s.folds {
				folded = hay[lineStart(l, i):l.Ends[i]]
			}
			s.cand.reset(p.Stream, record.Level(l.Levels[i]), l.Body(i), folded, l.FieldsOf(i))
			if !s.root.match(&s.cand) {
				continue
			}
		}
		if !hit(i) {
			return
		}
	}
}

func lineStart(l *block.Lines, i int) int {
	if i == 0 {
		return 0
	}
	return int(l.Ends[i-1]) + 1
}

func lineOf(p *store.Piece, l *block.Lines, i int) *Line {
	return &Line{Cursor: Cursor{l.Times[i], p.Hash, p.First + uint64(i)}, Stream: p.Stream, Level: record.Level(l.Levels[i]),
		Body: bytes.Clone(l.Body(i)), Fields: bytes.Clone(l.FieldsOf(i))}
}

// Query emits the first lines that match in the order asked for.
func (e *Engine) Query(ctx context.Context, r Request, emit func(*Line) error) (Summary, error) {
	r, err := r.Normal()
	if err != nil {
		return Summary{}, err
	}
	s, end, err := e.begin(ctx, &r)
	if err != nil {
		return Summary{}, err
	}
	defer end()
	if r.Around != nil {
		return s.around(emit)
	}
	kept := &best{order: r.Order}
	from, to := r.From, r.To
	if c := r.Cursor; c != nil {
		if r.Order == NewestFirst {
			to = min(to, c.Time)
		} else {
			from = max(from, c.Time)
		}
	}
	pieces := s.view.Select(s.ctx, from, to, s.want, r.Query.root.need())
	slices.SortFunc(pieces, func(a, b store.Piece) int {
		if r.Order == NewestFirst {
			return cmp.Compare(b.Max, a.Max)
		}
		return cmp.Compare(a.Min, b.Min)
	})
	full := func() bool { return len(kept.lines) >= r.Limit }
	for i := range pieces {
		p := &pieces[i]
		if full() { // can the rest have anything better than the worst kept?
			worst := kept.lines[0].Time
			if r.Order == NewestFirst && p.Max < worst || r.Order == OldestFirst && p.Min > worst {
				break
			}
		}
		if s.due() {
			break
		}
		l := s.read(p)
		if l == nil {
			continue
		}
		s.scan(p, l, func(i int) bool {
			c := Cursor{l.Times[i], p.Hash, p.First + uint64(i)}
			if r.Cursor != nil && !r.Order.Before(*r.Cursor, c) {
				return true
			}
			if full() && !r.Order.Before(c, kept.lines[0].Cursor) {
				return true
			}
			heap.Push(kept, lineOf(p, l, i))
			if len(kept.lines) > r.Limit {
				heap.Pop(kept)
			}
			return true
		})
	}
	out := kept.lines
	slices.SortFunc(out, func(a, b *Line) int {
		if r.Order == NewestFirst {
			return b.compare(a.Cursor)
		}
		return a.compare(b.Cursor)
	})
	for _, l := range out {
		if err := emit(l); err != nil {
			return Summary{}, err
		}
	}
	sum := s.summary()
	if len(out) == r.Limit {
		sum.Cursor = out[len(out)-1].String()
	}
	return sum, nil
}

// best is a heap of the lines kept; the worst is on top.
type best struct {
	order Order
	lines []*Line
}

func (b *best) Len() int           { return len(b.lines) }
func (b *best) Less(i, j int) bool { return b.order.Before(b.lines[j].Cursor, b.lines[i].Cursor) }
func (b *best) Swap(i, j int)      { b.lines[i], b.lines[j] = b.lines[j], b.lines[i] }
func (b *best) Push(x any)         { b.lines = append(b.lines, x.(*Line)) }
func (b *best) Pop() any {
	x := b.lines[len(b.lines)-1]
	b.lines = b.lines[:len(b.lines)-1]
	return x
}

// around emits the lines beside one, oldest first by number.
func (s *search) around(emit func(*Line) error) (Summary, error) {
	a := s.r.Around
	first := uint64(0)
	if n := uint64(max(a.Before, 0)); a.Number > n {
		first = a.Number - n
	}
	last := a.Number + uint64(max(a.After, 0))
	pieces := s.view.Select(s.ctx, minTime, maxTime, func(st *record.Stream) bool {
		return st.Hash() == a.Hash && s.r.allows(st.Namespace)
	}, index.Need{})
	slices.SortFunc(pieces, func(a, b store.Piece) int { return cmp.Compare(a.First, b.First) })
	for i := range pieces {
		p := &pieces[i]
		if p.First > last || p.First+uint64(p.Lines) <= first {
			continue
		}
		l := s.read(p)
		if l == nil {
			continue
		}
		for i := range l.Len() {
			if n := p.First + uint64(i); n >= first && n <= last {
				if err := emit(lineOf(p, l, i)); err != nil {
					return Summary{}, err
				}
			}
		}
	}
	return s.summary(), nil
}

// Histogram counts matching lines over time by level.
func (e *Engine) Histogram(ctx context.Context, r Request) (Histogram, error) {
	r, err := r.Normal()
	if err != nil {
		return Histogram{}, err
	}
	s, end, err := e.begin(ctx, &r)
	if err != nil {
		return Histogram{}, err
	}
	defer end()
	if r.To-r.From < 0 {
		return Histogram{}, fmt.Errorf("time range is too long for a histogram")
	}
	start, step, n := r.grid()
	counts := make([][record.LevelCount]int64, n)
	light := r.Query.root.light()
	pieces := s.view.Select(s.ctx, r.From, r.To, s.want, r.Query.root.need())
	for i := range pieces {
		p := &pieces[i]
		if s.due() {
			break
		}
		inside := p.Min >= r.From && p.Max <= r.To
		if inside && (p.Min-start)/step == (p.Max-start)/step && s.root.ask(p.Stream) == yes {
			if levels, ok := p.Levels(); ok {
				for k, v := range levels {
					counts[(p.Min-start)/step][k] += int64(v)
				}
				continue
			}
		}
		var l *block.Lines
		if light {
			if l, err = p.Times(s.lines); err != nil {
				e.log.Error("block was not read", "err", err)
				s.partial("a block could not be read")
				continue
			}
			s.sum.Stats.Blocks++
			s.sum.Stats.Lines += int64(p.Lines)
			ask := s.root.ask(p.Stream)
			for i, t := range l.Times {
				if t < r.From || t > r.To {
					continue
				}
				if ask == maybe {
					s.cand.reset(p.Stream, record.Level(l.Levels[i]), nil, nil, nil)
					if !s.root.match(&s.cand) {
						continue
					}
				}
				counts[(t-start)/step][levelIndex(l.Levels[i])]++
			}
			continue
		}
		if l = s.read(p); l == nil {
			continue
		}
		s.scan(p, l, func(i int) bool {
			counts[(l.Times[i]-start)/step][levelIndex(l.Levels[i])]++
			return true
		})
	}
	return histogramOf(&r, counts, s.summary()), nil
}

func levelIndex(b byte) int { return min(int(b), record.LevelCount-1) }

func histogramOf(r *Request, counts [][record.LevelCount]int64, sum Summary) Histogram {
	start, step, _ := r.grid()
	h := Histogram{From: time.Unix(0, r.From).UTC(), To: time.Unix(0, r.To).UTC(), Step: step / 1e6, Levels: map[string]int64{}, Buckets: []Bucket{}, Summary: sum}
	for i, c := range counts {
		b := Bucket{Time: time.Unix(0, start+int64(i)*step).UTC(), Levels: map[string]int64{}}
		for k, v := range c {
			if v > 0 {
				b.Levels[record.Level(k).String()] = v
				h.Levels[record.Level(k).String()] += v
				b.Count += v
			}
		}
		h.Total += b.Count
		h.Buckets = append(h.Buckets, b)
	}
	return h
}

// Merge adds another part of the same histogram.
func (h *Histogram) Merge(o Histogram) {
	h.Total += o.Total
	for k, v := range o.Levels {
		h.Levels[k] += v
	}
	for i := range min(len(h.Buckets), len(o.Buckets)) {
		h.Buckets[i].Count += o.Buckets[i].Count
		for k, v := range o.Buckets[i].Levels {
			h.Buckets[i].Levels[k] += v
		}
	}
	h.Summary.Merge(o.Summary)
}

// sampleLines are looked at to find parsed fields and their values.
const sampleLines = 2000

// Values counts values. Labels and levels are counted over all lines in time,
// whatever the text part of the query; other fields in a sample of the newest.
func (e *Engine) Values(ctx context.Context, r Request) (Values, error) {
	limit := r.Limit
	r, err := r.Normal()
	if err != nil {
		return Values{}, err
	}
	if limit <= 0 {
		limit = DefaultLimit
	}
	counts := map[string]int64{}
	var out Values
	_, label := (&record.Stream{}).Label(r.Field)
	if label || r.Field == "level" {
		s, end, err := e.begin(ctx, &r)
		if err != nil {
			return Values{}, err
		}
		defer end()
		for _, p := range s.view.Select(s.ctx, r.From, r.To, s.want, index.Need{}) {
			if label {
				if v, _ := p.Stream.Label(r.Field); v != "" {
					counts[v] += int64(p.Lines)
				}
				continue
			}
			levels, ok := p.Levels()
			if !ok {
				l, err := p.Times(s.lines)
				if err != nil {
					continue
				}
				for _, b := range l.Levels {
					levels[levelIndex(b)]++
				}
			}
			for k, v := range levels {
				if v > 0 {
					counts[record.Level(k).String()] += int64(v)
				}
			}
		}
		out.Summary = s.summary()
	} else {
		r.Limit = sampleLines
		var fields []pair
		out.Sampled = true
		out.Summary, err = e.Query(ctx, r, func(l *Line) error {
			fields = AppendLineFields(appendJSONFields(fields[:0], l.Fields), l.Body)
			for i, f := range fields {
				if slices.ContainsFunc(fields[:i], func(g pair) bool { return g.Key == f.Key }) {
					continue // the first counts
				}
				if _, label := l.Stream.Label(f.Key); r.Field == "" && !label && f.Key != "level" {
					counts[f.Key]++
				} else if f.Key == r.Field {
					counts[f.Value]++
				}
			}
			if r.Field == "" {
				for _, name := range record.Labels() {
					if v, _ := l.Stream.Label(name); v != "" {
						counts[name]++
					}
				}
				counts["level"]++
			}
			return nil
		})
		if err != nil {
			return Values{}, err
		}
		out.Cursor = ""
	}
	out.Values = top(counts, limit)
	return out, nil
}

// Merge adds another part of the same answer.
func (v *Values) Merge(o Values, limit int) {
	counts := map[string]int64{}
	for _, list := range [][]ValueCount{v.Values, o.Values} {
		for _, c := range list {
			counts[c.Value] += c.Count
		}
	}
	v.Values = top(counts, limit)
	v.Sampled = v.Sampled || o.Sampled
	v.Summary.Merge(o.Summary)
}

func top(counts map[string]int64, limit int) []ValueCount {
	out := make([]ValueCount, 0, len(counts))
	for v, n := range counts {
		out = append(out, ValueCount{v, n})
	}
	slices.SortFunc(out, func(a, b ValueCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Value, b.Value))
	})
	return out[:min(limit, len(out))]
}

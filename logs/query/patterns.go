package query

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"perch/logs/block"
	"perch/logs/record"
	"perch/logs/store"
)

// Variable stands in a pattern for a word with a digit in it.
const Variable = "<*>"

const (
	patternKeep    = 10_000 // told apart on each node; the rest is in Patterns.Other
	patternBytes   = 512    // of a pattern are shown and told apart
	patternBuckets = 24
	patternTrend   = 200 // numbers of one trend at most: there are patternKeep of them
	imageLookups   = 20  // of one answer
	imageTimeout   = 2 * time.Second
)

// Pattern is a kind of line: what is left when words with digits are left out.
type Pattern struct {
	Pattern   string    `json:"pattern"`
	Count     int64     `json:"count"`
	Level     string    `json:"level"` // of the first line
	First     time.Time `json:"first"` // within the time asked for
	Last      time.Time `json:"last"`
	Trend     []int64   `json:"trend"` // lines over time
	ID        string    `json:"id"`    // of the first line
	Namespace string    `json:"namespace"`
	Pod       string    `json:"pod"`
	Container string    `json:"container"`
	Instance  string    `json:"instance"`
	Seen      *Seen     `json:"seen,omitempty"`                 // nil: it was not looked for
	Image     string    `json:"image,omitempty"`                // of the container that wrote the line of Seen, when an event tells it
	Unsought  bool      `json:"image_not_looked_for,omitempty"` // an event may tell it: there were too many containers, or too little time
}

// Patterns are the kinds of the lines that match, most frequent first.
type Patterns struct {
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	Step     int64     `json:"step_ms"` // of Trend
	Total    int64     `json:"total"`   // lines that match
	Other    int64     `json:"other"`   // of them of patterns that are not listed
	Patterns []Pattern `json:"patterns"`
	Looked   time.Time `json:"looked,omitzero"` // of Request.First: what is later was not looked at as a whole
	Summary
}

// appendPattern writes the pattern of a template's or a line's first line.
func appendPattern(dst, text []byte) []byte {
	text = firstLine(text)
	for i := 0; i < len(text) && len(dst) < patternBytes; {
		if text[i] == block.Hole {
			dst = append(dst, Variable...)
			i++
			continue
		}
		start, digit := i, false
		for i < len(text) && wordByte(text[i]) {
			digit = digit || text[i] >= '0' && text[i] <= '9'
			i++
		}
		switch {
		case i == start:
			dst = append(dst, text[i])
			i++
		case digit:
			dst = append(dst, Variable...)
		default:
			dst = append(dst, text[start:i]...)
		}
	}
	return bytes.ToValidUTF8(dst[:min(len(dst), patternBytes)], []byte("\ufffd"))
}

// seen is what is known of one pattern.
type seen struct {
	count       int64
	first       Cursor
	last        int64
	level       record.Level
	stream      *record.Stream
	trend       []int64
	initialized bool
}

func (s *seen) add(c Cursor, level record.Level, st *record.Stream, bucket int64) {
	if !s.initialized || c.compare(s.first) < 0 {
		s.first, s.level, s.stream = c, level, st
	}
	if !s.initialized || c.Time > s.last {
		s.last = c.Time
	}
	s.initialized = true
	s.count++
	s.trend[bucket]++
}

// pattern tells of it.
func (s *seen) pattern(text string) Pattern {
	st := s.stream
	return Pattern{Pattern: text, Count: s.count, Level: s.level.String(), First: time.Unix(0, s.first.Time).UTC(), Last: time.Unix(0, s.last).UTC(), Trend: s.trend,
		ID: (&Line{Cursor: s.first}).ID(), Namespace: st.Namespace, Pod: st.Pod, Container: st.Container, Instance: st.Instance}
}

func (s *seen) merge(o *seen) {
	if o.first.compare(s.first) < 0 {
		s.first, s.level, s.stream = o.first, o.level, o.stream
	}
	s.last = max(s.last, o.last)
	s.count += o.count
	for i := range o.trend {
		s.trend[i] += o.trend[i]
	}
}

// Patterns counts the patterns of lines that match. Blocks with templates are
// not put together for that.
func (e *Engine) Patterns(ctx context.Context, r Request) (Patterns, error) {
	if r.Buckets <= 0 {
		r.Buckets = patternBuckets
	}
	r, err := r.Normal()
	if err != nil {
		return Patterns{}, err
	}
	if len(r.First) > 0 {
		return e.firsts(ctx, r)
	}
	r = r.countable()
	if least := (r.To-r.From)/patternTrend + 1; r.Step > 0 {
		r.Step = max(r.Step, least)
	} else {
		r.Buckets = min(r.Buckets, patternTrend)
	}
	s, end, err := e.begin(ctx, &r)
	if err != nil {
		return Patterns{}, err
	}
	defer end()
	start, step, n := r.grid()
	all := map[string]*seen{}
	out := Patterns{From: time.Unix(0, r.From).UTC(), To: time.Unix(0, r.To).UTC(), Step: step / 1e6, Patterns: []Pattern{}}
	s.each(s.pieces(), nil, func(w *worker, p *store.Piece) {
		own := map[string]*seen{}
		if err := w.patterns(p, own, func(t int64) int64 { return (t - start) / step }, n); err != nil {
			w.failed(err)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for text, x := range own {
			out.Total += x.count
			if have := all[text]; have != nil {
				have.merge(x)
			} else if len(all) < patternKeep {
				all[text] = x
			} else {
				out.Other += x.count
			}
		}
	})
	for text, x := range all {
		out.Patterns = append(out.Patterns, x.pattern(text))
	}
	out.Summary = s.summary()
	out.cut(r.Limit)
	return out, nil
}

func (p *Patterns) cut(limit int) {
	slices.SortFunc(p.Patterns, func(a, b Pattern) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Pattern, b.Pattern))
	})
	for _, x := range p.Patterns[min(limit, len(p.Patterns)):] {
		p.Other += x.Count
	}
	p.Patterns = p.Patterns[:min(limit, len(p.Patterns))]
}

// Merge adds another part of the same answer.
func (p *Patterns) Merge(o Patterns, limit int) {
	at := map[string]int{}
	for i, x := range p.Patterns {
		at[x.Pattern] = i
	}
	for _, x := range o.Patterns {
		i, ok := at[x.Pattern]
		if !ok {
			p.Patterns = append(p.Patterns, x)
			continue
		}
		have := p.Patterns[i]
		if x.First.Before(have.First) { // the rest tells of the first line
			have, x = x, have
		}
		have.Count += x.Count
		if x.Last.After(have.Last) {
			have.Last = x.Last
		}
		have.Trend = slices.Clone(have.Trend)
		for k := range min(len(have.Trend), len(x.Trend)) {
			have.Trend[k] += x.Trend[k]
		}
		p.Patterns[i] = have
	}
	p.Total += o.Total
	p.Other += o.Other
	if p.Looked.IsZero() || !o.Looked.IsZero() && o.Looked.Before(p.Looked) {
		p.Looked = o.Looked
	}
	p.Summary.Merge(o.Summary)
	p.cut(limit)
}

// patterns counts those of the lines of a piece that match.
func (w *worker) patterns(p *store.Piece, own map[string]*seen, bucket func(int64) int64, buckets int) error {
	if w.find(p, w.s.r.From, w.s.r.To); len(w.rows) == 0 {
		return nil
	}
	var buf []byte
	find := func(text []byte) *seen {
		buf = appendPattern(buf[:0], text)
		x := own[string(buf)]
		if x == nil {
			x = &seen{trend: make([]int64, buckets)}
			own[string(buf)] = x
		}
		return x
	}
	times, levels, err := w.times()
	if err != nil {
		return err
	}
	var byID []*seen
	var ids []uint32
	var t *block.Templates
	if p.Templated() {
		if t, err = w.asked.parts.Templates(); err == nil {
			ids, err = w.asked.parts.IDs()
			byID = make([]*seen, t.Len())
		}
	} else {
		err = w.texts(w.rows)
	}
	if err != nil {
		return err
	}
	for k, row := range w.rows {
		var x *seen
		if t == nil {
			body, _ := w.text(k, row)
			x = find(body)
		} else if x = byID[ids[row]]; x == nil {
			x = find(t.Of(int(ids[row])))
			byID[ids[row]] = x
		}
		x.add(w.cursor(row, times[row]), record.Level(levels[row]), p.Stream, bucket(times[row]))
	}
	return nil
}

// imageOf finds which image the container of a line ran, from the event that told of
// its pull: the last one before the line. It is empty when no event is stored any more.
// whole is false when not all events were looked at.
func imageOf(ctx context.Context, s Searcher, r Request, of *Seen) (image string, whole bool) {
	text := fmt.Sprintf(`kind:event namespace:%q pod:%q container:%q ~"image \""`, of.Namespace, of.Pod, of.Container)
	for _, to := range []int64{of.Time.UnixNano(), maxTime} { // clocks and senders may differ
		r = Request{Text: text, From: minTime, To: to, Limit: 1, Namespaces: r.Namespaces, Timeout: imageTimeout}
		sum, err := s.Query(ctx, r, func(l *Line) error {
			if _, rest, ok := bytes.Cut(l.Body, []byte(`image "`)); ok {
				if name, _, ok := bytes.Cut(rest, []byte{'"'}); ok {
					image = string(name)
				}
			}
			return nil
		})
		if whole = err == nil && !sum.Partial; err != nil || image != "" {
			break // the pattern is shown without it
		}
	}
	return image, whole || image != ""
}

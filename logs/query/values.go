package query

import (
	"cmp"
	"context"
	"slices"
	"unicode/utf8"

	"perch/logs/record"
	"perch/logs/store"
)

// sampleLines are looked at to find parsed fields and their values.
const sampleLines = 2000

// Values counts values of lines that match. Labels and levels are counted over
// all of them, other fields in a sample of the newest.
func (e *Engine) Values(ctx context.Context, r Request) (Values, error) {
	limit := r.Limit
	r, err := r.Normal()
	if err != nil {
		return Values{}, err
	}
	if limit <= 0 {
		limit = DefaultLimit
	}
	var out Values
	counts := map[string]int64{}
	if _, label := (&record.Stream{}).Label(r.Field); label || r.Field == "level" {
		out.Summary, err = e.countLabels(ctx, &r, counts)
	} else {
		r.Limit = sampleLines
		out.Summary, err = e.Query(ctx, r, func(l *Line) error { l.countFields(r.Field, counts); return nil })
		out.Sampled, out.Cursor = out.Cursor != "", "" // there may be more lines
	}
	if err != nil {
		return Values{}, err
	}
	out.Values = top(counts, limit)
	return out, nil
}

func (e *Engine) countLabels(ctx context.Context, r *Request, counts map[string]int64) (Summary, error) {
	s, end, err := e.begin(ctx, r)
	if err != nil {
		return Summary{}, err
	}
	defer end()
	s.each(s.pieces(), nil, func(w *worker, p *store.Piece) {
		var levels [record.LevelCount]int64
		if known, ok := p.Levels(); ok && w.whole(p) {
			for k, n := range known {
				levels[k] = int64(n)
			}
		} else {
			levels = w.tally(p)
		}
		v, _ := p.Stream.Label(r.Field)
		s.mu.Lock()
		defer s.mu.Unlock()
		for k, n := range levels {
			switch {
			case n == 0:
			case r.Field == "level":
				counts[record.Level(k).String()] += n
			case v != "":
				counts[v] += n
			}
		}
	})
	return s.summary(), nil
}

// valueBytes of a value tell it from others where values are counted: an answer, and
// what counts it, holds a thousand of them.
const valueBytes = 256

// short is a value as it is counted: a long one is cut, with … in place of the rest.
func short(v string) string {
	if len(v) <= valueBytes {
		return v
	}
	n := valueBytes
	for n > valueBytes-utf8.UTFMax && !utf8.RuneStart(v[n]) {
		n--
	}
	return v[:n] + "…"
}

// countFields counts the values of a field, or the fields when name is empty.
func (l *Line) countFields(name string, counts map[string]int64) {
	fields := AppendLineFields(appendJSONFields(nil, l.Fields), l.Body)
	for i, f := range fields {
		if f.Key == "" || slices.ContainsFunc(fields[:i], func(g pair) bool { return g.Key == f.Key }) {
			continue // the first counts, and what has a name
		}
		if _, label := l.Stream.Label(f.Key); name == "" && !label && f.Key != "level" {
			counts[short(f.Key)]++
		} else if f.Key == name {
			counts[short(f.Value)]++
		}
	}
	if name != "" {
		return
	}
	for _, label := range record.Labels() {
		if v, _ := l.Stream.Label(label); v != "" {
			counts[label]++
		}
	}
	counts["level"]++
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
		out = append(out, ValueCount{shown(v), n})
	}
	slices.SortFunc(out, func(a, b ValueCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Value, b.Value))
	})
	return out[:min(limit, len(out))]
}

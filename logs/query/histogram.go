package query

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"perch/logs/record"
	"perch/logs/store"
)

// Names of a histogram by a field that are no values of it.
const (
	NoValue = "(none)"   // lines without the field
	Others  = "(others)" // values beyond the limit
)

const (
	histogramValues = 10   // named in an answer, the most frequent ones
	histogramKeep   = 1000 // counted apart on each node

	// histogramCells are the values of a node's part, counted in each bucket they are in:
	// up to 30 MB, of which an asker takes 64.
	histogramCells = 100_000
)

// Histogram counts matching lines over time, by level or by r.Field.
func (e *Engine) Histogram(ctx context.Context, r Request) (Histogram, error) {
	r, err := r.Normal()
	if err != nil {
		return Histogram{}, err
	}
	r = r.countable()
	s, end, err := e.begin(ctx, &r)
	if err != nil {
		return Histogram{}, err
	}
	defer end()
	if r.Field != "" && r.Field != "level" {
		return s.histogramBy(), nil
	}
	start, step, n := r.grid()
	counts := make([][record.LevelCount]int64, n)
	s.each(s.pieces(), nil, func(w *worker, p *store.Piece) {
		if w.whole(p) && (p.Min-start)/step == (p.Max-start)/step {
			if levels, ok := p.Levels(); ok {
				s.mu.Lock()
				for k, v := range levels {
					counts[(p.Min-start)/step][k] += int64(v)
				}
				s.mu.Unlock()
				return
			}
		}
		first, last := (max(p.Min, r.From)-start)/step, (min(p.Max, r.To)-start)/step
		own := append(w.counts[:0], make([][record.LevelCount]int64, last-first+1)...)
		w.counts = own
		if first == last {
			own[0] = w.tally(p)
		} else if w.find(p, r.From, r.To); len(w.rows) > 0 {
			times, levels, err := w.times()
			if err != nil {
				w.failed(err)
				return
			}
			var begin, end int64 // of the bucket of the line before
			var bucket *[record.LevelCount]int64
			for _, row := range w.rows {
				if t := times[row]; t < begin || t >= end {
					k := (t - start) / step
					begin, end, bucket = start+k*step, start+(k+1)*step, &own[k-first]
				}
				bucket[levelIndex(levels[row])]++
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range own {
			for k, v := range own[i] {
				counts[first+int64(i)][k] += v
			}
		}
	})
	h := r.emptyHistogram(s.summary())
	for i, c := range counts {
		b := &h.Buckets[i]
		for k, v := range c {
			if v > 0 {
				b.Levels[record.Level(k).String()] = v
				h.Levels[record.Level(k).String()] += v
				b.Count += v
			}
		}
		h.Total += b.Count
	}
	return h, nil
}

func (r *Request) emptyHistogram(sum Summary) Histogram {
	start, step, n := r.grid()
	h := Histogram{From: time.Unix(0, r.From).UTC(), To: time.Unix(0, r.To).UTC(), Step: step / 1e6, Levels: map[string]int64{}, Buckets: make([]Bucket, n), Summary: sum}
	for i := range h.Buckets {
		h.Buckets[i] = Bucket{Time: time.Unix(0, start+int64(i)*step).UTC(), Levels: map[string]int64{}}
	}
	return h
}

// histogramBy counts by the values of any field.
func (s *search) histogramBy() Histogram {
	r := s.r
	start, step, n := r.grid()
	counts := map[string][]int64{}
	s.each(s.pieces(), nil, func(w *worker, p *store.Piece) {
		own := map[string][]int64{}
		at := func(value string) []int64 {
			c := own[value]
			if c == nil {
				c = make([]int64, n)
				own[strings.Clone(value)] = c
			}
			return c
		}
		if w.find(p, r.From, r.To); len(w.rows) == 0 {
			return
		}
		times, _, err := w.times()
		if err == nil {
			err = w.fields(r.Field)
		}
		if err != nil {
			w.failed(err)
			return
		}
		for k, row := range w.rows {
			v, ok := w.field(k, row, r.Field)
			if !ok {
				v = NoValue
			} else if v = short(v); len(own) >= histogramKeep && own[v] == nil {
				v = Others
			}
			at(v)[(times[row]-start)/step]++
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for v, c := range own {
			if _, ok := counts[v]; !ok && len(counts) >= histogramKeep && v != NoValue {
				v = Others
			}
			have := counts[v]
			if have == nil {
				counts[v] = c
				continue
			}
			for i := range c {
				have[i] += c[i]
			}
		}
	})
	h := r.emptyHistogram(s.summary())
	h.By, h.Values = r.Field, map[string]int64{}
	for i := range h.Buckets {
		b := &h.Buckets[i]
		b.Values = map[string]int64{}
		for v, c := range counts {
			if c[i] > 0 {
				b.Values[v] = c[i]
				b.Count += c[i]
				h.Values[v] += c[i]
			}
		}
		h.Total += b.Count
	}
	if r.Raw {
		h.fold(max(histogramValues, histogramCells/n))
	} else {
		h.Fold()
	}
	return h
}

// Fold keeps the most frequent values apart and puts the rest into Others.
func (h *Histogram) Fold() { h.fold(histogramValues) }

func (h *Histogram) fold(most int) {
	if len(h.Values) <= most {
		return
	}
	names := make([]string, 0, len(h.Values))
	for v := range h.Values {
		if v != Others && v != NoValue {
			names = append(names, v)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(h.Values[b], h.Values[a]), cmp.Compare(a, b)) })
	fold := func(m map[string]int64) {
		for _, v := range names[min(most, len(names)):] {
			if n := m[v]; n > 0 {
				m[Others] += n
				delete(m, v)
			}
		}
	}
	fold(h.Values)
	for i := range h.Buckets {
		fold(h.Buckets[i].Values)
	}
}

// Merge adds another part of the same histogram.
func (h *Histogram) Merge(o Histogram) {
	add := func(to *map[string]int64, from map[string]int64) {
		if *to == nil && from != nil {
			*to = map[string]int64{}
		}
		for k, v := range from {
			(*to)[k] += v
		}
	}
	h.Total += o.Total
	add(&h.Levels, o.Levels)
	add(&h.Values, o.Values)
	for i := range min(len(h.Buckets), len(o.Buckets)) {
		h.Buckets[i].Count += o.Buckets[i].Count
		add(&h.Buckets[i].Levels, o.Buckets[i].Levels)
		add(&h.Buckets[i].Values, o.Buckets[i].Values)
	}
	h.Summary.Merge(o.Summary)
}

package query

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"perch/logs/store"
)

const (
	statGroups  = 1000 // told apart on each node; the rest is in Others
	statUniques = 1024 // smallest hashes kept; with fewer values the count is exact, else about 3 % off
	statGrowth  = 1.02 // from one bucket of a quantile to the next: within 1 %
)

// Stat tells of the values of a field in one group of lines.
type Stat struct {
	Group     string             `json:"group,omitempty"` // value of Stats.By
	Count     int64              `json:"count"`           // lines
	Rate      float64            `json:"rate"`            // lines a second over the time asked for
	With      int64              `json:"with"`            // lines that have the field
	Unique    int64              `json:"unique"`          // different values; 1024 and more are an estimate, about 3 % off
	Numbers   int64              `json:"numbers"`         // values that are numbers
	Sum       float64            `json:"sum"`
	Min       float64            `json:"min"`
	Max       float64            `json:"max"`
	Average   float64            `json:"average"`
	Quantiles map[string]float64 `json:"quantiles,omitempty"` // 0.5 0.9 0.95 0.99, within 1 %
	Hashes    []uint64           `json:"hashes,omitempty"`    // for a merge
	Marks     map[int]int64      `json:"marks,omitempty"`     // for a merge: values by size
}

// FieldStats are numbers about a field. Groups are told apart by the first 256 bytes
// of their value.
type FieldStats struct {
	Field  string `json:"field,omitempty"`
	By     string `json:"by,omitempty"`
	Groups []Stat `json:"groups"` // by count
	Other  int64  `json:"other"`  // lines of groups that are not listed
	Summary
}

// mark is the bucket of a number by its size.
func mark(v float64) int {
	if v == 0 {
		return 0
	}
	k := int(math.Round(math.Log(math.Abs(v))/math.Log(statGrowth))) + 1<<17 // above 0 for all floats
	if v < 0 {
		return -k
	}
	return k
}

func markValue(k int) float64 {
	switch {
	case k == 0:
		return 0
	case k < 0:
		return -markValue(-k)
	}
	return math.Pow(statGrowth, float64(k-1<<17))
}

func (s *Stat) add(v string, ok bool) {
	s.Count++
	if !ok {
		return
	}
	s.With++
	s.hash(xxhash.Sum64String(v))
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return
	}
	if s.Numbers == 0 {
		s.Min, s.Max = f, f
	}
	s.Min, s.Max = min(s.Min, f), max(s.Max, f)
	s.Numbers++
	s.Sum = plus(s.Sum, f)
	if s.Marks == nil {
		s.Marks = map[int]int64{}
	}
	s.Marks[mark(f)]++
}

// plus adds up to the largest number there is: JSON has no infinity.
func plus(a, b float64) float64 {
	return min(max(a+b, -math.MaxFloat64), math.MaxFloat64)
}

// hash keeps the smallest hashes, sorted.
func (s *Stat) hash(h uint64) {
	n := len(s.Hashes)
	if n == statUniques && h >= s.Hashes[n-1] {
		return
	}
	i, found := slices.BinarySearch(s.Hashes, h)
	if found {
		return
	}
	if n == statUniques {
		s.Hashes = s.Hashes[:n-1]
	}
	s.Hashes = slices.Insert(s.Hashes, i, h)
}

func (s *Stat) merge(o *Stat) {
	if o.Numbers > 0 {
		if s.Numbers == 0 {
			s.Min, s.Max = o.Min, o.Max
		}
		s.Min, s.Max = min(s.Min, o.Min), max(s.Max, o.Max)
	}
	s.Count, s.With, s.Numbers, s.Sum = s.Count+o.Count, s.With+o.With, s.Numbers+o.Numbers, plus(s.Sum, o.Sum)
	for _, h := range o.Hashes {
		s.hash(h)
	}
	if s.Marks == nil && o.Marks != nil {
		s.Marks = map[int]int64{}
	}
	for k, n := range o.Marks {
		s.Marks[k] += n
	}
}

// finish makes the figures from what was gathered.
func (s *Stat) finish(span time.Duration) {
	s.Rate = float64(s.Count) / max(span.Seconds(), 1e-9)
	s.Unique = int64(len(s.Hashes))
	if len(s.Hashes) == statUniques { // how dense the smallest lie tells how many there are
		s.Unique = int64(float64(statUniques-1) / (float64(s.Hashes[statUniques-1]) / math.MaxUint64))
	}
	if s.Numbers == 0 {
		return
	}
	s.Average = s.Sum / float64(s.Numbers)
	marks := make([]int, 0, len(s.Marks))
	for k := range s.Marks {
		marks = append(marks, k)
	}
	slices.Sort(marks)
	s.Quantiles = map[string]float64{}
	for name, q := range map[string]float64{"0.5": 0.5, "0.9": 0.9, "0.95": 0.95, "0.99": 0.99} {
		rank := int64(math.Ceil(q * float64(s.Numbers)))
		for _, k := range marks {
			if rank -= s.Marks[k]; rank <= 0 {
				s.Quantiles[name] = min(max(markValue(k), s.Min), s.Max)
				break
			}
		}
	}
}

// Stats tells of the values of r.Field in the lines that match, in groups by
// the values of r.By when that is set. Both may be empty.
func (e *Engine) Stats(ctx context.Context, r Request) (FieldStats, error) {
	r, err := r.Normal()
	if err != nil {
		return FieldStats{}, err
	}
	r = r.countable()
	s, end, err := e.begin(ctx, &r)
	if err != nil {
		return FieldStats{}, err
	}
	defer end()
	groups := map[string]*Stat{}
	s.each(s.pieces(), nil, func(w *worker, p *store.Piece) {
		own := map[string]*Stat{}
		if w.find(p, r.From, r.To); len(w.rows) == 0 {
			return
		}
		if err := w.fields(r.Field, r.By); err != nil {
			w.failed(err)
			return
		}
		for k, row := range w.rows {
			group, value, ok := "", "", false
			if r.By != "" {
				if group, ok = w.field(k, row, r.By); !ok {
					group = NoValue
				}
				group = short(group)
			}
			if ok = false; r.Field != "" {
				value, ok = w.field(k, row, r.Field)
			}
			x := own[group]
			if x == nil {
				if len(own) >= statGroups {
					group = Others
				}
				if x = own[group]; x == nil {
					x = &Stat{Group: strings.Clone(group)}
					own[x.Group] = x
				}
			}
			x.add(value, ok)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for g, x := range own {
			if groups[g] == nil && len(groups) >= statGroups {
				g = Others
			}
			if have := groups[g]; have != nil {
				have.merge(x)
			} else {
				x.Group = g
				groups[g] = x
			}
		}
	})
	out := FieldStats{Field: r.Field, By: r.By, Groups: []Stat{}}
	for _, x := range groups {
		out.Groups = append(out.Groups, *x)
	}
	out.Summary = s.summary()
	if !r.Raw {
		out.Finish(r)
	}
	return out, nil
}

// Finish makes the figures of an answer whose parts are merged.
func (f *FieldStats) Finish(r Request) {
	r = r.countable()
	for i := range f.Groups {
		f.Groups[i].finish(time.Duration(r.To - r.From))
		f.Groups[i].Hashes, f.Groups[i].Marks = nil, nil
	}
	slices.SortFunc(f.Groups, func(a, b Stat) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Group, b.Group))
	})
	for i := min(r.Limit, len(f.Groups)); i < len(f.Groups); i++ {
		f.Other += f.Groups[i].Count
	}
	f.Groups = f.Groups[:min(r.Limit, len(f.Groups))]
}

// Merge adds another part, which like f is not finished.
func (f *FieldStats) Merge(o FieldStats) {
	at := map[string]int{}
	for i := range f.Groups {
		at[f.Groups[i].Group] = i
	}
	for i := range o.Groups {
		if k, ok := at[o.Groups[i].Group]; ok {
			f.Groups[k].merge(&o.Groups[i])
		} else {
			f.Groups = append(f.Groups, o.Groups[i])
		}
	}
	f.Summary.Merge(o.Summary)
}

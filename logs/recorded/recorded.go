package recorded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/query"
	"perch/logs/record"
	"perch/logs/store"
)

// File begins the names of all sources under which counts are kept as positions.
const File = "recorded/"

// lanes are batches that may be under way at once. Each has its own part of a
// count, so that the order in which they become durable does not matter, and one
// that fails takes nothing with it.
const lanes = 4

// Config limits what is counted.
type Config struct {
	Rules  int           // in force at most; the oldest objects' first
	Series int           // of all rules
	Idle   time.Duration // a series that finds nothing for so long is let go
}

// Default returns the configuration for a node.
func Default() Config { return Config{Rules: 100, Series: 5000, Idle: 24 * time.Hour} }

// Validate names all problems at once.
func (c Config) Validate() error {
	if c.Rules <= 0 || c.Series <= 0 || c.Idle <= 0 {
		return errors.New("limits of recorded queries must be more than 0")
	}
	return nil
}

// Recorded counts. Make it with New; Set says what.
type Recorded struct {
	cfg   Config
	store *store.Store
	log   *slog.Logger
	m     *metrics
	rules atomic.Pointer[[]*rule]
	free  chan int  // lanes that no batch has
	batch sync.Pool // memory

	setting sync.Mutex // held by Set and forget

	mu    sync.Mutex // guards the series of all rules
	count int        // of series
}

// series is one counter. Its parts by lane are what positions say.
type series struct {
	values []string
	lanes  [lanes]uint64
	last   time.Time // when it found a line
	born   bool      // it was told as 0 once, so that PromQL sees its first line as an increase
}

func (s *series) total() (n uint64) {
	for _, part := range s.lanes {
		n += part
	}
	return n
}

// New counts nothing until Set. The counters are registered nowhere: gather them
// by Collect.
func New(cfg Config, s *store.Store, log *slog.Logger, reg prometheus.Registerer) (*Recorded, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := &Recorded{cfg: cfg, store: s, log: log, m: newMetrics(reg), free: make(chan int, lanes)}
	r.batch.New = func() any { return &batch{hits: map[string]*hit{}, slow: map[*rule]uint64{}} }
	for i := range lanes {
		r.free <- i
	}
	return r, nil
}

// Problem is a rule that is not in force and why.
type Problem struct {
	Rule  Rule
	Error string
}

// Set puts these rules in force, in this order up to the limit, and returns those
// that are not. Rules that are as they were go on counting; what a restart finds
// stored of a rule is where it goes on.
func (r *Recorded) Set(rules []Rule) []Problem {
	r.setting.Lock()
	defer r.setting.Unlock()
	before := map[string]*rule{}
	if have := r.rules.Load(); have != nil {
		for _, x := range *have {
			before[x.file] = x
		}
	}
	var out []*rule
	var problems []Problem
	identities, files := map[string]bool{}, map[string]*rule{}
	for _, want := range rules {
		x, err := newRule(want)
		switch {
		case err == nil && len(out) >= r.cfg.Rules:
			err = fmt.Errorf("%d rules are in force on each node at most", r.cfg.Rules)
		case err == nil && identities[want.identity()]:
			err = errTwice
		}
		if err != nil {
			problems = append(problems, Problem{want, err.Error()})
			continue
		}
		identities[want.identity()] = true
		if have := before[x.file]; have != nil {
			r.mu.Lock()
			have.Limit = want.Limit
			r.mu.Unlock()
			x = have
		}
		files[x.file] = x
		out = append(out, x)
	}
	r.restore(files, before)
	r.rules.Store(&out)
	r.m.rules.Set(float64(len(out)))
	r.m.refused.Set(float64(len(problems)))
	return problems
}

// restore reads what is stored of new rules, and forgets what is stored of those
// that are gone.
func (r *Recorded) restore(files, before map[string]*rule) {
	now := time.Now()
	stored := r.store.Positions()
	slices.SortFunc(stored, func(a, b record.Position) int { return cmp.Compare(a.File, b.File) })
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range stored {
		file, values, ok := strings.Cut(p.File, "\x00")
		if !ok || !strings.HasPrefix(file, File) {
			continue
		}
		x := files[file+"\x00"]
		if x == nil || p.Inode >= lanes {
			r.store.Forget(p.File, p.Inode)
			continue
		}
		if before[file+"\x00"] == x {
			continue // it knows
		}
		s := x.series[values]
		if s == nil {
			s = &series{values: strings.Split(strings.TrimSuffix(values, "\x00"), "\x00"), last: now, born: true}
			if len(x.By) == 0 {
				s.values = nil
			}
			x.series[values] = s
		}
		s.lanes[p.Inode] = uint64(p.Stdout)
	}
	r.count = 0
	for _, x := range files {
		if len(x.By) == 0 && x.series[""] == nil {
			x.series[""] = &series{last: now} // there before its first line
		}
		r.count += len(x.series)
	}
	r.m.series.Set(float64(r.count))
}

// batch is memory for one Append.
type batch struct {
	live query.Live
	may  []*rule // of the stream that is being looked at
	key  []byte
	hits map[string]*hit // by rule's number and values
	used []*hit
	slow map[*rule]uint64 // lines on which an expression would take too long
}

// hit is how often one series was found in a batch.
type hit struct {
	rule   *rule
	values string
	n      uint64
	series *series
	over   bool // there was no room for a series of its own
}

// Append stores records and counts those that rules find. What is not stored counts
// nowhere: it comes again.
func (r *Recorded) Append(ctx context.Context, records []record.Record, positions []record.Position) error {
	rules := r.rules.Load()
	if rules == nil || len(*rules) == 0 {
		return r.store.Append(ctx, records, positions)
	}
	b, _ := r.batch.Get().(*batch)
	defer b.release(&r.batch)
	b.look(*rules, records)
	if len(b.used) == 0 {
		if err := r.store.Append(ctx, records, positions); err != nil {
			return err
		}
		r.tellSlow(b)
		return nil
	}
	var lane int
	select {
	case lane = <-r.free:
		defer func() { r.free <- lane }()
	case <-ctx.Done():
		return ctx.Err()
	}
	positions = append(slices.Clone(positions), r.marks(b, lane)...)
	if err := r.store.Append(ctx, records, positions); err != nil {
		return err
	}
	r.tellSlow(b)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range b.used {
		h.series.lanes[lane] += h.n
		if h.over {
			h.rule.overflow += h.n
		}
	}
	return nil
}

// look finds out which rules find which records.
func (b *batch) look(rules []*rule, records []record.Record) {
	var stream *record.Stream
	for i := range records {
		rec := &records[i]
		if rec.Stream != stream {
			stream = rec.Stream
			b.may = b.may[:0]
			for _, x := range rules {
				if x.mayFind(stream) {
					b.may = append(b.may, x)
				}
			}
		}
		if len(b.may) == 0 {
			continue
		}
		b.live.Look(rec)
		for _, x := range b.may {
			switch is, known := x.query.Finds(&b.live, &x.allowance); {
			case !known:
				b.slow[x]++
			case is:
				b.hit(x)
			}
		}
	}
}

// tellSlow counts the lines that rules had no time for.
func (r *Recorded) tellSlow(b *batch) {
	if len(b.slow) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for x, n := range b.slow {
		if x.slow == 0 {
			r.log.Warn("lines are not counted, an expression takes too long on them", "namespace", x.Namespace, "logrule", x.Object, "record", x.Record)
		}
		x.slow += n
	}
}

func (b *batch) hit(x *rule) {
	b.key = append(b.key[:0], x.file...)
	at := len(b.key)
	for _, by := range x.By {
		v, _ := b.live.Field(by) // none is an empty value
		b.key = append(b.key, value(v)...)
		b.key = append(b.key, 0)
	}
	h := b.hits[string(b.key)]
	if h == nil {
		key := string(b.key)
		h = &hit{rule: x, values: key[at:]}
		b.hits[key] = h
		b.used = append(b.used, h)
	}
	h.n++
}

// value makes a field's value one of a label.
func value(v string) string {
	if len(v) > maxValue {
		v = v[:maxValue]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(v, "\uFFFD"), "\x00", "\uFFFD")
}

func (b *batch) release(to *sync.Pool) {
	clear(b.hits)
	clear(b.used)
	clear(b.slow)
	b.used = b.used[:0]
	to.Put(b)
}

// marks finds or makes the series of what was hit, and returns the positions
// that say their counts once the batch is stored.
func (r *Recorded) marks(b *batch, lane int) []record.Position {
	now := time.Now()
	out := make([]record.Position, 0, len(b.used))
	r.mu.Lock()
	defer r.mu.Unlock()
	at := map[*series]int{}
	for _, h := range b.used {
		h.series = r.seriesOf(h)
		h.series.last = now
		if i, ok := at[h.series]; ok { // several values are beyond the limit
			out[i].Stdout += int64(h.n)
			continue
		}
		at[h.series] = len(out)
		out = append(out, record.Position{File: h.rule.file + h.values, Inode: uint64(lane), Stdout: int64(h.series.lanes[lane] + h.n)})
	}
	return out
}

// seriesOf returns the series of a hit, that of Others if there is no room.
// Called with mu held.
func (r *Recorded) seriesOf(h *hit) *series {
	x := h.rule
	if s := x.series[h.values]; s != nil {
		return s
	}
	others := strings.Repeat(Others+"\x00", len(x.By))
	if len(x.series) >= x.limit()-1 || r.count >= r.cfg.Series {
		h.over = true
		if h.values = others; x.series[others] != nil {
			return x.series[others]
		}
	}
	s := &series{values: strings.Split(strings.TrimSuffix(h.values, "\x00"), "\x00")}
	x.series[h.values] = s
	r.count++
	r.m.series.Set(float64(r.count))
	return s
}

// Run lets go of series that find nothing, until ctx ends.
func (r *Recorded) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			r.forget(now)
		}
	}
}

func (r *Recorded) forget(now time.Time) {
	r.setting.Lock()
	defer r.setting.Unlock()
	rules := r.rules.Load()
	if rules == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range *rules {
		for values, s := range x.series {
			if len(x.By) == 0 || now.Sub(s.last) < r.cfg.Idle {
				continue
			}
			delete(x.series, values)
			r.count--
			for lane := range uint64(lanes) {
				r.store.Forget(x.file+values, lane)
			}
		}
	}
	r.m.series.Set(float64(r.count))
}

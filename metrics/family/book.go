package family

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unique"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
)

// Family is what is known of a metric family.
type Family struct {
	Name string           `json:"name"`
	Type model.MetricType `json:"type"`
	Help string           `json:"help,omitempty"`
	Unit string           `json:"unit,omitempty"`
}

// Everyone is the namespace of families that every caller may see: those that perch
// itself makes.
const Everyone = "*"

// Source is who has a family.
type Source struct {
	Namespace string `json:"namespace,omitempty"` // empty: of none; Everyone
	Job       string `json:"job,omitempty"`
}

// Told is what one source tells.
type Told struct {
	Source
	Families []Family `json:"families"`
}

// Limits of what is kept.
type Limits struct {
	Uses   int           // families, each counted once for each source
	Bytes  int           // of their text
	Forget time.Duration // after which one that is told no more is forgotten
	Share  int           // a namespace has one part of so many of both at most, but Everyone and none; 0: all
}

// DefaultLimits hold some hundred applications: about 10 MiB; 5,000 families and 1 MiB
// of one namespace.
func DefaultLimits() Limits {
	return Limits{Uses: 40_000, Bytes: 8 << 20, Forget: time.Hour, Share: 8}
}

// Longest texts that are kept whole.
const (
	maxName = 512
	maxHelp = 1024
)

// use is one family of one source.
type use struct {
	source Source
	family unique.Handle[Family]
}

// Book is a bounded memory of families.
type Book struct {
	limits  Limits
	refused prometheus.Counter
	greedy  *prometheus.CounterVec // by namespace, of those that have their share

	mu    sync.Mutex // guards what follows
	uses  map[use]time.Time
	of    map[string]part // by namespace
	bytes int
	swept time.Time
}

// part is what one namespace has of a Book.
type part struct{ uses, bytes int }

// NewBook makes an empty one.
func NewBook(limits Limits, reg prometheus.Registerer) (*Book, error) {
	b := &Book{limits: limits, uses: map[use]time.Time{}, of: map[string]part{}, refused: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "perch_family_refused_total", Help: "Types and helps of metric families that were not kept because there are too many."}),
		greedy: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "perch_family_namespace_refused_total", Help: "Those of them whose namespace has as many as it may."}, []string{"offender"})}
	if reg == nil {
		return b, nil
	}
	for _, c := range []prometheus.Collector{b.refused, b.greedy,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "perch_family_families", Help: "Metric families whose type and help are known, counted once for each source."},
			func() float64 { n, _ := b.size(); return float64(n) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "perch_family_bytes", Help: "Text of metric families that is kept."},
			func() float64 { _, n := b.size(); return float64(n) }),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of families: %w", err)
		}
	}
	return b, nil
}

func (b *Book) size() (uses, bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.uses), b.bytes
}

// Learn keeps what sources tell, and says how much of it did not fit.
func (b *Book) Learn(now time.Time, told ...Told) (refused int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range told {
		for _, f := range t.Families {
			if f.Name == "" || len(f.Name) > maxName {
				continue
			}
			u := use{t.Source, unique.Make(f.plain())}
			if _, known := b.uses[u]; !known {
				if !b.room(u, now) {
					refused++
					continue
				}
				b.add(u, 1)
			}
			b.uses[u] = now
		}
	}
	b.refused.Add(float64(refused))
	return refused
}

// room answers whether one more fits, and makes room if what is old leaves some.
func (b *Book) room(u use, now time.Time) bool {
	within, whole := b.fits(u)
	if !(within && whole) && now.Sub(b.swept) > time.Minute {
		b.sweep(now)
		within, whole = b.fits(u)
	}
	if !within {
		b.greedy.WithLabelValues(counted(u.source.Namespace)).Inc()
	}
	return within && whole
}

// counted is a namespace as a metric names it, which has to be text: what OTLP brings
// need not be.
func counted(namespace string) string { return strings.ToValidUTF8(namespace, "\uFFFD") }

// fits answers whether one more fits within what its namespace may have, and into the
// whole.
func (b *Book) fits(u use) (within, whole bool) {
	whole = len(b.uses) < b.limits.Uses && b.bytes+u.size() <= b.limits.Bytes
	namespace, share := u.source.Namespace, b.limits.Share
	if namespace == "" || namespace == Everyone || share == 0 {
		return true, whole
	}
	have := b.of[namespace]
	return have.uses < b.limits.Uses/share && have.bytes+u.size() <= b.limits.Bytes/share, whole
}

// add counts one more, or by -1 one less.
func (b *Book) add(u use, n int) {
	b.bytes += n * u.size()
	have := b.of[u.source.Namespace]
	if have.uses += n; have.uses == 0 {
		delete(b.of, u.source.Namespace)
		return
	}
	have.bytes += n * u.size()
	b.of[u.source.Namespace] = have
}

// sweep forgets what is told no more, and who is counted by name and has not half of
// its share.
func (b *Book) sweep(now time.Time) {
	b.swept = now
	for u, at := range b.uses {
		if now.Sub(at) <= b.limits.Forget {
			continue
		}
		delete(b.uses, u)
		b.add(u, -1)
		if have, share := b.of[u.source.Namespace], 2*b.limits.Share; have.uses*share < b.limits.Uses && have.bytes*share < b.limits.Bytes {
			b.greedy.DeleteLabelValues(counted(u.source.Namespace))
		}
	}
}

func (u use) size() int {
	f := u.family.Value()
	return len(f.Name) + len(f.Help) + len(f.Unit) + len(u.source.Namespace) + len(u.source.Job)
}

// plain is the family as it is kept.
func (f Family) plain() Family {
	switch f.Type {
	case model.MetricTypeCounter, model.MetricTypeGauge, model.MetricTypeHistogram, model.MetricTypeGaugeHistogram,
		model.MetricTypeSummary, model.MetricTypeInfo, model.MetricTypeStateset:
	default:
		f.Type = model.MetricTypeUnknown
	}
	f.Name, f.Help, f.Unit = strings.Clone(f.Name), strings.ToValidUTF8(strings.Clone(f.Help[:min(len(f.Help), maxHelp)]), ""), strings.Clone(f.Unit[:min(len(f.Unit), maxName)])
	return f
}

// List is what is known of the sources that a caller may see, by source; the
// families of one by name. An empty name means all.
func (b *Book) List(now time.Time, name string, visible func(namespace string) bool) []Told {
	b.mu.Lock()
	b.sweep(now)
	by := map[Source][]Family{}
	for u := range b.uses {
		if f := u.family.Value(); (name == "" || f.Name == name) && (u.source.Namespace == Everyone || visible(u.source.Namespace)) {
			by[u.source] = append(by[u.source], f)
		}
	}
	b.mu.Unlock()
	out := make([]Told, 0, len(by))
	for _, s := range slices.SortedFunc(maps.Keys(by), func(x, y Source) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Job, y.Job))
	}) {
		list := by[s]
		slices.SortFunc(list, func(x, y Family) int {
			return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Type, y.Type), cmp.Compare(x.Help, y.Help), cmp.Compare(x.Unit, y.Unit))
		})
		out = append(out, Told{s, list})
	}
	return out
}

// All is what is known now, whoever may see it.
func (b *Book) All() []Told {
	return b.List(time.Now(), "", func(string) bool { return true })
}

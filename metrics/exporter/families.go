package exporter

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"perch/metrics/family"
)

// Families tell type and help of what Samples makes. It looks at some objects of
// each kind at each call, other ones each time, so that families that few objects
// have are found as well, and remembers what it found. For one goroutine, which may
// be another one than that of Samples.
type Families struct {
	of *Objects

	mu    sync.Mutex // guards what follows
	round int
	found map[string]family.Family
}

// Families is for metrics/scrape's Local.
func (o *Objects) Families() *Families {
	return &Families{of: o, found: map[string]family.Family{}}
}

// looked is how many objects of a kind are looked at in one call.
const looked = 200

// List are the families found by now, by name.
func (f *Families) List() []family.Family {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &sender{func(t prometheus.ValueType, name, help string, _ float64, _ time.Time, _ []string) {
		if _, known := f.found[name]; known {
			return
		}
		kind := model.MetricTypeGauge
		switch t {
		case prometheus.CounterValue:
			kind = model.MetricTypeCounter
		case prometheus.UntypedValue:
			kind = model.MetricTypeUnknown
		}
		f.found[name] = family.Family{Name: name, Type: kind, Help: help}
	}}
	for _, k := range f.of.kinds {
		n := 0
		k.each(func(metav1.Object) { n++ })
		step, i := max(1, n/looked), 0
		k.each(func(x metav1.Object) {
			if (i+f.round)%step == 0 {
				k.write(s, x)
			}
			i++
		})
	}
	f.round++
	out := make([]family.Family, 0, len(f.found))
	for _, x := range f.found {
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b family.Family) int { return strings.Compare(a.Name, b.Name) })
	return out
}

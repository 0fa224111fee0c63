package scrape

import (
	"cmp"
	"maps"
	"slices"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"perch/metrics/family"
)

// Families are type, help and unit of what this node scrapes and makes, sorted.
// Everyone may see those of perch's own parts.
func (l *Loop) Families() []family.Told {
	by := map[family.Source]map[family.Family]bool{}
	add := func(s family.Source, f family.Family) {
		if by[s] == nil {
			by[s] = map[family.Family]bool{}
		}
		by[s][f] = true
	}
	own := map[string]bool{}
	for _, o := range l.cfg.Own {
		own[o.Name] = true
	}
	for pool, list := range l.manager.TargetsActive() {
		for _, t := range list {
			of := t.Labels(labels.NewBuilder(labels.EmptyLabels()))
			s := family.Source{Namespace: of.Get("namespace"), Job: of.Get("job")}
			if own[pool] {
				s.Namespace = family.Everyone
			}
			for _, m := range t.ListMetadata() {
				add(s, family.Family{Name: m.MetricFamily, Type: m.Type, Help: m.Help, Unit: m.Unit})
			}
		}
	}
	for i := range l.cfg.Local {
		from := &l.cfg.Local[i]
		list := l.made[i].Load()
		if list == nil && from.Families != nil {
			told := from.Families()
			list = &told
		}
		if list == nil {
			continue // not gathered yet
		}
		for _, f := range *list {
			add(family.Source{Namespace: family.Everyone, Job: from.Labels["job"]}, f)
		}
	}
	out := make([]family.Told, 0, len(by))
	for s, set := range by {
		out = append(out, family.Told{Source: s, Families: slices.SortedFunc(maps.Keys(set), func(a, b family.Family) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Help, b.Help), cmp.Compare(a.Unit, b.Unit))
		})})
	}
	slices.SortFunc(out, func(a, b family.Told) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Job, b.Job))
	})
	return out
}

// gathered remembers the families of a local registry, when there are others.
func (l *Loop) gathered(i int, families []*dto.MetricFamily) {
	if had := l.made[i].Load(); had != nil && len(*had) == len(families) || len(families) == 0 {
		return
	}
	list := make([]family.Family, 0, len(families))
	for _, f := range families {
		list = append(list, family.Family{Name: f.GetName(), Type: typeOf(f.GetType()), Help: f.GetHelp(), Unit: f.GetUnit()})
	}
	l.made[i].Store(&list)
}

func typeOf(t dto.MetricType) model.MetricType {
	switch t {
	case dto.MetricType_COUNTER:
		return model.MetricTypeCounter
	case dto.MetricType_GAUGE:
		return model.MetricTypeGauge
	case dto.MetricType_SUMMARY:
		return model.MetricTypeSummary
	case dto.MetricType_HISTOGRAM:
		return model.MetricTypeHistogram
	case dto.MetricType_GAUGE_HISTOGRAM:
		return model.MetricTypeGaugeHistogram
	}
	return model.MetricTypeUnknown
}

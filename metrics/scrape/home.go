package scrape

import (
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/scrape"
)

const namespaceLabel = "namespace"

// home says of which namespaces the series of a target may be: who may write
// objects into one namespace must not make series of others with them, by
// honorLabels, by relabeling, or by what a pod answers.
type home struct {
	of      string // that of the target; empty: any
	objects string // that of the object that asks
}

// homeOf knows targets that no object asks for, and those of namespaces that are
// wide: theirs may be of any.
func homeOf(t *scrape.Target, wide func(namespace string) bool) home {
	part := strings.SplitN(t.GetValue(fromLabel), "/", 3)
	if len(part) < 3 {
		return home{}
	}
	h := home{of: t.GetValue(homeLabel), objects: part[1]}
	if h.of == "" { // of a server of an older version
		h.of = t.Labels(labels.NewBuilder(labels.EmptyLabels())).Get(namespaceLabel)
	}
	if h.of == "" {
		h.of = h.objects
	}
	if wide != nil && wide(h.objects) {
		return home{}
	}
	return h
}

// place is a series' labels with a namespace that the target may have.
func (a *gated) place(ls labels.Labels) labels.Labels {
	if a.home.of == "" {
		return ls
	}
	said := ls.Get(namespaceLabel)
	if said == "" || said == a.home.of || said == a.home.objects {
		return ls
	}
	a.foreign++
	a.said = strings.Clone(said)
	b := labels.NewBuilder(ls).Set(namespaceLabel, a.home.of)
	kept := "exported_" + namespaceLabel
	for ls.Has(kept) {
		kept = "exported_" + kept
	}
	return b.Set(kept, said).Labels()
}

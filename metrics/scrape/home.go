package scrape

import (
	"cmp"
	"fmt"
	"maps"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/scrape"

	"perch/metrics/target"
)

const namespaceLabel = "namespace"

// homeOf is the one namespace of which the series of a target may be: who may write
// objects into one namespace must not make series of others with them, by
// honorLabels, by relabeling, or by what a pod answers; nor make those of others'
// pods its own. Empty: any, for targets that no object asks for, and those of
// namespaces that are wide.
func homeOf(t *scrape.Target, wide func(namespace string) bool) string {
	objects, ok := objectsOf(t.GetValue(fromLabel))
	if !ok || wide != nil && wide(objects) {
		return ""
	}
	return cmp.Or(t.GetValue(homeLabel),
		t.Labels(labels.NewBuilder(labels.EmptyLabels())).Get(namespaceLabel), // of a server of an older version
		objects)
}

// objectsOf is the namespace of the object that asks, KIND/NAMESPACE/NAME.
func objectsOf(from string) (string, bool) {
	part := strings.SplitN(from, "/", 3)
	if len(part) < 3 {
		return "", false
	}
	return part[1], true
}

// kept is a target of an object without what the object may not say of one in
// another namespace, whether it is scraped at all, and what there is to tell.
func (l *Loop) kept(t target.Target) (target.Target, bool, []target.Dropped) {
	objects, ok := objectsOf(t.From)
	if !ok || l.parts.Wide != nil && l.parts.Wide(objects) {
		return t, true, nil
	}
	const who = "objects in kube-system and in namespaces with the label perch.io/rules=cluster may say so"
	if t.Found != "" && t.Found != objects {
		return t, false, []target.Dropped{{From: t.From, Reason: fmt.Sprintf("%s is not the address of what was found in namespace %q, whose labels it would have; %s", t.Address, t.Found, who)}}
	}
	said := t.Labels[namespaceLabel]
	if t.Namespace == "" || t.Namespace == objects || said == "" || said == t.Namespace {
		return t, true, nil // of its own, see place
	}
	t.Labels = maps.Clone(t.Labels)
	t.Labels[namespaceLabel], t.Labels["exported_"+namespaceLabel] = t.Namespace, said
	return t, true, []target.Dropped{{From: t.From, Partly: true, Reason: fmt.Sprintf("targets that were found in namespace %q stay there, though relabelings say %q; %s", t.Namespace, said, who)}}
}

// reserved answers whether a series is one that only rules write: alerts are what it
// says after a restart.
func reserved(ls labels.Labels) bool {
	name := ls.Get(labels.MetricName)
	return name == "ALERTS" || name == "ALERTS_FOR_STATE"
}

// place is a series' labels with the namespace that the target may have. One
// without a namespace is what perch says of the cluster, and gets it too.
func (a *gated) place(ls labels.Labels) labels.Labels {
	said := ls.Get(namespaceLabel)
	if a.home == "" || said == a.home {
		return ls
	}
	if said == "" {
		return labels.NewBuilder(ls).Set(namespaceLabel, a.home).Labels()
	}
	a.foreign++
	a.said = strings.Clone(said)
	b := labels.NewBuilder(ls).Set(namespaceLabel, a.home)
	kept := "exported_" + namespaceLabel
	for ls.Has(kept) {
		kept = "exported_" + kept
	}
	return b.Set(kept, said).Labels()
}

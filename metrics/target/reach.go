package target

import "slices"

// Reach tells which namespaces other than its own an object looks for targets in: all,
// or these, sorted. What it names by address it does not look for.
func (o Object) Reach() (all bool, names []string) {
	switch {
	case o.monitor != nil:
		all, names = o.monitor.NamespaceSelector.Any, o.monitor.NamespaceSelector.MatchNames
	case o.config != nil:
		for _, d := range o.config.KubernetesSDConfigs {
			if where, follows := d.where(o.Namespace); follows {
				all, names = all || where.Any, append(names[:len(names):len(names)], where.MatchNames...)
			}
		}
	}
	if all {
		return true, nil
	}
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == o.Namespace })
	slices.Sort(names)
	return false, slices.Compact(names)
}

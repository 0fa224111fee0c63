package scheduler

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// domain is one value of one topology key: a node, a zone.
type domain struct{ key, value string }

// affinityState counts, by domain, the pods that matter for a pod's own affinity
// and for the anti-affinity others have against it.
type affinityState struct {
	near, apart   []podTerm
	nearCount     map[domain]int // pods that match all of near
	apartCount    []map[domain]int
	unwelcome     map[domain]bool // an existing pod there keeps this one away
	nearAnywhere  bool
	satisfiesSelf bool
}

// podTerm is a PodAffinityTerm made ready to match.
type podTerm struct {
	key        string
	selector   labels.Selector
	namespaces []string
	nsSelector labels.Selector
}

func (t podTerm) matches(pod *corev1.Pod, namespaces map[string]labels.Set) bool {
	inNamespace := slices.Contains(t.namespaces, pod.Namespace) || t.nsSelector.Matches(namespaces[pod.Namespace])
	return inNamespace && t.selector.Matches(labels.Set(pod.Labels))
}

func termOf(owner *corev1.Pod, term corev1.PodAffinityTerm) podTerm {
	out := podTerm{key: term.TopologyKey, selector: selectorOr(term.LabelSelector, labels.Nothing()), namespaces: term.Namespaces, nsSelector: labels.Nothing()}
	out.selector = withKeys(out.selector, owner, term.MatchLabelKeys, selection.In)
	out.selector = withKeys(out.selector, owner, term.MismatchLabelKeys, selection.NotIn)
	if term.NamespaceSelector != nil {
		out.nsSelector = selectorOr(term.NamespaceSelector, labels.Nothing())
	} else if len(term.Namespaces) == 0 {
		out.namespaces = []string{owner.Namespace}
	}
	return out
}

// withKeys narrows a selector by the owner's own values of some labels.
func withKeys(s labels.Selector, owner *corev1.Pod, keys []string, op selection.Operator) labels.Selector {
	for _, key := range keys {
		value, ok := owner.Labels[key]
		if !ok {
			continue
		}
		if r, err := labels.NewRequirement(key, op, []string{value}); err == nil {
			s = s.Add(*r)
		}
	}
	return s
}

func selectorOr(s *metav1.LabelSelector, otherwise labels.Selector) labels.Selector {
	if s == nil {
		return otherwise
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return otherwise // validation refuses such selectors
	}
	return selector
}

func termsOf(pod *corev1.Pod) (near, apart []podTerm) {
	a := pod.Spec.Affinity
	if a != nil && a.PodAffinity != nil {
		for _, term := range a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
			near = append(near, termOf(pod, term))
		}
	}
	if a != nil && a.PodAntiAffinity != nil {
		for _, term := range a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
			apart = append(apart, termOf(pod, term))
		}
	}
	return near, apart
}

func newAffinityState(pod *corev1.Pod, snapshot Snapshot) affinityState {
	s := affinityState{nearCount: map[domain]int{}, unwelcome: map[domain]bool{}}
	s.near, s.apart = termsOf(pod)
	s.apartCount = make([]map[domain]int, len(s.apart))
	for i := range s.apartCount {
		s.apartCount[i] = map[domain]int{}
	}
	s.satisfiesSelf = matchesAll(s.near, pod, snapshot.Namespaces)
	for _, node := range snapshot.Nodes {
		for _, other := range node.Pods {
			s.count(pod, other, node.Object, snapshot.Namespaces)
		}
	}
	return s
}

func (s *affinityState) count(pod, other *corev1.Pod, node *corev1.Node, namespaces map[string]labels.Set) {
	if len(s.near) > 0 && matchesAll(s.near, other, namespaces) {
		s.nearAnywhere = true
		for _, term := range s.near {
			if value, ok := node.Labels[term.key]; ok {
				s.nearCount[domain{term.key, value}]++
			}
		}
	}
	for i, term := range s.apart {
		if value, ok := node.Labels[term.key]; ok && term.matches(other, namespaces) {
			s.apartCount[i][domain{term.key, value}]++
		}
	}
	if other.Spec.Affinity == nil || other.Spec.Affinity.PodAntiAffinity == nil {
		return
	}
	_, theirs := termsOf(other)
	for _, term := range theirs {
		if value, ok := node.Labels[term.key]; ok && term.matches(pod, namespaces) {
			s.unwelcome[domain{term.key, value}] = true
		}
	}
}

func matchesAll(terms []podTerm, pod *corev1.Pod, namespaces map[string]labels.Set) bool {
	for _, term := range terms {
		if !term.matches(pod, namespaces) {
			return false
		}
	}
	return true
}

// filter refuses nodes in domains the pod must not share, or that lack the company it needs.
func (s *affinityState) filter(node *Node) []string {
	for _, term := range s.near {
		value, ok := node.Object.Labels[term.key]
		// The first pod of a group that wants to be together may start anywhere.
		first := !s.nearAnywhere && s.satisfiesSelf
		if !ok || (s.nearCount[domain{term.key, value}] == 0 && !first) {
			return []string{"node(s) didn't match pod affinity rules"}
		}
	}
	for i, term := range s.apart {
		if value, ok := node.Object.Labels[term.key]; ok && s.apartCount[i][domain{term.key, value}] > 0 {
			return []string{"node(s) didn't match pod anti-affinity rules"}
		}
	}
	for d := range s.unwelcome {
		if node.Object.Labels[d.key] == d.value {
			return []string{"node(s) didn't satisfy existing pods anti-affinity rules"}
		}
	}
	return nil
}

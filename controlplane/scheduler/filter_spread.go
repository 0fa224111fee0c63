package scheduler

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// spreadState is one topologySpreadConstraint with the pods counted per domain.
type spreadState struct {
	key      string
	maxSkew  int
	hard     bool
	least    int // the smallest count of any domain
	self     int // 1 when the pod counts towards its own constraint
	selector labels.Selector
	count    map[string]int
}

func newSpreadStates(pod *corev1.Pod, snapshot Snapshot, required func(*corev1.Node) bool) []spreadState {
	constraints := pod.Spec.TopologySpreadConstraints
	var out []spreadState
	for i := range constraints {
		c := &constraints[i]
		s := spreadState{key: c.TopologyKey, maxSkew: int(c.MaxSkew), hard: c.WhenUnsatisfiable != corev1.ScheduleAnyway, count: map[string]int{}}
		s.selector = withKeys(selectorOr(c.LabelSelector, labels.Nothing()), pod, c.MatchLabelKeys, selection.In)
		if s.selector.Matches(labels.Set(pod.Labels)) {
			s.self = 1
		}
		for _, node := range snapshot.Nodes {
			value, ok := node.Object.Labels[c.TopologyKey]
			if !ok || !hasAllKeys(node.Object, constraints, c.WhenUnsatisfiable) || !counts(c, pod, node.Object, required) {
				continue
			}
			s.count[value] += matching(s.selector, pod.Namespace, node.Pods)
		}
		s.least = leastOf(s.count)
		if c.MinDomains != nil && len(s.count) < int(*c.MinDomains) {
			s.least = 0
		}
		out = append(out, s)
	}
	return out
}

// counts answers whether a node's domain takes part, by the constraint's policies.
func counts(c *corev1.TopologySpreadConstraint, pod *corev1.Pod, node *corev1.Node, required func(*corev1.Node) bool) bool {
	honorAffinity := c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor
	if honorAffinity && !required(node) {
		return false
	}
	if c.NodeTaintsPolicy == nil || *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyIgnore {
		return true
	}
	return len(filterTaints(pod)(&Node{Object: node})) == 0
}

func hasAllKeys(node *corev1.Node, constraints []corev1.TopologySpreadConstraint, kind corev1.UnsatisfiableConstraintAction) bool {
	for _, c := range constraints {
		if _, ok := node.Labels[c.TopologyKey]; !ok && c.WhenUnsatisfiable == kind {
			return false
		}
	}
	return true
}

func matching(selector labels.Selector, namespace string, pods []*corev1.Pod) int {
	n := 0
	for _, pod := range pods {
		if pod.Namespace == namespace && pod.DeletionTimestamp == nil && selector.Matches(labels.Set(pod.Labels)) {
			n++
		}
	}
	return n
}

func leastOf(count map[string]int) int {
	least := -1
	for _, n := range count {
		if least < 0 || n < least {
			least = n
		}
	}
	return max(least, 0)
}

// filterSpread refuses nodes whose domain would get too far ahead of the others.
func filterSpread(_ *corev1.Pod, states []spreadState) filter {
	return func(node *Node) []string {
		for i := range states {
			s := &states[i]
			if !s.hard {
				continue
			}
			value, ok := node.Object.Labels[s.key]
			if !ok {
				return []string{"node(s) didn't match pod topology spread constraints (missing required label)"}
			}
			if s.count[value]+s.self-s.least > s.maxSkew {
				return []string{"node(s) didn't match pod topology spread constraints"}
			}
		}
		return nil
	}
}

package scheduler

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

type scored struct {
	node  *Node
	score int64
}

const top = 100 // of each single score

// score ranks nodes that fit. The weights are those of Kubernetes' default profile.
func (t *task) score(nodes []*Node) []scored {
	out := make([]scored, len(nodes))
	for i, node := range nodes {
		out[i] = scored{node, t.roomy(node) + t.balanced(node)}
	}
	add := func(weight int64, raw []float64, best bound) {
		for i, s := range normal(raw, best) {
			out[i].score += weight * s
		}
	}
	add(2, each(nodes, t.preferredNodes()), highest)
	add(3, each(nodes, t.softTaints), lowest)
	add(2, each(nodes, t.preferredCompany()), highest)
	add(2, each(nodes, t.softSpread), lowest)
	add(2, each(nodes, t.siblings), lowest)
	return out
}

type bound int

const (
	highest bound = iota // the highest raw value is the best
	lowest
)

func each(nodes []*Node, f func(*Node) float64) []float64 {
	out := make([]float64, len(nodes))
	for i, node := range nodes {
		out[i] = f(node)
	}
	return out
}

// normal maps raw values to 0…100; equal values say nothing and give 0.
func normal(raw []float64, best bound) []int64 {
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range raw {
		low, high = min(low, v), max(high, v)
	}
	out := make([]int64, len(raw))
	if high == low {
		return out
	}
	for i, v := range raw {
		share := (v - low) / (high - low)
		if best == lowest {
			share = 1 - share
		}
		out[i] = int64(share * top)
	}
	return out
}

// fractions returns the shares of cpu and memory that would be requested on the node.
func (t *task) fractions(node *Node) (cpu, memory float64) {
	have, want := allocatable(node.Object), scoredRequests(t.pod)
	share := func(name corev1.ResourceName) float64 {
		if have[name] <= 0 {
			return 1
		}
		return min(1, float64(node.Scored[name]+want[name])/float64(have[name]))
	}
	return share(corev1.ResourceCPU), share(corev1.ResourceMemory)
}

func (t *task) roomy(node *Node) int64 {
	cpu, memory := t.fractions(node)
	return int64(top * (2 - cpu - memory) / 2)
}

func (t *task) balanced(node *Node) int64 {
	cpu, memory := t.fractions(node)
	return int64(top * (1 - math.Abs(cpu-memory)/2))
}

func (t *task) preferredNodes() func(*Node) float64 {
	a := t.pod.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || len(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) == 0 {
		return func(*Node) float64 { return 0 }
	}
	terms, err := nodeaffinity.NewPreferredSchedulingTerms(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	if err != nil {
		return func(*Node) float64 { return 0 } // a preference that cannot be read prefers nothing
	}
	return func(node *Node) float64 { return float64(terms.Score(node.Object)) }
}

func (t *task) softTaints(node *Node) float64 {
	n := 0
	for _, taint := range node.Object.Spec.Taints {
		if taint.Effect == corev1.TaintEffectPreferNoSchedule && !tolerates(t.pod, &taint) {
			n++
		}
	}
	return float64(n)
}

// preferredCompany sums the weights of preferred affinity towards pods in each domain.
func (t *task) preferredCompany() func(*Node) float64 {
	a := t.pod.Spec.Affinity
	sums := map[domain]float64{}
	weigh := func(terms []corev1.WeightedPodAffinityTerm, sign float64) {
		for _, w := range terms {
			term := termOf(t.pod, w.PodAffinityTerm)
			for _, node := range t.snapshot.Nodes {
				value, ok := node.Object.Labels[term.key]
				if !ok {
					continue
				}
				for _, other := range node.Pods {
					if term.matches(other, t.snapshot.Namespaces) {
						sums[domain{term.key, value}] += sign * float64(w.Weight)
					}
				}
			}
		}
	}
	if a != nil && a.PodAffinity != nil {
		weigh(a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution, 1)
	}
	if a != nil && a.PodAntiAffinity != nil {
		weigh(a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution, -1)
	}
	return func(node *Node) float64 {
		var sum float64
		for d, s := range sums {
			if value, ok := node.Object.Labels[d.key]; ok && value == d.value {
				sum += s
			}
		}
		return sum
	}
}

func (t *task) softSpread(node *Node) float64 {
	var sum float64
	for i := range t.spread {
		s := &t.spread[i]
		if s.hard {
			continue
		}
		if value, ok := node.Object.Labels[s.key]; ok {
			sum += float64(s.count[value])
		} else {
			sum += 1000 // nodes outside the topology come last
		}
	}
	return sum
}

// siblings counts the pods of the same owner on the node and, lighter, in its zone.
func (t *task) siblings(node *Node) float64 {
	owner := ownerOf(t.pod)
	if owner == "" {
		return 0
	}
	zone := node.Object.Labels[corev1.LabelTopologyZone]
	var sum float64
	for _, other := range t.snapshot.Nodes {
		weight := 0.0
		if other == node {
			weight++
		}
		if zone != "" && other.Object.Labels[corev1.LabelTopologyZone] == zone {
			weight += 0.5
		}
		if weight == 0 {
			continue
		}
		for _, pod := range other.Pods {
			if ownerOf(pod) == owner && pod.DeletionTimestamp == nil {
				sum += weight
			}
		}
	}
	return sum
}

func ownerOf(pod *corev1.Pod) types.UID {
	if ref := metav1.GetControllerOf(pod); ref != nil {
		return ref.UID
	}
	return ""
}

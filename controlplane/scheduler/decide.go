package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
)

// Snapshot is what a decision is made from. It is read only.
type Snapshot struct {
	Nodes      []*Node // by name
	Namespaces map[string]labels.Set
	Claims     func(namespace, name string) *corev1.PersistentVolumeClaim // nil when absent
	Volumes    func(name string) *corev1.PersistentVolume
}

// Node is a node with the pods that are bound or assumed to be on it.
type Node struct {
	Object *corev1.Node
	Pods   []*corev1.Pod
	Used   Amounts // requests of Pods
	Scored Amounts // the same, with a little for containers that ask for nothing
}

// Decision is the node for a pod, or why there is none.
type Decision struct {
	Node    string
	Score   int64
	Fitting int // nodes that passed all filters
	Nodes   int
	Refused map[string]int // reason → nodes
	Blocked string         // a reason that holds for every node
	Detail  string         // the numbers behind a refusal for want of resources
}

// Decide picks the best node for pod. It is a function of its arguments only.
func Decide(pod *corev1.Pod, snapshot Snapshot) Decision {
	d := Decision{Nodes: len(snapshot.Nodes), Refused: map[string]int{}}
	if d.Blocked = claimsUnmet(pod, snapshot); d.Blocked != "" {
		return d
	}
	task := newTask(pod, snapshot)
	var fitting []*Node
	for _, node := range snapshot.Nodes {
		reasons := task.refuse(node)
		for _, reason := range reasons {
			d.Refused[reason]++
		}
		if len(reasons) == 0 {
			fitting = append(fitting, node)
		}
	}
	d.Fitting = len(fitting)
	if len(fitting) == 0 {
		d.Detail = shortage(task, snapshot.Nodes)
		return d
	}
	best := slices.MaxFunc(task.score(fitting), func(a, b scored) int {
		return cmp.Or(cmp.Compare(a.score, b.score), cmp.Compare(b.node.Object.Name, a.node.Object.Name))
	})
	d.Node, d.Score = best.node.Object.Name, best.score
	return d
}

// Explain words a decision without a node: "0/3 nodes are available: 2 Insufficient cpu, 1 node(s) …".
func (d Decision) Explain() string {
	head := fmt.Sprintf("0/%d nodes are available: ", d.Nodes)
	switch {
	case d.Blocked != "":
		return head + d.Blocked + "."
	case d.Nodes == 0:
		return head + "no node has joined the cluster."
	}
	reasons := sortedReasons(d.Refused)
	text := make([]string, 0, len(reasons))
	for _, reason := range reasons {
		text = append(text, fmt.Sprintf("%d %s", d.Refused[reason], reason))
	}
	out := head + strings.Join(text, ", ") + "."
	if d.Detail != "" {
		out += " " + d.Detail
	}
	return out
}

func sortedReasons(refused map[string]int) []string {
	reasons := make([]string, 0, len(refused))
	for reason := range refused {
		reasons = append(reasons, reason)
	}
	slices.SortFunc(reasons, func(a, b string) int {
		return cmp.Or(cmp.Compare(refused[b], refused[a]), cmp.Compare(a, b))
	})
	return reasons
}

// task is one pod with everything the filters derive from it once.
type task struct {
	pod      *corev1.Pod
	want     Amounts
	snapshot Snapshot
	filters  []filter
	affinity affinityState
	spread   []spreadState
}

// filter answers why a node is out, or nothing.
type filter func(node *Node) []string

func newTask(pod *corev1.Pod, snapshot Snapshot) *task {
	t := &task{pod: pod, want: Requests(pod), snapshot: snapshot}
	required := requiredNodes(pod)
	t.affinity = newAffinityState(pod, snapshot)
	t.spread = newSpreadStates(pod, snapshot, required)
	t.filters = []filter{
		filterUnschedulable(pod),
		filterTaints(pod),
		filterNodes(required),
		filterPorts(pod),
		filterFit(t.want),
		filterVolumes(pod, snapshot),
		filterSpread(pod, t.spread),
		t.affinity.filter,
	}
	return t
}

// refuse returns the reasons of the first filter that says no.
func (t *task) refuse(node *Node) []string {
	for _, f := range t.filters {
		if reasons := f(node); len(reasons) > 0 {
			return reasons
		}
	}
	return nil
}

// shortage tells the numbers of the scarcest resource: what is asked and what the freest node has.
func shortage(t *task, nodes []*Node) string {
	for _, name := range sortedNames(t.want) {
		best, found := int64(0), ""
		fits := false
		for _, node := range nodes {
			free := allocatable(node.Object)[name] - node.Used[name]
			fits = fits || free >= t.want[name]
			if found == "" || free > best {
				best, found = free, node.Object.Name
			}
		}
		if found != "" && !fits && t.want[name] > 0 {
			return fmt.Sprintf("The pod requests %s %s; the most that is free is %s on node %s.", name, format(name, t.want[name]), format(name, best), found)
		}
	}
	return ""
}

func format(name corev1.ResourceName, amount int64) string {
	switch name {
	case corev1.ResourceCPU:
		return resource.NewMilliQuantity(amount, resource.DecimalSI).String()
	case corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
		return resource.NewQuantity(amount, resource.BinarySI).String()
	}
	return fmt.Sprint(amount)
}

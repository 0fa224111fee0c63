package nodelife

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Sight is a node as it is known at one moment.
type Sight struct {
	Node      *corev1.Node
	Heartbeat time.Time // when its last heartbeat was seen here
}

// Verdict is what the conditions and taints of a node should be.
type Verdict struct {
	Node       *corev1.Node
	Silent     bool
	Conditions []corev1.NodeCondition // to write, because the node does not speak for itself
	Taints     []corev1.Taint         // the whole list
	Retaint    bool                   // Taints differ from what the node has
	Reason     string
}

// Decide judges all nodes together: when all of them are silent, none is given
// up (no NoExecute taint), because then the watcher is blind, not the watched.
func Decide(now time.Time, nodes []Sight, grace time.Duration) (verdicts []Verdict, blind bool) {
	silent := 0
	for _, s := range nodes {
		if now.Sub(s.Heartbeat) > grace {
			silent++
		}
	}
	blind = silent > 0 && silent == len(nodes)
	for _, s := range nodes {
		v := Verdict{Node: s.Node, Silent: now.Sub(s.Heartbeat) > grace}
		ready := conditionOf(s.Node, corev1.NodeReady)
		status := corev1.ConditionUnknown
		if ready != nil {
			status = ready.Status
		}
		if v.Silent {
			v.Reason = fmt.Sprintf("no heartbeat for %s, longer than %s", now.Sub(s.Heartbeat).Round(time.Second), grace)
			v.Conditions = unknown(now, s.Node, v.Reason)
			status = corev1.ConditionUnknown
		}
		v.Taints = wantTaints(now, s.Node, status, blind)
		v.Retaint = !slices.EqualFunc(v.Taints, s.Node.Spec.Taints, sameTaint)
		verdicts = append(verdicts, v)
	}
	return verdicts, blind
}

// spokenConditions are the conditions an agent reports and only an agent can know.
func spokenConditions() []corev1.NodeConditionType {
	return []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure}
}

func unknown(now time.Time, node *corev1.Node, why string) []corev1.NodeCondition {
	var out []corev1.NodeCondition
	for _, kind := range spokenConditions() {
		have := conditionOf(node, kind)
		c := corev1.NodeCondition{Type: kind, Status: corev1.ConditionUnknown, Reason: "NodeStatusUnknown", Message: "Agent stopped posting node status: " + why + ".", LastTransitionTime: metav1.NewTime(now)}
		if have == nil {
			if kind != corev1.NodeReady {
				continue
			}
			c.Reason = "NodeStatusNeverUpdated"
		} else {
			if have.Status == corev1.ConditionUnknown {
				continue
			}
			c.LastHeartbeatTime = have.LastHeartbeatTime
		}
		out = append(out, c)
	}
	return out
}

func conditionOf(node *corev1.Node, kind corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == kind {
			return &node.Status.Conditions[i]
		}
	}
	return nil
}

// wantTaints keeps the taints of users and replaces those that follow from conditions.
func wantTaints(now time.Time, node *corev1.Node, ready corev1.ConditionStatus, blind bool) []corev1.Taint {
	type rule struct {
		key    string
		effect corev1.TaintEffect
		on     bool
	}
	is := func(kind corev1.NodeConditionType) bool {
		c := conditionOf(node, kind)
		return c != nil && c.Status == corev1.ConditionTrue
	}
	notReady, unreachable := ready == corev1.ConditionFalse, ready == corev1.ConditionUnknown
	rules := []rule{
		{corev1.TaintNodeNotReady, corev1.TaintEffectNoSchedule, notReady},
		{corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute, notReady},
		{corev1.TaintNodeUnreachable, corev1.TaintEffectNoSchedule, unreachable},
		{corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute, unreachable && !blind},
		{corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule, is(corev1.NodeMemoryPressure)},
		{corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule, is(corev1.NodeDiskPressure)},
		{corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule, is(corev1.NodePIDPressure)},
		{corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule, is(corev1.NodeNetworkUnavailable)},
		{corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule, node.Spec.Unschedulable},
	}
	ours := func(t corev1.Taint) int {
		return slices.IndexFunc(rules, func(r rule) bool { return r.key == t.Key && r.effect == t.Effect })
	}
	var out []corev1.Taint
	have := map[int]bool{}
	for _, t := range node.Spec.Taints {
		i := ours(t)
		if i < 0 || rules[i].on {
			out = append(out, t)
			have[i] = true
		}
	}
	for i, r := range rules {
		if r.on && !have[i] {
			stamp := metav1.NewTime(now)
			out = append(out, corev1.Taint{Key: r.key, Effect: r.effect, TimeAdded: &stamp})
		}
	}
	return out
}

func sameTaint(a, b corev1.Taint) bool {
	return a.Key == b.Key && a.Effect == b.Effect && a.Value == b.Value
}

// Eviction is a pod that must leave its node, now or later.
type Eviction struct {
	Pod    *corev1.Pod
	At     time.Time
	Reason string
}

// Evictions lists the pods of a node that do not tolerate its NoExecute taints, or
// tolerate them for a limited time. A pod that says nothing about a node that is
// not ready or unreachable stays for patience, as Kubernetes' admission would have it.
func Evictions(now time.Time, node *corev1.Node, pods []*corev1.Pod, patience time.Duration) []Eviction {
	var out []Eviction
	for _, pod := range pods {
		if pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		var first *Eviction
		for _, taint := range node.Spec.Taints {
			if taint.Effect != corev1.TaintEffectNoExecute {
				continue
			}
			stay, forever := tolerance(pod, taint, patience)
			if forever {
				continue
			}
			since := now
			if taint.TimeAdded != nil {
				since = taint.TimeAdded.Time
			}
			e := Eviction{pod, since.Add(stay), fmt.Sprintf("taint %s:%s on node %s is tolerated for %s only", taint.Key, taint.Effect, node.Name, stay)}
			if first == nil || e.At.Before(first.At) {
				first = &e
			}
		}
		if first != nil {
			out = append(out, *first)
		}
	}
	slices.SortStableFunc(out, func(a, b Eviction) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Pod.Name, b.Pod.Name)) })
	return out
}

// tolerance is how long a pod bears a taint.
func tolerance(pod *corev1.Pod, taint corev1.Taint, patience time.Duration) (stay time.Duration, forever bool) {
	shortest, tolerated := time.Duration(-1), false
	for _, t := range pod.Spec.Tolerations {
		if !t.ToleratesTaint(logr.Discard(), &taint, true) {
			continue
		}
		tolerated = true
		if t.TolerationSeconds != nil {
			limit := max(0, time.Duration(*t.TolerationSeconds)*time.Second)
			if shortest < 0 || limit < shortest {
				shortest = limit
			}
		}
	}
	switch {
	case tolerated && shortest < 0:
		return 0, true
	case tolerated:
		return shortest, false
	case taint.Key == corev1.TaintNodeNotReady || taint.Key == corev1.TaintNodeUnreachable:
		return patience, false
	}
	return 0, false
}

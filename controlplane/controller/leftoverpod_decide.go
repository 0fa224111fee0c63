package controller

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// leftover is a pod nobody else will remove, and why.
type leftover struct {
	Pod    *corev1.Pod
	Force  bool // there is no agent that could end it
	Reason string
}

// decideLeftovers finds pods of nodes that are gone for longer than grace, deleted
// pods that never got a node, and ended pods beyond limit, the oldest first.
func decideLeftovers(now time.Time, pods []*corev1.Pod, gone map[string]time.Time, grace time.Duration, limit int) []leftover {
	var out []leftover
	var ended []*corev1.Pod
	for _, pod := range pods {
		since, lost := gone[pod.Spec.NodeName]
		switch {
		case pod.Spec.NodeName != "" && lost:
			if now.Sub(since) >= grace {
				out = append(out, leftover{pod, true, "node " + pod.Spec.NodeName + " is gone"})
			}
		case pod.Spec.NodeName == "" && pod.DeletionTimestamp != nil:
			out = append(out, leftover{pod, true, "deleted before it got a node"})
		case podFinished(pod) && pod.DeletionTimestamp == nil:
			ended = append(ended, pod)
		}
	}
	if excess := len(ended) - limit; excess > 0 {
		slices.SortFunc(ended, older)
		for _, pod := range ended[:excess] {
			out = append(out, leftover{pod, false, "more ended pods than are kept"})
		}
	}
	return out
}

package controller

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// createBurst bounds the pods one look at a set may create or delete.
const createBurst = 500

// podSet is what ReplicaSets and ReplicationControllers have in common.
type podSet struct {
	Replicas int32
	Labels   labels.Set // of the template
	MinReady time.Duration
	Deleting bool
}

// podSetPlan is what to do about one set, and why.
type podSetPlan struct {
	Create int
	Delete []*corev1.Pod
	Reason string
	Status podSetStatus
	Again  time.Duration // when a ready pod becomes available
}

type podSetStatus struct {
	Replicas, Labeled, Ready, Available int32
}

// decidePodSet compares the wanted number of pods with those a set has. crowd
// counts the active pods of the set and its siblings by node, so that the fullest
// node gives first.
func decidePodSet(now time.Time, want podSet, mine []*corev1.Pod, crowd map[string]int) podSetPlan {
	var plan podSetPlan
	var active []*corev1.Pod
	for _, pod := range mine {
		if !podActive(pod) {
			continue
		}
		active = append(active, pod)
		plan.Status.Replicas++
		if want.Labels.AsSelectorPreValidated().Matches(labels.Set(pod.Labels)) {
			plan.Status.Labeled++
		}
		if podReady(pod) {
			plan.Status.Ready++
			available, left := podAvailable(now, pod, want.MinReady)
			if available {
				plan.Status.Available++
			} else if left > 0 && (plan.Again == 0 || left < plan.Again) {
				plan.Again = left
			}
		}
	}
	if want.Deleting {
		return plan
	}
	switch excess := len(active) - int(want.Replicas); {
	case excess < 0:
		plan.Create = min(-excess, createBurst)
		plan.Reason = fmt.Sprintf("%d of %d pods exist", len(active), want.Replicas)
	case excess > 0:
		plan.Delete = expendable(now, active, crowd)[:min(excess, createBurst)]
		plan.Reason = fmt.Sprintf("%d pods exist, %d are wanted", len(active), want.Replicas)
	}
	return plan
}

// expendable orders pods by how little is lost with them, in Kubernetes' order.
func expendable(now time.Time, pods []*corev1.Pod, crowd map[string]int) []*corev1.Pod {
	phase := map[corev1.PodPhase]int{corev1.PodPending: 0, corev1.PodUnknown: 1, "": 1, corev1.PodRunning: 2}
	return slices.SortedStableFunc(slices.Values(pods), func(a, b *corev1.Pod) int {
		return cmp.Or(
			trueFirst(a.Spec.NodeName == "", b.Spec.NodeName == ""),
			cmp.Compare(phase[a.Status.Phase], phase[b.Status.Phase]),
			trueFirst(!podReady(a), !podReady(b)),
			cmp.Compare(deletionCost(a), deletionCost(b)),
			cmp.Compare(crowd[b.Spec.NodeName], crowd[a.Spec.NodeName]),
			cmp.Compare(ageRank(now, readySince(a)), ageRank(now, readySince(b))),
			cmp.Compare(podRestarts(b), podRestarts(a)),
			cmp.Compare(ageRank(now, a.CreationTimestamp.Time), ageRank(now, b.CreationTimestamp.Time)),
			cmp.Compare(a.UID, b.UID),
		)
	})
}

func trueFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func deletionCost(pod *corev1.Pod) int32 {
	cost, err := strconv.ParseInt(pod.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0 // absent or nonsense costs nothing, as in Kubernetes
	}
	return int32(cost)
}

func readySince(pod *corev1.Pod) time.Time {
	if c := podCondition(pod, corev1.PodReady); c != nil && c.Status == corev1.ConditionTrue {
		return c.LastTransitionTime.Time
	}
	return time.Time{}
}

// ageRank makes ages comparable in powers of two, so that among pods of about the
// same age chance decides rather than seconds. Unknown times rank youngest.
func ageRank(now, since time.Time) int {
	if since.IsZero() {
		return -1
	}
	return int(math.Log2(max(1, float64(now.Sub(since)))))
}

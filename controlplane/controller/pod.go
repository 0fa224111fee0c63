package controller

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// podFinished answers whether the pod's containers have ended for good.
func podFinished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// podActive answers whether the pod counts towards a wanted number of pods.
func podActive(pod *corev1.Pod) bool { return !podFinished(pod) && pod.DeletionTimestamp == nil }

func podCondition(pod *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == kind {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

func podReady(pod *corev1.Pod) bool {
	c := podCondition(pod, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// podAvailable answers whether the pod has been ready for minReady, and if it is
// ready but too young, how long is left.
func podAvailable(now time.Time, pod *corev1.Pod, minReady time.Duration) (bool, time.Duration) {
	c := podCondition(pod, corev1.PodReady)
	if c == nil || c.Status != corev1.ConditionTrue {
		return false, 0
	}
	if minReady <= 0 {
		return true, 0
	}
	if c.LastTransitionTime.IsZero() {
		return false, minReady
	}
	left := c.LastTransitionTime.Add(minReady).Sub(now)
	return left <= 0, max(left, 0)
}

func podRestarts(pod *corev1.Pod) int32 {
	var most int32
	for _, c := range pod.Status.ContainerStatuses {
		most = max(most, c.RestartCount)
	}
	return most
}

// controllerOf returns the object's controlling owner, if any.
func controllerOf(o metav1.Object) *metav1.OwnerReference {
	for _, ref := range o.GetOwnerReferences() {
		if ref.Controller != nil && *ref.Controller {
			return &ref
		}
	}
	return nil
}

// claims sorts the objects of a namespace as an owner sees them.
type claims[T metav1.Object] struct {
	Mine    []T // owned and matching
	Adopt   []T // matching and owned by nobody
	Release []T // owned but matching no more
}

// decideClaims follows the rules all Kubernetes controllers share: an object with
// another controller is left alone, a deleted owner adopts nothing.
func decideClaims[T metav1.Object](owner metav1.Object, selector labels.Selector, objects []T) claims[T] {
	var out claims[T]
	for _, o := range objects {
		ref, matches := controllerOf(o), selector.Matches(labels.Set(o.GetLabels()))
		switch {
		case ref != nil && ref.UID != owner.GetUID():
		case ref != nil && matches:
			out.Mine = append(out.Mine, o)
		case ref != nil && owner.GetDeletionTimestamp() == nil:
			out.Release = append(out.Release, o)
		case ref == nil && matches && owner.GetDeletionTimestamp() == nil && o.GetDeletionTimestamp() == nil:
			out.Adopt = append(out.Adopt, o)
		}
	}
	return out
}

// byName orders objects so that decisions do not depend on the order of a cache.
func byName[T metav1.Object](objects []T) []T {
	slices.SortFunc(objects, func(a, b T) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return objects
}

// older orders objects by creation, then by name.
func older[T metav1.Object](a, b T) int {
	at, bt := a.GetCreationTimestamp(), b.GetCreationTimestamp()
	return cmp.Or(at.Time.Compare(bt.Time), cmp.Compare(a.GetName(), b.GetName()))
}

func uids[T metav1.Object](objects []T) []types.UID {
	out := make([]types.UID, 0, len(objects))
	for _, o := range objects {
		out = append(out, o.GetUID())
	}
	return out
}

package controller

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// leftovers is what keeps a deleted namespace from going.
type leftovers struct {
	objects, finalizers map[string]int // by resource, by finalizer
	discovery, deletion error
}

func (l leftovers) any() bool {
	return len(l.objects) > 0 || l.discovery != nil || l.deletion != nil
}

// namespaceStatus writes the leftovers into the conditions kubectl users look at.
func namespaceStatus(now time.Time, have corev1.NamespaceStatus, left leftovers) corev1.NamespaceStatus {
	status := *have.DeepCopy()
	status.Phase = corev1.NamespaceTerminating
	failure := func(kind corev1.NamespaceConditionType, err error, bad, good, fine string) {
		if err != nil {
			status.Conditions = namespaceCondition(now, status.Conditions, kind, corev1.ConditionTrue, bad, err.Error())
		} else {
			status.Conditions = namespaceCondition(now, status.Conditions, kind, corev1.ConditionFalse, good, fine)
		}
	}
	failure(corev1.NamespaceDeletionDiscoveryFailure, left.discovery, "DiscoveryFailed", "ResourcesDiscovered", "All resources successfully discovered")
	failure(corev1.NamespaceDeletionContentFailure, left.deletion, "ContentDeletionFailed", "ContentDeleted", "All content successfully deleted, may be waiting on finalization")
	remain := func(kind corev1.NamespaceConditionType, what map[string]int, bad, good, head, each, fine string) {
		if len(what) == 0 {
			status.Conditions = namespaceCondition(now, status.Conditions, kind, corev1.ConditionFalse, good, fine)
			return
		}
		var parts []string
		for _, name := range sortedKeys(what) {
			parts = append(parts, fmt.Sprintf(each, name, what[name]))
		}
		status.Conditions = namespaceCondition(now, status.Conditions, kind, corev1.ConditionTrue, bad, head+strings.Join(parts, ", "))
	}
	remain(corev1.NamespaceContentRemaining, left.objects, "SomeResourcesRemain", "ContentRemoved",
		"Some resources are remaining: ", "%s has %d resource instances", "All content successfully removed")
	remain(corev1.NamespaceFinalizersRemaining, left.finalizers, "SomeFinalizersRemain", "ContentHasNoFinalizers",
		"Some content in the namespace has finalizers remaining: ", "%s in %d resource instances", "All content-preserving finalizers finished")
	return status
}

func namespaceCondition(now time.Time, have []corev1.NamespaceCondition, kind corev1.NamespaceConditionType, status corev1.ConditionStatus, reason, message string) []corev1.NamespaceCondition {
	fresh := corev1.NamespaceCondition{Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(now)}
	i := slices.IndexFunc(have, func(c corev1.NamespaceCondition) bool { return c.Type == kind })
	if i < 0 {
		return append(have, fresh)
	}
	if have[i].Status == status {
		fresh.LastTransitionTime = have[i].LastTransitionTime
	}
	have[i] = fresh
	return have
}

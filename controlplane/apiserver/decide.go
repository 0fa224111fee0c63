package apiserver

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// count says how a disruption budget stands at the time now. Replicas gives the
// size an owner wants, for budgets in percent and for maxUnavailable.
func count(now time.Time, b *policyv1.PodDisruptionBudget, pods []corev1.Pod, replicas func(owner types.UID) (int32, bool)) policyv1.PodDisruptionBudgetStatus {
	status := policyv1.PodDisruptionBudgetStatus{ObservedGeneration: b.Generation, Conditions: b.Status.Conditions}
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil {
		return status
	}
	owners := map[types.UID]bool{}
	var single int32
	for i := range pods {
		p := &pods[i]
		if p.Namespace != b.Namespace || !selector.Matches(labels.Set(p.Labels)) || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		if owner := metav1.GetControllerOf(p); owner != nil {
			owners[owner.UID] = true
		} else {
			single++
		}
		going, marked := b.Status.DisruptedPods[p.Name]
		if marked && p.DeletionTimestamp == nil && now.Before(going.Add(disruptionTimeout)) {
			if status.DisruptedPods == nil {
				status.DisruptedPods = map[string]metav1.Time{}
			}
			status.DisruptedPods[p.Name] = going
			continue
		}
		if p.DeletionTimestamp == nil && ready(p) {
			status.CurrentHealthy++
		}
	}
	status.ExpectedPods = single
	for uid := range owners {
		if n, ok := replicas(uid); ok {
			status.ExpectedPods += n
		}
	}
	status.DesiredHealthy = desired(b, status.ExpectedPods)
	status.DisruptionsAllowed = max(0, status.CurrentHealthy-status.DesiredHealthy)
	return status
}

// desired is the number of healthy pods a budget asks for. Percentages round up.
func desired(b *policyv1.PodDisruptionBudget, expected int32) int32 {
	switch {
	case b.Spec.MaxUnavailable != nil:
		n, err := intstr.GetScaledValueFromIntOrPercent(b.Spec.MaxUnavailable, int(expected), true)
		if err != nil {
			return expected
		}
		return max(0, expected-int32(n))
	case b.Spec.MinAvailable != nil:
		n, err := intstr.GetScaledValueFromIntOrPercent(b.Spec.MinAvailable, int(expected), true)
		if err != nil {
			return expected
		}
		return int32(n)
	}
	return 0
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// replicas finds the owner with this uid in a list and how many pods it wants.
func replicas(list runtime.Object, owner types.UID) (n int32, found bool) {
	_ = meta.EachListItem(list, func(o runtime.Object) error { // the callback never fails
		if accessor(o).GetUID() != owner {
			return nil
		}
		found = true
		var want *int32
		switch w := o.(type) {
		case *appsv1.ReplicaSet:
			want = w.Spec.Replicas
		case *appsv1.StatefulSet:
			want = w.Spec.Replicas
		case *corev1.ReplicationController:
			want = w.Spec.Replicas
		}
		if want != nil {
			n = *want
		}
		return nil
	})
	return n, found
}

package controller

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// disruptionPatience is how long an eviction may take to show in the pods.
const disruptionPatience = 2 * time.Minute

// decideDisruptions counts how many of a budget's pods may be evicted now.
// expected is the number of pods their owners ask for, or the pods there are when
// they have no owner that can be asked.
func decideDisruptions(now time.Time, budget *policyv1.PodDisruptionBudget, pods []*corev1.Pod, expected int) (policyv1.PodDisruptionBudgetStatus, error) {
	status := *budget.Status.DeepCopy()
	var healthy int32
	disrupted := map[string]metav1.Time{}
	for _, pod := range pods {
		at, evicted := budget.Status.DisruptedPods[pod.Name]
		if evicted && pod.DeletionTimestamp == nil && now.Sub(at.Time) < disruptionPatience {
			disrupted[pod.Name] = at
			continue
		}
		if podActive(pod) && podReady(pod) {
			healthy++
		}
	}
	var desired int
	var err error
	switch {
	case budget.Spec.MaxUnavailable != nil:
		var may int
		may, err = intstr.GetScaledValueFromIntOrPercent(budget.Spec.MaxUnavailable, expected, true)
		desired = max(0, expected-may)
	case budget.Spec.MinAvailable != nil:
		if budget.Spec.MinAvailable.Type == intstr.Int {
			expected = len(pods) // a plain number needs nobody's intent
		}
		desired, err = intstr.GetScaledValueFromIntOrPercent(budget.Spec.MinAvailable, expected, true)
	}
	if err != nil {
		return status, err
	}
	status.ExpectedPods, status.DesiredHealthy, status.CurrentHealthy = int32(expected), int32(desired), healthy
	status.DisruptionsAllowed = max(0, healthy-int32(desired))
	if expected == 0 {
		status.DisruptionsAllowed = 0
	}
	status.DisruptedPods, status.ObservedGeneration = disrupted, budget.Generation
	if len(disrupted) == 0 {
		status.DisruptedPods = nil
	}
	c := metav1.Condition{Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.InsufficientPodsReason, ObservedGeneration: budget.Generation, LastTransitionTime: metav1.NewTime(now)}
	if status.DisruptionsAllowed > 0 {
		c.Status, c.Reason = metav1.ConditionTrue, policyv1.SufficientPodsReason
	}
	meta.SetStatusCondition(&status.Conditions, c)
	return status, nil
}

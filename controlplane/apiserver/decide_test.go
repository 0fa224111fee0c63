package apiserver

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestABudgetCountsWhatItProtects(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	yes := true
	pods := func(ready ...bool) []corev1.Pod {
		var out []corev1.Pod
		for i, r := range ready {
			p := *aPod(string(rune('a' + i)))
			p.Namespace, p.Labels = "n", map[string]string{"app": "w"}
			p.OwnerReferences = []metav1.OwnerReference{{UID: "rs", Controller: &yes}}
			p.Status.Phase = corev1.PodRunning
			if r {
				p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
			}
			out = append(out, p)
		}
		return out
	}
	budget := func(min, max *intstr.IntOrString, going map[string]metav1.Time) *policyv1.PodDisruptionBudget {
		return &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Namespace: "n", Generation: 4},
			Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: min, MaxUnavailable: max, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "w"}}},
			Status:     policyv1.PodDisruptionBudgetStatus{DisruptedPods: going},
		}
	}
	two, half, one := intstr.FromInt32(2), intstr.FromString("50%"), intstr.FromInt32(1)
	stranger := *aPod("z")
	stranger.Namespace = "other"
	for _, c := range []struct {
		name                       string
		budget                     *policyv1.PodDisruptionBudget
		pods                       []corev1.Pod
		expected, healthy, allowed int32
	}{
		{"three healthy of which two must stay", budget(&two, nil, nil), append(pods(true, true, true), stranger), 3, 3, 1},
		{"an unready pod uses up the allowance", budget(&two, nil, nil), pods(true, true, false), 3, 2, 0},
		{"half of three is rounded up to two", budget(&half, nil, nil), pods(true, true, true), 3, 3, 1},
		{"one may be missing and one is", budget(nil, &one, nil), pods(true, true), 3, 2, 0},
		{"a pod that is being evicted no longer counts", budget(&two, nil, map[string]metav1.Time{"a": metav1.NewTime(now.Add(-time.Second))}), pods(true, true, true), 3, 2, 0},
		{"an eviction that did not happen is forgotten", budget(&two, nil, map[string]metav1.Time{"a": metav1.NewTime(now.Add(-time.Hour))}), pods(true, true, true), 3, 3, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			have := count(now, c.budget, c.pods, func(types.UID) (int32, bool) { return 3, true })
			if have.ExpectedPods != c.expected || have.CurrentHealthy != c.healthy || have.DisruptionsAllowed != c.allowed || have.ObservedGeneration != 4 {
				t.Errorf("have %+v", have)
			}
		})
	}
}

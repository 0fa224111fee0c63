package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	policylisters "k8s.io/client-go/listers/policy/v1"

	"perch/controlplane/controller/reconcile"
)

// disruptions keep the numbers evictions are judged by.
type disruptions struct {
	deps
	budgets policylisters.PodDisruptionBudgetLister
	pods    corelisters.PodLister
	sets    appslisters.ReplicaSetLister
}

func newDisruption(d deps) *reconcile.Controller {
	budgets, pods, sets := d.informers.Policy().V1().PodDisruptionBudgets(), d.informers.Core().V1().Pods(), d.informers.Apps().V1().ReplicaSets()
	c := &disruptions{d, budgets.Lister(), pods.Lister(), sets.Lister()}
	return &reconcile.Controller{
		Name: "disruption", Reads: []string{"policy/PodDisruptionBudget", "Pod", "apps/ReplicaSet"},
		Writes: []reconcile.Part{{Kind: "policy/PodDisruptionBudget", Fields: "status"}},
		Sources: []reconcile.Source{
			{Informer: budgets.Informer()}, {Informer: pods.Informer(), Keys: c.ofPod}, {Informer: sets.Informer(), Keys: nothing},
		},
		Reconcile: c.reconcile,
	}
}

func (c *disruptions) ofPod(object any) []reconcile.Key {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return nil
	}
	budgets, err := c.budgets.PodDisruptionBudgets(pod.Namespace).List(labels.Everything())
	if err != nil {
		return nil // a lister over a cache does not fail
	}
	var keys []reconcile.Key
	for _, b := range budgets {
		if selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector); err == nil && selector.Matches(labels.Set(pod.Labels)) {
			keys = append(keys, reconcile.Self(b)...)
		}
	}
	return keys
}

func (c *disruptions) reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	budget, err := c.budgets.PodDisruptionBudgets(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read poddisruptionbudget %s: %w", key, err)
	}
	selector, err := metav1.LabelSelectorAsSelector(budget.Spec.Selector)
	if err != nil {
		return 0, nil // validation refuses such selectors
	}
	found, err := c.pods.Pods(key.Namespace).List(selector)
	if err != nil {
		return 0, fmt.Errorf("list pods of %s: %w", key.Namespace, err)
	}
	var pods []*corev1.Pod
	for _, pod := range found {
		if !podFinished(pod) {
			pods = append(pods, pod)
		}
	}
	status, err := decideDisruptions(time.Now(), budget, pods, c.expected(pods))
	if err != nil {
		return 0, nil // validation refuses such numbers
	}
	again := time.Duration(0)
	if len(status.DisruptedPods) > 0 {
		again = disruptionPatience
	}
	if apiequality.Semantic.DeepEqual(status, budget.Status) {
		return again, nil
	}
	fresh := budget.DeepCopy()
	fresh.Status = status
	if _, err := c.kube.PolicyV1().PodDisruptionBudgets(key.Namespace).UpdateStatus(ctx, fresh, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("update status of poddisruptionbudget %s: %w", key, err)
	}
	return again, nil
}

// expected sums what the pods' ReplicaSets ask for; pods of other owners count as they are.
func (c *disruptions) expected(pods []*corev1.Pod) int {
	total, seen := 0, map[types.UID]bool{}
	for _, pod := range pods {
		owner := controllerOf(pod)
		if owner == nil || owner.Kind != "ReplicaSet" {
			total++
			continue
		}
		if seen[owner.UID] {
			continue
		}
		seen[owner.UID] = true
		if set, err := c.sets.ReplicaSets(pod.Namespace).Get(owner.Name); err == nil && set.UID == owner.UID {
			total += int(replicasOr1(set.Spec.Replicas))
		}
	}
	return total
}

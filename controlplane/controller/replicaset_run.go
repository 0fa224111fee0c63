package controller

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	appslisters "k8s.io/client-go/listers/apps/v1"

	"perch/controlplane/controller/reconcile"
)

// replicaSets keep as many pods as each ReplicaSet asks for.
type replicaSets struct {
	podKeeper
	sets appslisters.ReplicaSetLister
}

func newReplicaSet(d deps) *reconcile.Controller {
	sets, pods := d.informers.Apps().V1().ReplicaSets(), d.informers.Core().V1().Pods()
	r := &replicaSets{
		podKeeper: d.keeper("replicaset-controller", appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), pods.Lister()),
		sets:      sets.Lister(),
	}
	return &reconcile.Controller{
		Name:  "replicaset",
		Reads: []string{"apps/ReplicaSet", "Pod"},
		Writes: []reconcile.Part{
			{Kind: "Pod", Fields: "objects", Of: "ReplicaSet"}, {Kind: "Pod", Fields: "metadata.ownerReferences", Of: "ReplicaSet"},
			{Kind: "apps/ReplicaSet", Fields: "status"},
		},
		Workers:   4,
		Sources:   []reconcile.Source{{Informer: sets.Informer()}, r.source(pods.Informer(), r.adopters)},
		Reconcile: r.reconcile,
	}
}

func (r *replicaSets) adopters(pod *corev1.Pod) []reconcile.Key {
	sets, err := r.sets.ReplicaSets(pod.Namespace).List(labels.Everything())
	if err != nil {
		return nil // a lister over a cache does not fail
	}
	var keys []reconcile.Key
	for _, set := range sets {
		if selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector); err == nil && !selector.Empty() && selector.Matches(labels.Set(pod.Labels)) {
			keys = append(keys, reconcile.Self(set)...)
		}
	}
	return keys
}

func (r *replicaSets) reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	set, err := r.sets.ReplicaSets(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		r.expect.Forget(key)
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read replicaset %s: %w", key, err)
	}
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil || selector.Empty() {
		return 0, nil // validation refuses such sets; one that slipped through owns nothing
	}
	now := time.Now()
	met := r.expect.Met(now, key)
	mine, err := r.claim(ctx, set, selector, func() (metav1.Object, error) {
		return r.kube.AppsV1().ReplicaSets(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	})
	if err != nil {
		return 0, err
	}
	want := podSet{
		Replicas: replicasOr1(set.Spec.Replicas), Labels: set.Spec.Template.Labels,
		MinReady: time.Duration(set.Spec.MinReadySeconds) * time.Second, Deleting: set.DeletionTimestamp != nil,
	}
	plan := decidePodSet(now, want, mine, r.crowd(set))
	var acted error
	if met {
		acted = r.act(ctx, key, set, &set.Spec.Template, plan)
	}
	status := replicaSetStatus(now, set, plan, acted)
	if !apiequality.Semantic.DeepEqual(status, set.Status) {
		fresh := set.DeepCopy()
		fresh.Status = status
		if _, err := r.kube.AppsV1().ReplicaSets(key.Namespace).UpdateStatus(ctx, fresh, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return 0, fmt.Errorf("update status of replicaset %s: %w", key, err)
		}
	}
	return plan.Again, acted
}

func (k *podKeeper) act(ctx context.Context, key reconcile.Key, owner metav1.Object, template *corev1.PodTemplateSpec, plan podSetPlan) error {
	if len(plan.Delete) > 0 {
		return k.delete(ctx, key, owner, plan.Delete)
	}
	if plan.Create == 0 {
		return nil
	}
	pods := make([]*corev1.Pod, plan.Create)
	for i := range pods {
		pods[i] = podOf(template, key.Namespace, owner.GetName())
	}
	_, err := k.create(ctx, key, owner, pods)
	return err
}

// crowd counts by node the active pods of all sets of the same owner: when a
// rollout shrinks the old set, the node with most pods of the Deployment gives.
func (r *replicaSets) crowd(set *appsv1.ReplicaSet) map[string]int {
	siblings := map[string]bool{string(set.UID): true}
	if owner := controllerOf(set); owner != nil {
		sets, err := r.sets.ReplicaSets(set.Namespace).List(labels.Everything())
		if err == nil {
			for _, other := range sets {
				if ref := controllerOf(other); ref != nil && ref.UID == owner.UID {
					siblings[string(other.UID)] = true
				}
			}
		}
	}
	pods, err := r.pods.Pods(set.Namespace).List(labels.Everything())
	if err != nil {
		return nil
	}
	crowd := map[string]int{}
	for _, pod := range pods {
		if ref := controllerOf(pod); ref != nil && siblings[string(ref.UID)] && podActive(pod) && pod.Spec.NodeName != "" {
			crowd[pod.Spec.NodeName]++
		}
	}
	return crowd
}

func replicaSetStatus(now time.Time, set *appsv1.ReplicaSet, plan podSetPlan, acted error) appsv1.ReplicaSetStatus {
	status := *set.Status.DeepCopy()
	status.Replicas, status.FullyLabeledReplicas = plan.Status.Replicas, plan.Status.Labeled
	status.ReadyReplicas, status.AvailableReplicas = plan.Status.Ready, plan.Status.Available
	status.ObservedGeneration = set.Generation
	var kept []appsv1.ReplicaSetCondition
	failed := false
	for _, c := range status.Conditions {
		if c.Type != appsv1.ReplicaSetReplicaFailure {
			kept = append(kept, c)
		} else if acted != nil {
			kept, failed = append(kept, c), true
		}
	}
	if acted != nil && !failed {
		reason := "FailedCreate"
		if len(plan.Delete) > 0 {
			reason = "FailedDelete"
		}
		kept = append(kept, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue,
			LastTransitionTime: metav1.NewTime(now), Reason: reason, Message: acted.Error(),
		})
	}
	status.Conditions = kept
	return status
}

func replicasOr1(replicas *int32) int32 {
	if replicas == nil {
		return 1
	}
	return *replicas
}

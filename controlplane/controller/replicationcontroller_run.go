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
	corelisters "k8s.io/client-go/listers/core/v1"

	"perch/controlplane/controller/reconcile"
)

// replicationControllers are the ReplicaSets of old; they share all decisions.
type replicationControllers struct {
	podKeeper
	sets corelisters.ReplicationControllerLister
}

func newReplicationController(d deps) *reconcile.Controller {
	sets, pods := d.informers.Core().V1().ReplicationControllers(), d.informers.Core().V1().Pods()
	r := &replicationControllers{
		podKeeper: d.keeper("replication-controller", corev1.SchemeGroupVersion.WithKind("ReplicationController"), pods.Lister()),
		sets:      sets.Lister(),
	}
	return &reconcile.Controller{
		Name:  "replicationcontroller",
		Reads: []string{"ReplicationController", "Pod"},
		Writes: []reconcile.Part{
			{Kind: "Pod", Fields: "objects", Of: "ReplicationController"}, {Kind: "Pod", Fields: "metadata.ownerReferences", Of: "ReplicationController"},
			{Kind: "ReplicationController", Fields: "status"},
		},
		Sources:   []reconcile.Source{{Informer: sets.Informer()}, r.source(pods.Informer(), r.adopters)},
		Reconcile: r.reconcile,
	}
}

func (r *replicationControllers) adopters(pod *corev1.Pod) []reconcile.Key {
	sets, err := r.sets.ReplicationControllers(pod.Namespace).List(labels.Everything())
	if err != nil {
		return nil // a lister over a cache does not fail
	}
	var keys []reconcile.Key
	for _, set := range sets {
		if len(set.Spec.Selector) > 0 && labels.SelectorFromSet(set.Spec.Selector).Matches(labels.Set(pod.Labels)) {
			keys = append(keys, reconcile.Self(set)...)
		}
	}
	return keys
}

func (r *replicationControllers) reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	set, err := r.sets.ReplicationControllers(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		r.expect.Forget(key)
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read replicationcontroller %s: %w", key, err)
	}
	if len(set.Spec.Selector) == 0 || set.Spec.Template == nil {
		return 0, nil
	}
	now := time.Now()
	met := r.expect.Met(now, key)
	mine, err := r.claim(ctx, set, labels.SelectorFromSet(set.Spec.Selector), func() (metav1.Object, error) {
		return r.kube.CoreV1().ReplicationControllers(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	})
	if err != nil {
		return 0, err
	}
	plan := decidePodSet(now, podSet{
		Replicas: replicasOr1(set.Spec.Replicas), Labels: set.Spec.Template.Labels,
		MinReady: time.Duration(set.Spec.MinReadySeconds) * time.Second, Deleting: set.DeletionTimestamp != nil,
	}, mine, nil)
	var acted error
	if met {
		acted = r.act(ctx, key, set, set.Spec.Template, plan)
	}
	status := *set.Status.DeepCopy()
	status.Replicas, status.FullyLabeledReplicas = plan.Status.Replicas, plan.Status.Labeled
	status.ReadyReplicas, status.AvailableReplicas = plan.Status.Ready, plan.Status.Available
	status.ObservedGeneration = set.Generation
	if !apiequality.Semantic.DeepEqual(status, set.Status) {
		fresh := set.DeepCopy()
		fresh.Status = status
		if _, err := r.kube.CoreV1().ReplicationControllers(key.Namespace).UpdateStatus(ctx, fresh, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return 0, fmt.Errorf("update status of replicationcontroller %s: %w", key, err)
		}
	}
	return plan.Again, acted
}

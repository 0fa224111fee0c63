package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"

	"perch/controlplane/controller/reconcile"
	"perch/controlplane/event"
)

// deployments keep ReplicaSets in the shape their Deployments ask for.
type deployments struct {
	deps
	deployments appslisters.DeploymentLister
	sets        appslisters.ReplicaSetLister
	pods        corelisters.PodLister
}

func newDeployment(d deps) *reconcile.Controller {
	apps, pods := d.informers.Apps().V1(), d.informers.Core().V1().Pods()
	c := &deployments{d, apps.Deployments().Lister(), apps.ReplicaSets().Lister(), pods.Lister()}
	return &reconcile.Controller{
		Name:  "deployment",
		Reads: []string{"apps/Deployment", "apps/ReplicaSet", "Pod"},
		Writes: []reconcile.Part{
			{Kind: "apps/ReplicaSet", Fields: "objects", Of: "Deployment"}, {Kind: "apps/ReplicaSet", Fields: "spec", Of: "Deployment"},
			{Kind: "apps/ReplicaSet", Fields: "metadata.ownerReferences", Of: "Deployment"},
			{Kind: "apps/Deployment", Fields: "status"}, {Kind: "apps/Deployment", Fields: "metadata.annotations[revision]"},
		},
		Workers: 4,
		Sources: []reconcile.Source{
			{Informer: apps.Deployments().Informer()},
			{Informer: apps.ReplicaSets().Informer(), Keys: c.ofSet},
			{Informer: pods.Informer(), Keys: c.ofPod},
		},
		Reconcile: c.reconcile,
	}
}

func (c *deployments) ofSet(object any) []reconcile.Key {
	if keys := reconcile.Owner("Deployment")(object); keys != nil {
		return keys
	}
	set, ok := object.(*appsv1.ReplicaSet)
	if !ok || controllerOf(set) != nil {
		return nil
	}
	all, err := c.deployments.Deployments(set.Namespace).List(labels.Everything())
	if err != nil {
		return nil // a lister over a cache does not fail
	}
	var keys []reconcile.Key
	for _, d := range all {
		if selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector); err == nil && !selector.Empty() && selector.Matches(labels.Set(set.Labels)) {
			keys = append(keys, reconcile.Self(d)...)
		}
	}
	return keys
}

// ofPod wakes a Recreate rollout that waits for old pods to end.
func (c *deployments) ofPod(object any) []reconcile.Key {
	pod, ok := object.(*corev1.Pod)
	if !ok || (pod.DeletionTimestamp == nil && !podFinished(pod)) {
		return nil
	}
	owner := controllerOf(pod)
	if owner == nil || owner.Kind != "ReplicaSet" {
		return nil
	}
	set, err := c.sets.ReplicaSets(pod.Namespace).Get(owner.Name)
	if err != nil || set.UID != owner.UID {
		return nil
	}
	keys := reconcile.Owner("Deployment")(set)
	for _, key := range keys {
		if d, err := c.deployments.Deployments(key.Namespace).Get(key.Name); err == nil && d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
			return nil
		}
	}
	return keys
}

func (c *deployments) reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	d, err := c.deployments.Deployments(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read deployment %s: %w", key, err)
	}
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil || selector.Empty() {
		c.say(d, event.Warning, "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required.")
		return 0, nil
	}
	have, err := c.observe(ctx, d, selector)
	if err != nil {
		return 0, err
	}
	plan := decideRollout(time.Now(), have)
	if err := c.apply(ctx, key, d, plan); err != nil {
		return 0, err
	}
	return plan.Again, nil
}

func (c *deployments) observe(ctx context.Context, d *appsv1.Deployment, selector labels.Selector) (rollout, error) {
	all, err := c.sets.ReplicaSets(d.Namespace).List(labels.Everything())
	if err != nil {
		return rollout{}, fmt.Errorf("list replicasets of %s: %w", d.Namespace, err)
	}
	found := decideClaims(d, selector, byName(all))
	for _, set := range found.Release {
		if err := c.patchOwner(ctx, set, map[string]any{"$patch": "delete", "uid": d.UID}); err != nil && !apierrors.IsNotFound(err) {
			return rollout{}, fmt.Errorf("release replicaset %s/%s: %w", set.Namespace, set.Name, err)
		}
	}
	if len(found.Adopt) > 0 {
		err := checkLive(d, func() (metav1.Object, error) {
			return c.kube.AppsV1().Deployments(d.Namespace).Get(ctx, d.Name, metav1.GetOptions{})
		})
		if err != nil {
			return rollout{}, err
		}
	}
	for _, set := range found.Adopt {
		ref := metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))
		if err := c.patchOwner(ctx, set, ref); err != nil {
			return rollout{}, fmt.Errorf("adopt replicaset %s/%s: %w", set.Namespace, set.Name, err)
		}
		found.Mine = append(found.Mine, set)
	}
	have := rollout{Deployment: d, Sets: found.Mine}
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		current := presentSet(d, found.Mine)
		have.OldPods, err = c.countOld(d, others(found.Mine, current))
	}
	return have, err
}

func (c *deployments) countOld(d *appsv1.Deployment, old []*appsv1.ReplicaSet) (int, error) {
	owners := map[types.UID]bool{}
	for _, set := range old {
		owners[set.UID] = true
	}
	pods, err := c.pods.Pods(d.Namespace).List(labels.Everything())
	if err != nil {
		return 0, fmt.Errorf("list pods of %s: %w", d.Namespace, err)
	}
	count := 0
	for _, pod := range pods {
		if ref := controllerOf(pod); ref != nil && owners[ref.UID] && !podFinished(pod) {
			count++
		}
	}
	return count, nil
}

func (c *deployments) patchOwner(ctx context.Context, set *appsv1.ReplicaSet, ref any) error {
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": set.UID, "ownerReferences": []any{ref}}})
	if err != nil {
		return err
	}
	_, err = c.kube.AppsV1().ReplicaSets(set.Namespace).Patch(ctx, set.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{})
	return err
}

// apply acts on a plan. Writes carry the version that was observed, so a plan made
// from an old snapshot fails with a conflict and is made again.
func (c *deployments) apply(ctx context.Context, key reconcile.Key, d *appsv1.Deployment, plan rolloutPlan) error {
	sets := c.kube.AppsV1().ReplicaSets(key.Namespace)
	if plan.Create != nil {
		if _, err := sets.Create(ctx, plan.Create, metav1.CreateOptions{}); err != nil {
			return c.refused(ctx, d, plan, err)
		}
	}
	for _, set := range plan.Update {
		if _, err := sets.Update(ctx, set, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("update replicaset %s/%s: %w", set.Namespace, set.Name, err)
		}
	}
	for _, happened := range plan.Events {
		c.say(d, happened.Type, happened.Reason, happened.Message)
	}
	for _, set := range plan.Delete {
		err := sets.Delete(ctx, set.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(set.UID))})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete replicaset %s/%s: %w", set.Namespace, set.Name, err)
		}
	}
	if plan.Revision != "" && d.Annotations[revisionAnnotation] != plan.Revision {
		data, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{revisionAnnotation: plan.Revision}}})
		if err != nil {
			return fmt.Errorf("encode revision of deployment %s: %w", key, err)
		}
		fresh, err := c.kube.AppsV1().Deployments(key.Namespace).Patch(ctx, key.Name, types.MergePatchType, data, metav1.PatchOptions{})
		if err != nil {
			return fmt.Errorf("write revision of deployment %s: %w", key, err)
		}
		if fresh.Generation == d.Generation { // our own write must not conflict with the status below
			d = d.DeepCopy()
			d.ResourceVersion = fresh.ResourceVersion
		}
	}
	return c.writeStatus(ctx, d, plan.Status)
}

// refused handles a ReplicaSet that could not be made: its name is taken, or the
// API server says no.
func (c *deployments) refused(ctx context.Context, d *appsv1.Deployment, plan rolloutPlan, cause error) error {
	set := plan.Create
	if apierrors.HasStatusCause(cause, corev1.NamespaceTerminatingCause) {
		return nil
	}
	if apierrors.IsAlreadyExists(cause) {
		taken, err := c.kube.AppsV1().ReplicaSets(set.Namespace).Get(ctx, set.Name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("read replicaset %s/%s: %w", set.Namespace, set.Name, err)
		}
		owner := controllerOf(taken)
		if owner != nil && owner.UID == d.UID && apiequality.Semantic.DeepEqual(bare(&taken.Spec.Template), bare(&d.Spec.Template)) {
			return nil // the watch has not shown it yet
		}
		status := *d.Status.DeepCopy()
		collisions := int32(1)
		if status.CollisionCount != nil {
			collisions += *status.CollisionCount
		}
		status.CollisionCount = &collisions
		return c.writeStatus(ctx, d, status)
	}
	now := time.Now()
	status := *plan.Status.DeepCopy()
	if d.Spec.ProgressDeadlineSeconds != nil {
		status.Conditions = append(dropCondition(d.Status.Conditions, appsv1.DeploymentProgressing),
			condition(now, appsv1.DeploymentProgressing, corev1.ConditionFalse, "ReplicaSetCreateError", fmt.Sprintf("Failed to create new replica set %q: %v", set.Name, cause)))
	}
	c.say(d, event.Warning, "ReplicaSetCreateError", fmt.Sprintf("Failed to create new replica set %q: %v", set.Name, cause))
	if err := c.writeStatus(ctx, d, status); err != nil {
		return err
	}
	return fmt.Errorf("create replicaset %s/%s: %w", set.Namespace, set.Name, cause)
}

func (c *deployments) writeStatus(ctx context.Context, d *appsv1.Deployment, status appsv1.DeploymentStatus) error {
	if apiequality.Semantic.DeepEqual(d.Status, status) {
		return nil
	}
	fresh := d.DeepCopy()
	fresh.Status = status
	_, err := c.kube.AppsV1().Deployments(d.Namespace).UpdateStatus(ctx, fresh, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update status of deployment %s/%s: %w", d.Namespace, d.Name, err)
	}
	return nil
}

func (c *deployments) say(d *appsv1.Deployment, kind, reason, message string) {
	c.tell(event.Record{Component: "deployment-controller", Object: event.Ref(d, "apps/v1", "Deployment"), Type: kind, Reason: reason, Message: message})
}

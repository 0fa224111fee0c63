package apiserver

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/util/retry"
)

// disruptionTimeout is how long an evicted pod counts as going before it must
// have been deleted.
const disruptionTimeout = 2 * time.Minute

// evictionREST deletes a pod if its disruption budgets allow it. The budget is
// counted here, from the pods, at the moment of the request, and the result is
// written to the budget's status with its resource version: of two evictions
// that count at the same time one has to count again.
type evictionREST struct {
	pods   *genericregistry.Store
	stores map[schema.GroupResource]*genericregistry.Store
}

var (
	_ rest.NamedCreater             = (*evictionREST)(nil)
	_ rest.GroupVersionKindProvider = (*evictionREST)(nil)
)

// New is an empty Eviction.
func (e *evictionREST) New() runtime.Object { return &policyv1.Eviction{} }

// Destroy leaves the shared storage alone.
func (e *evictionREST) Destroy() {}

// GroupVersionKind differs from that of the parent resource.
func (e *evictionREST) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return policyv1.SchemeGroupVersion.WithKind("Eviction")
}

// Create evicts the pod called name, or answers 429 with the budget that forbids.
func (e *evictionREST) Create(ctx context.Context, name string, o runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	want, ok := o.(*policyv1.Eviction)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not an Eviction object: %T", o))
	}
	if want.Name != name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	how := want.DeleteOptions
	if how == nil {
		how = &metav1.DeleteOptions{}
	}
	if len(options.DryRun) > 0 {
		how.DryRun = options.DryRun
	}
	have, err := e.pods.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if validate != nil {
		if err := validate(ctx, want.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	p := have.(*corev1.Pod)
	if counts(p) {
		err := retry.RetryOnConflict(retry.DefaultBackoff, func() error { return e.spend(ctx, p, how) })
		if err != nil {
			return nil, err
		}
	}
	if how.Preconditions == nil {
		how.Preconditions = &metav1.Preconditions{UID: &p.UID}
	}
	if !dry(how) {
		if err := e.mark(ctx, p); err != nil {
			return nil, err
		}
	}
	if _, _, err := e.pods.Delete(ctx, name, rest.ValidateAllObjectFunc, how); err != nil {
		return nil, err
	}
	return &metav1.Status{Status: metav1.StatusSuccess}, nil
}

// counts tells whether deleting the pod disrupts anything.
func counts(p *corev1.Pod) bool {
	return p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed && p.Status.Phase != corev1.PodPending && p.DeletionTimestamp == nil
}

// mark records in the pod's status why it goes.
func (e *evictionREST) mark(ctx context.Context, p *corev1.Pod) error {
	write := *e.pods
	write.UpdateStrategy = bindStrategy{e.pods.UpdateStrategy.(strategy)}
	_, _, err := write.Update(ctx, p.Name, rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
		o := old.DeepCopyObject().(*corev1.Pod)
		setCondition(o, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI",
			Message: "Eviction API: evicting", ObservedGeneration: o.Generation, LastTransitionTime: metav1.Now(),
		})
		return o, nil
	}), rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	return err
}

func (e *evictionREST) spend(ctx context.Context, p *corev1.Pod, how *metav1.DeleteOptions) error {
	store := e.stores[policyv1.Resource("poddisruptionbudgets")]
	list, err := store.List(ctx, &internalversion.ListOptions{})
	if err != nil {
		return err
	}
	var mine []*policyv1.PodDisruptionBudget
	for i := range list.(*policyv1.PodDisruptionBudgetList).Items {
		b := &list.(*policyv1.PodDisruptionBudgetList).Items[i]
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err == nil && selector.Matches(labels.Set(p.Labels)) {
			mine = append(mine, b)
		}
	}
	if len(mine) == 0 {
		return nil
	}
	if len(mine) > 1 {
		return apierrors.NewInternalError(fmt.Errorf("this pod has more than one PodDisruptionBudget, which the eviction subresource does not support"))
	}
	budget := mine[0].DeepCopy()
	all, err := e.pods.List(ctx, &internalversion.ListOptions{})
	if err != nil {
		return err
	}
	now := time.Now()
	status := count(now, budget, all.(*corev1.PodList).Items, func(owner types.UID) (int32, bool) { return e.wanted(ctx, owner) })
	always := budget.Spec.UnhealthyPodEvictionPolicy != nil && *budget.Spec.UnhealthyPodEvictionPolicy == policyv1.AlwaysAllow
	free := !ready(p) && (always || status.CurrentHealthy >= status.DesiredHealthy && status.DesiredHealthy > 0)
	if !free {
		if status.DisruptionsAllowed <= 0 {
			// No time to retry after: client-go would wait for it by itself, ten times.
			refused := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
			refused.ErrStatus.Details.Causes = append(refused.ErrStatus.Details.Causes, metav1.StatusCause{
				Type:    policyv1.DisruptionBudgetCause,
				Message: fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", budget.Name, status.DesiredHealthy, status.CurrentHealthy),
			})
			return refused
		}
		status.DisruptionsAllowed--
		if status.DisruptedPods == nil {
			status.DisruptedPods = map[string]metav1.Time{}
		}
		status.DisruptedPods[p.Name] = metav1.NewTime(now)
	}
	if dry(how) {
		return nil
	}
	budget.Status = status
	write := *store
	s := store.UpdateStrategy.(strategy).forPart("status", nil)
	write.UpdateStrategy = s
	_, _, err = write.Update(ctx, budget.Name, rest.DefaultUpdatedObjectInfo(budget), rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	return err
}

// wanted is the number of replicas that the owner with this uid asks for.
func (e *evictionREST) wanted(ctx context.Context, owner types.UID) (int32, bool) {
	for _, gr := range []schema.GroupResource{{Group: "apps", Resource: "replicasets"}, {Group: "apps", Resource: "statefulsets"}, {Resource: "replicationcontrollers"}} {
		list, err := e.stores[gr].List(ctx, &internalversion.ListOptions{})
		if err != nil {
			continue
		}
		n, found := replicas(list, owner)
		if found {
			return n, true
		}
	}
	return 0, false
}

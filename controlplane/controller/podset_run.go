package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"perch/controlplane/controller/reconcile"
	"perch/controlplane/event"
)

// podKeeper creates, deletes, adopts and releases pods for their owners. It is
// the hand of ReplicaSets, ReplicationControllers and Jobs.
type podKeeper struct {
	component string
	kind      schema.GroupVersionKind // of the owners
	kube      kubernetes.Interface
	pods      corelisters.PodLister
	tell      event.Tell
	expect    *reconcile.Expectations
}

// source feeds the owner's loop with pod changes. owners lists the owners of a
// namespace that could adopt a pod nobody owns.
func (k *podKeeper) source(informer cache.SharedIndexInformer, owners func(pod *corev1.Pod) []reconcile.Key) reconcile.Source {
	keysOf := reconcile.Owner(k.kind.Kind)
	return reconcile.Source{
		Informer: informer,
		Keys: func(object any) []reconcile.Key {
			if keys := keysOf(object); keys != nil {
				return keys
			}
			if pod, ok := object.(*corev1.Pod); ok && controllerOf(pod) == nil {
				return owners(pod)
			}
			return nil
		},
		Seen: func(change reconcile.Change, object any) {
			pod, ok := object.(*corev1.Pod)
			if !ok {
				return
			}
			for _, key := range keysOf(pod) {
				if change == reconcile.Added {
					k.expect.Created(key)
				}
				if change == reconcile.Removed || pod.DeletionTimestamp != nil {
					k.expect.Deleted(key, pod.UID)
				}
			}
		},
	}
}

// claim returns the pods of owner after adopting and releasing. live fetches the
// owner from the API server: only one that really still exists may adopt.
func (k *podKeeper) claim(ctx context.Context, owner metav1.Object, selector labels.Selector, live func() (metav1.Object, error)) ([]*corev1.Pod, error) {
	all, err := k.pods.Pods(owner.GetNamespace()).List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list pods of %s: %w", owner.GetNamespace(), err)
	}
	c := decideClaims(owner, selector, byName(all))
	for _, pod := range c.Release {
		patch := map[string]any{"metadata": map[string]any{
			"uid":             pod.UID,
			"ownerReferences": []any{map[string]any{"$patch": "delete", "uid": owner.GetUID()}},
		}}
		if err := k.patch(ctx, pod, patch); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsInvalid(err) {
			return nil, fmt.Errorf("release pod %s/%s: %w", pod.Namespace, pod.Name, err)
		}
	}
	var adoptable error
	if len(c.Adopt) > 0 {
		adoptable = checkLive(owner, live)
	}
	for _, pod := range c.Adopt {
		if podFinished(pod) {
			continue
		}
		if adoptable != nil {
			return nil, adoptable
		}
		patch := map[string]any{"metadata": map[string]any{
			"uid":             pod.UID,
			"ownerReferences": []any{metav1.NewControllerRef(owner, k.kind)},
		}}
		switch err := k.patch(ctx, pod, patch); {
		case apierrors.IsNotFound(err):
		case err != nil:
			return nil, fmt.Errorf("adopt pod %s/%s: %w", pod.Namespace, pod.Name, err)
		default:
			c.Mine = append(c.Mine, pod)
		}
	}
	return c.Mine, nil
}

func checkLive(owner metav1.Object, live func() (metav1.Object, error)) error {
	fresh, err := live()
	if err != nil {
		return fmt.Errorf("read adopter %s/%s: %w", owner.GetNamespace(), owner.GetName(), err)
	}
	if fresh.GetUID() != owner.GetUID() || fresh.GetDeletionTimestamp() != nil {
		return fmt.Errorf("adopt for %s/%s: it was deleted or replaced", owner.GetNamespace(), owner.GetName())
	}
	return nil
}

func (k *podKeeper) patch(ctx context.Context, pod *corev1.Pod, patch map[string]any) error {
	data, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	_, err = k.kube.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{})
	return err
}

// create makes pods one after the other: the first refusal (quota, admission)
// ends the attempt, so that a refused set costs one request and not hundreds.
func (k *podKeeper) create(ctx context.Context, key reconcile.Key, owner metav1.Object, pods []*corev1.Pod) (int, error) {
	k.expect.ExpectCreates(time.Now(), key, len(pods))
	for i, pod := range pods {
		pod.OwnerReferences = append(pod.OwnerReferences, *metav1.NewControllerRef(owner, k.kind))
		made, err := k.kube.CoreV1().Pods(key.Namespace).Create(ctx, pod, metav1.CreateOptions{})
		if err != nil {
			for range pods[i:] {
				k.expect.Created(key)
			}
			if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				return i, nil // the namespace goes, and the owner with it
			}
			k.say(owner, event.Warning, "FailedCreate", fmt.Sprintf("Error creating: %v", err))
			return i, fmt.Errorf("create pod for %s %s: %w", k.kind.Kind, key, err)
		}
		k.say(owner, event.Normal, "SuccessfulCreate", "Created pod: "+made.Name)
	}
	return len(pods), nil
}

// delete removes pods; what is already gone counts as removed.
func (k *podKeeper) delete(ctx context.Context, key reconcile.Key, owner metav1.Object, pods []*corev1.Pod) error {
	k.expect.ExpectDeletes(time.Now(), key, uids(pods)...)
	var errs error
	for _, pod := range pods {
		err := k.kube.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
		if err != nil {
			k.expect.Deleted(key, pod.UID)
			if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
				continue
			}
			k.say(owner, event.Warning, "FailedDelete", fmt.Sprintf("Error deleting %q: %v", pod.Name, err))
			errs = errors.Join(errs, fmt.Errorf("delete pod %s/%s: %w", pod.Namespace, pod.Name, err))
			continue
		}
		k.say(owner, event.Normal, "SuccessfulDelete", "Deleted pod: "+pod.Name)
	}
	return errs
}

func (k *podKeeper) say(owner metav1.Object, kind, reason, message string) {
	k.tell(event.Record{Component: k.component, Object: event.RefOf(owner, k.kind), Type: kind, Reason: reason, Message: message})
}

// podOf makes a pod from a template.
func podOf(template *corev1.PodTemplateSpec, namespace, prefix string) *corev1.Pod {
	t := template.DeepCopy()
	if len(prefix) > 57 { // room for the random suffix within a DNS label
		prefix = prefix[:57]
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, GenerateName: prefix + "-",
			Labels: t.Labels, Annotations: t.Annotations, Finalizers: t.Finalizers,
		},
		Spec: t.Spec,
	}
}

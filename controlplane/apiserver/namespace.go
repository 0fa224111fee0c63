package apiserver

import (
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	storageerr "k8s.io/apiserver/pkg/storage/errors"
	"k8s.io/apiserver/pkg/util/dryrun"
)

func newNamespace(_ context.Context, n *corev1.Namespace) {
	n.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	if !slices.Contains(n.Spec.Finalizers, corev1.FinalizerKubernetes) {
		n.Spec.Finalizers = append(n.Spec.Finalizers, corev1.FinalizerKubernetes)
	}
	labelNamespace(n)
}

// labelNamespace lets selectors find a namespace by its name.
func labelNamespace(n *corev1.Namespace) {
	if n.Name == "" {
		return
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[corev1.LabelMetadataName] = n.Name
}

func namespaceFields(n *corev1.Namespace) fields.Set {
	return fields.Set{"status.phase": string(n.Status.Phase), "name": n.Name}
}

// namespaceParts adds /finalize: whoever emptied the namespace takes its mark
// off spec.finalizers there.
func namespaceParts(i *installer, store *genericregistry.Store, parts map[string]rest.Storage) {
	store.ShouldDeleteDuringUpdate = func(ctx context.Context, key string, o, existing runtime.Object) bool {
		n := o.(*corev1.Namespace)
		return len(n.Spec.Finalizers) == 0 && genericregistry.ShouldDeleteDuringUpdate(ctx, key, o, existing)
	}
	finalize := *store
	s := i.strategyOf(store).forPart("finalize", nil)
	finalize.UpdateStrategy, finalize.ResetFieldsStrategy = s, s
	parts["namespaces/finalize"] = &updateOnly{&finalize}
	if status, ok := parts["namespaces/status"].(*partStore); ok {
		status.store.ShouldDeleteDuringUpdate = store.ShouldDeleteDuringUpdate
	}
}

// updateOnly serves PUT on a subresource and nothing else.
type updateOnly struct{ store *genericregistry.Store }

// New is an empty object of the parent kind.
func (u *updateOnly) New() runtime.Object { return u.store.New() }

// Destroy leaves the shared storage alone.
func (u *updateOnly) Destroy() {}

// Update writes through the part's own strategy.
func (u *updateOnly) Update(ctx context.Context, name string, want rest.UpdatedObjectInfo, create rest.ValidateObjectFunc, update rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return u.store.Update(ctx, name, want, create, update, false, options)
}

// namespaceKind deletes in two steps: first the namespace is marked and a
// controller empties it, then, without finalizers, it goes.
type namespaceKind struct{ *kindStore }

func namespaceStore(k *kindStore) rest.Storage { return &namespaceKind{k} }

var _ rest.GracefulDeleter = (*namespaceKind)(nil)

// Delete marks a namespace as terminating, or removes one that is empty.
func (n *namespaceKind) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	have, err := n.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, false, err
	}
	namespace := have.(*corev1.Namespace)
	if options == nil {
		options = metav1.NewDeleteOptions(0)
	}
	pre := storage.Preconditions{}
	if options.Preconditions != nil {
		pre.UID, pre.ResourceVersion = options.Preconditions.UID, options.Preconditions.ResourceVersion
	}
	if pre.UID == nil {
		pre.UID = &namespace.UID
	}
	if *pre.UID != namespace.UID {
		return nil, false, apierrors.NewConflict(corev1.Resource("namespaces"), name, errors.New("the UID in the precondition differs from that of the namespace"))
	}
	if namespace.DeletionTimestamp != nil {
		if len(namespace.Spec.Finalizers) == 0 {
			return n.Store.Delete(ctx, name, validate, options)
		}
		return namespace, false, nil
	}
	key, err := n.KeyFunc(ctx, name)
	if err != nil {
		return nil, false, err
	}
	out := n.New()
	err = n.Storage.GuaranteedUpdate(ctx, key, out, false, &pre, storage.SimpleUpdate(func(o runtime.Object) (runtime.Object, error) {
		existing := o.(*corev1.Namespace)
		if validate != nil {
			if err := validate(ctx, existing); err != nil {
				return nil, err
			}
		}
		if existing.DeletionTimestamp == nil {
			now := metav1.Now()
			existing.DeletionTimestamp = &now
		}
		existing.Status.Phase = corev1.NamespaceTerminating
		return existing, nil
	}), dryrun.IsDryRun(options.DryRun), nil)
	if err != nil {
		return nil, false, storageerr.InterpretUpdateError(err, corev1.Resource("namespaces"), name)
	}
	if len(namespace.Spec.Finalizers) == 0 {
		return n.Store.Delete(ctx, name, validate, options)
	}
	return out, false, nil
}

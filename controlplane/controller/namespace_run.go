package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"

	"perch/controlplane/controller/reconcile"
)

// namespaces empty deleted namespaces, whatever kinds they hold, and let them go.
type namespaces struct {
	deps
	namespaces corelisters.NamespaceLister
}

func newNamespace(d deps) *reconcile.Controller {
	informer := d.informers.Core().V1().Namespaces()
	c := &namespaces{d, informer.Lister()}
	return &reconcile.Controller{
		Name: "namespace", Reads: []string{"Namespace", "*"},
		Writes:    []reconcile.Part{{Kind: "Namespace", Fields: "status"}, {Kind: "Namespace", Fields: "spec.finalizers"}, {Kind: "*", Fields: "objects", Of: "deleted Namespace"}},
		Workers:   2,
		Sources:   []reconcile.Source{{Informer: informer.Informer()}},
		Reconcile: c.reconcile,
	}
}

func (c *namespaces) reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	ns, err := c.namespaces.Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read namespace %s: %w", key.Name, err)
	}
	if ns.DeletionTimestamp == nil || !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		return 0, nil
	}
	left := c.empty(ctx, ns.Name)
	status := namespaceStatus(time.Now(), ns.Status, left)
	if !apiequality.Semantic.DeepEqual(status, ns.Status) {
		fresh := ns.DeepCopy()
		fresh.Status = status
		if ns, err = c.kube.CoreV1().Namespaces().UpdateStatus(ctx, fresh, metav1.UpdateOptions{}); err != nil {
			return 0, fmt.Errorf("update status of namespace %s: %w", key.Name, err)
		}
	}
	if left.any() {
		return time.Second, nil
	}
	fresh := ns.DeepCopy()
	fresh.Spec.Finalizers = slices.DeleteFunc(fresh.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
	if _, err := c.kube.CoreV1().Namespaces().Finalize(ctx, fresh, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("finalize namespace %s: %w", key.Name, err)
	}
	c.log.Info("namespace was emptied", "namespace", key.Name)
	return 0, nil
}

// empty asks for the deletion of everything in a namespace and reports what remains.
func (c *namespaces) empty(ctx context.Context, name string) leftovers {
	left := leftovers{objects: map[string]int{}, finalizers: map[string]int{}}
	kinds, err := servedKinds(c.kube.Discovery(), "delete", "list")
	left.discovery = err
	for _, kind := range kinds {
		if !kind.Namespaced {
			continue
		}
		if err := c.emptyKind(ctx, name, kind, &left); err != nil {
			left.deletion = errors.Join(left.deletion, err)
		}
	}
	return left
}

func (c *namespaces) emptyKind(ctx context.Context, name string, kind served, left *leftovers) error {
	client := c.metadata.Resource(kind.GVR).Namespace(name)
	list, err := client.List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
		return nil // the kind went away meanwhile
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", kind.GVR.GroupResource(), err)
	}
	if len(list.Items) == 0 {
		return nil
	}
	background := metav1.DeletePropagationBackground
	for i := range list.Items {
		if list.Items[i].DeletionTimestamp != nil {
			continue // asked before: it waits for its grace period or a finalizer
		}
		err := client.Delete(ctx, list.Items[i].Name, metav1.DeleteOptions{PropagationPolicy: &background})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("delete %s %s: %w", kind.GVR.GroupResource(), list.Items[i].Name, err)
		}
	}
	list, err = client.List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list %s: %w", kind.GVR.GroupResource(), err)
	}
	for i := range list.Items {
		left.objects[resourceName(kind)]++
		for _, f := range list.Items[i].Finalizers {
			left.finalizers[f]++
		}
	}
	return nil
}

func resourceName(kind served) string {
	return strings.TrimSuffix(kind.GVR.Resource+"."+kind.GVR.Group, ".")
}

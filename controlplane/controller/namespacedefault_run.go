package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"

	"perch/controlplane/controller/reconcile"
)

const rootCAName = "kube-root-ca.crt"

// namespaceDefaults put into every namespace what pods expect to find there: the
// ServiceAccount "default" and the cluster's root certificate.
type namespaceDefaults struct {
	deps
	namespaces corelisters.NamespaceLister
	accounts   corelisters.ServiceAccountLister
	maps       corelisters.ConfigMapLister
}

func newNamespaceDefault(d deps) *reconcile.Controller {
	core := d.informers.Core().V1()
	c := &namespaceDefaults{d, core.Namespaces().Lister(), core.ServiceAccounts().Lister(), core.ConfigMaps().Lister()}
	named := func(name string) func(any) []reconcile.Key {
		return func(object any) []reconcile.Key {
			if o, ok := object.(metav1.Object); ok && o.GetName() == name {
				return []reconcile.Key{{Name: o.GetNamespace()}}
			}
			return nil
		}
	}
	return &reconcile.Controller{
		Name: "namespacedefault", Reads: []string{"Namespace", "ServiceAccount", "ConfigMap"},
		Writes:  []reconcile.Part{{Kind: "ServiceAccount", Fields: "objects", Of: "default"}, {Kind: "ConfigMap", Fields: "objects", Of: rootCAName}},
		Workers: 2,
		Sources: []reconcile.Source{
			{Informer: core.Namespaces().Informer()},
			{Informer: core.ServiceAccounts().Informer(), Keys: named("default")},
			{Informer: core.ConfigMaps().Informer(), Keys: named(rootCAName)},
		},
		Reconcile: c.reconcile,
	}
}

func (c *namespaceDefaults) reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	ns, err := c.namespaces.Get(key.Name)
	if apierrors.IsNotFound(err) || (err == nil && ns.DeletionTimestamp != nil) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read namespace %s: %w", key.Name, err)
	}
	if _, err := c.accounts.ServiceAccounts(ns.Name).Get("default"); apierrors.IsNotFound(err) {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "default"}}
		if _, err := c.kube.CoreV1().ServiceAccounts(ns.Name).Create(ctx, account, metav1.CreateOptions{}); refusedFor(err) != nil {
			return 0, fmt.Errorf("create serviceaccount %s/default: %w", ns.Name, err)
		}
	}
	if len(c.cfg.RootCA) == 0 {
		return 0, nil
	}
	want := map[string]string{"ca.crt": string(c.cfg.RootCA)}
	have, err := c.maps.ConfigMaps(ns.Name).Get(rootCAName)
	switch {
	case apierrors.IsNotFound(err):
		object := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: rootCAName, Annotations: map[string]string{
				"kubernetes.io/description": "Contains a CA bundle that can be used to verify the API server of this cluster.",
			}},
			Data: want,
		}
		if _, err := c.kube.CoreV1().ConfigMaps(ns.Name).Create(ctx, object, metav1.CreateOptions{}); refusedFor(err) != nil {
			return 0, fmt.Errorf("create configmap %s/%s: %w", ns.Name, rootCAName, err)
		}
	case err != nil:
		return 0, fmt.Errorf("read configmap %s/%s: %w", ns.Name, rootCAName, err)
	case len(have.Data) != 1 || have.Data["ca.crt"] != want["ca.crt"]:
		fresh := have.DeepCopy()
		fresh.Data, fresh.BinaryData = want, nil
		if _, err := c.kube.CoreV1().ConfigMaps(ns.Name).Update(ctx, fresh, metav1.UpdateOptions{}); err != nil {
			return 0, fmt.Errorf("update configmap %s/%s: %w", ns.Name, rootCAName, err)
		}
	}
	return 0, nil
}

// refusedFor leaves out the answers that need no second try.
func refusedFor(err error) error {
	if err == nil || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return err
}

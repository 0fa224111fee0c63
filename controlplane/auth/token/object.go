package token

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
)

// Objects looks up what tokens are bound to. uid is the one the caller hopes
// for, empty when any will do; an implementation with a cache uses it to notice
// that the cache is behind. A missing object is a NotFound API error.
type Objects struct {
	ServiceAccount func(ctx context.Context, namespace, name string, uid types.UID) (*corev1.ServiceAccount, error)
	Pod            func(ctx context.Context, namespace, name string, uid types.UID) (*corev1.Pod, error)
	Secret         func(ctx context.Context, namespace, name string, uid types.UID) (*corev1.Secret, error)
	Node           func(ctx context.Context, name string, uid types.UID) (*corev1.Node, error)
}

// Cached answers from informers, and asks the server when they do not know: a
// token is often requested within milliseconds after its pod was created.
// Secrets are always asked for, so that they need not all lie in memory.
func Cached(f informers.SharedInformerFactory, client kubernetes.Interface) Objects {
	core := f.Core().V1()
	accounts, pods, nodes := core.ServiceAccounts().Lister(), core.Pods().Lister(), core.Nodes().Lister()
	return Objects{
		ServiceAccount: func(ctx context.Context, namespace, name string, uid types.UID) (*corev1.ServiceAccount, error) {
			if have, err := accounts.ServiceAccounts(namespace).Get(name); err == nil && (uid == "" || have.UID == uid) {
				return have, nil
			}
			return found(client.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{}))
		},
		Pod: func(ctx context.Context, namespace, name string, uid types.UID) (*corev1.Pod, error) {
			if have, err := pods.Pods(namespace).Get(name); err == nil && uid != "" && have.UID == uid && have.Spec.NodeName != "" {
				return have, nil
			}
			return found(client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{}))
		},
		Secret: func(ctx context.Context, namespace, name string, _ types.UID) (*corev1.Secret, error) {
			return found(client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{}))
		},
		Node: func(ctx context.Context, name string, uid types.UID) (*corev1.Node, error) {
			if have, err := nodes.Get(name); err == nil && (uid == "" || have.UID == uid) {
				return have, nil
			}
			return found(client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{}))
		},
	}
}

// found drops the empty object that clients return beside an error.
func found[T any](object *T, err error) (*T, error) {
	if err != nil {
		return nil, err
	}
	return object, nil
}

// absent turns NotFound into a nil object, which is an answer and not a failure.
func absent[T any](object *T, err error) (*T, error) {
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return object, err
}

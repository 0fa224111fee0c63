package event

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// The two types of events Kubernetes knows.
const (
	Normal  = corev1.EventTypeNormal
	Warning = corev1.EventTypeWarning
)

// Record is one fact: what happened to which object, told by whom, and why.
type Record struct {
	Component string                 // who tells: "scheduler", "deployment-controller", "kubelet"
	Object    corev1.ObjectReference // whom it concerns; Kind and Name are required
	Type      string                 // Normal or Warning; empty means Normal
	Reason    string                 // UpperCamelCase from a finite list; a metric label
	Message   string                 // a sentence with the numbers used; cut at 1024 bytes
}

// Tell takes a record and returns at once. It is safe for concurrent use.
type Tell func(Record)

// Ref names an object the way events do. apiVersion is "v1" or "group/version".
func Ref(object metav1.Object, apiVersion, kind string) corev1.ObjectReference {
	return corev1.ObjectReference{
		APIVersion: apiVersion, Kind: kind,
		Namespace: object.GetNamespace(), Name: object.GetName(),
		UID: object.GetUID(), ResourceVersion: object.GetResourceVersion(),
	}
}

// RefOf is Ref for a kind given as GroupVersionKind.
func RefOf(object metav1.Object, kind schema.GroupVersionKind) corev1.ObjectReference {
	return Ref(object, kind.GroupVersion().String(), kind.Kind)
}

package controller

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"

	"perch/controlplane/controller/reconcile"
	"perch/controlplane/event"
)

var widgets = schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}

func thing(apiVersion, kind, name string, uid types.UID, owners ...metav1.OwnerReference) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: apiVersion, Kind: kind},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: uid, OwnerReferences: owners},
	}
}

func owner(apiVersion, kind, name string, uid types.UID) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: apiVersion, Kind: kind, Name: name, UID: uid, BlockOwnerDeletion: ref(true)}
}

// collect runs loops over objects known by metadata only: pods and a custom kind.
func collect(t *testing.T, build func(deps) *reconcile.Controller, kube []runtime.Object, objects ...runtime.Object) (*metadatafake.FakeMetadataClient, *fake.Clientset) {
	t.Helper()
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	meta, client := metadatafake.NewSimpleMetadataClient(scheme, objects...), fake.NewClientset(kube...)
	verbs := metav1.Verbs{"get", "list", "watch", "delete"}
	client.Resources = []*metav1.APIResourceList{
		{GroupVersion: "v1", APIResources: []metav1.APIResource{{Name: "pods", Kind: "Pod", Namespaced: true, Verbs: verbs}, {Name: "pods/status", Kind: "Pod", Namespaced: true, Verbs: metav1.Verbs{"get"}}}},
		{GroupVersion: "example.com/v1", APIResources: []metav1.APIResource{{Name: "widgets", Kind: "Widget", Namespaced: true, Verbs: verbs}}},
	}
	factory := reconcile.NewInformers(client)
	d := deps{cfg: Default(), kube: client, metadata: meta, informers: factory, tell: func(event.Record) {}, log: slog.New(slog.DiscardHandler)}
	loop := build(d)
	ctx, cancel := context.WithCancel(context.Background())
	factory.Start(ctx.Done())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx, d.log, reconcile.NewMetrics(nil)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		factory.Shutdown()
	})
	return meta, client
}

func TestGarbageFollowsOwnersOfEveryKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pods := corev1.SchemeGroupVersion.WithResource("pods")
		leaving := thing("example.com/v1", "Widget", "leaving", "w3")
		leaving.DeletionTimestamp, leaving.Finalizers = &metav1.Time{Time: time.Now()}, []string{metav1.FinalizerDeleteDependents}
		freeing := thing("example.com/v1", "Widget", "freeing", "w4")
		freeing.DeletionTimestamp, freeing.Finalizers = &metav1.Time{Time: time.Now()}, []string{metav1.FinalizerOrphanDependents}
		meta, _ := collect(t, newGarbage, nil,
			thing("example.com/v1", "Widget", "here", "w1"), leaving, freeing,
			thing("v1", "Pod", "kept", "p1", owner("example.com/v1", "Widget", "here", "w1")),
			thing("v1", "Pod", "ownerless", "p2", owner("example.com/v1", "Widget", "never", "w9")),
			thing("v1", "Pod", "replaced", "p3", owner("example.com/v1", "Widget", "here", "an-older-one")),
			thing("v1", "Pod", "shared", "p4", owner("example.com/v1", "Widget", "here", "w1"), owner("example.com/v1", "Widget", "never", "w9")),
			thing("v1", "Pod", "blocking", "p5", owner("example.com/v1", "Widget", "leaving", "w3")),
			thing("v1", "Pod", "freed", "p6", owner("example.com/v1", "Widget", "freeing", "w4")),
			thing("v1", "Pod", "stranger", "p7", owner("unknown.io/v1", "Thing", "x", "x1")),
		)
		<-time.After(20 * time.Second)
		get := func(gvr schema.GroupVersionResource, name string) *metav1.PartialObjectMetadata {
			o, err := meta.Resource(gvr).Namespace("shop").Get(t.Context(), name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			if err != nil {
				t.Fatal(err)
			}
			return o
		}
		for _, name := range []string{"kept", "shared", "freed", "stranger"} {
			if get(pods, name) == nil {
				t.Errorf("pod %s must stay", name)
			}
		}
		for _, name := range []string{"ownerless", "replaced", "blocking"} {
			if get(pods, name) != nil {
				t.Errorf("pod %s must go", name)
			}
		}
		if o := get(pods, "shared"); o != nil && (len(o.OwnerReferences) != 1 || o.OwnerReferences[0].UID != "w1") {
			t.Errorf("shared pod keeps the owner that exists: %v", o.OwnerReferences)
		}
		if o := get(pods, "freed"); o != nil && len(o.OwnerReferences) != 0 {
			t.Errorf("freed pod has owners %v", o.OwnerReferences)
		}
		for _, name := range []string{"leaving", "freeing"} {
			if o := get(widgets, name); o == nil || len(o.Finalizers) != 0 {
				t.Errorf("%s must lose its finalizer: %+v", name, o)
			}
		}
		// The owner goes: what it owned follows.
		if err := meta.Resource(widgets).Namespace("shop").Delete(t.Context(), "here", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		<-time.After(5 * time.Second)
		if get(pods, "kept") != nil || get(pods, "shared") != nil {
			t.Error("pods of a deleted owner must go")
		}
	})
}

func TestADeletedNamespaceIsEmptiedOfCustomObjectsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := metav1.Now()
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", DeletionTimestamp: &now}, Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}}}
		stuck := thing("example.com/v1", "Widget", "stuck", "w1")
		stuck.DeletionTimestamp, stuck.Finalizers = &now, []string{"example.com/wait"}
		meta, client := collect(t, newNamespace, []runtime.Object{ns}, stuck, thing("v1", "Pod", "p", "p1"))
		<-time.After(3 * time.Second)
		have, err := client.CoreV1().Namespaces().Get(t.Context(), "shop", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		said := map[corev1.NamespaceConditionType]string{}
		for _, c := range have.Status.Conditions {
			said[c.Type] = c.Message
		}
		if said[corev1.NamespaceContentRemaining] != "Some resources are remaining: widgets.example.com has 1 resource instances" ||
			said[corev1.NamespaceFinalizersRemaining] != "Some content in the namespace has finalizers remaining: example.com/wait in 1 resource instances" {
			t.Errorf("conditions %v", said)
		}
		if list, err := meta.Resource(corev1.SchemeGroupVersion.WithResource("pods")).Namespace("shop").List(t.Context(), metav1.ListOptions{}); err != nil || len(list.Items) != 0 {
			t.Errorf("pods remain: %v %v", list, err)
		}
		if err := meta.Resource(widgets).Namespace("shop").Delete(t.Context(), "stuck", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		<-time.After(3 * time.Second)
		finalized := false
		for _, action := range client.Actions() {
			finalized = finalized || action.GetSubresource() == "finalize"
		}
		if !finalized {
			t.Error("an empty namespace must be finalized")
		}
	})
}

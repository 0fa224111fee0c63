package controller

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"perch/controlplane/controller/reconcile"
)

func toUnstructured(object map[string]any) runtime.Unstructured {
	return &unstructured.Unstructured{Object: object}
}

func webSet(replicas int32) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}},
		},
	}
}

func setLoop(d deps) []*reconcile.Controller { return []*reconcile.Controller{newReplicaSet(d)} }

func TestAReplicaSetAdoptsReleasesAndReplaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		orphan := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "orphan", Labels: map[string]string{"app": "web"}}}
		w := newWorld(t, setLoop, webSet(3), orphan)
		<-time.After(time.Minute)
		if have := w.pods("app=web"); len(have) != 3 {
			t.Fatalf("%d pods, want 3 with the adopted one", len(have))
		}
		// A pod relabelled by an operator leaves the set, keeps running and is replaced.
		p, err := w.client.CoreV1().Pods("shop").Get(w.ctx, "orphan", metav1.GetOptions{})
		w.ok(err)
		if controllerOf(p) == nil {
			t.Fatal("the orphan was not adopted")
		}
		p.Labels = map[string]string{"app": "debug"}
		_, err = w.client.CoreV1().Pods("shop").Update(w.ctx, p, metav1.UpdateOptions{})
		w.ok(err)
		<-time.After(time.Minute)
		p, err = w.client.CoreV1().Pods("shop").Get(w.ctx, "orphan", metav1.GetOptions{})
		w.ok(err)
		if controllerOf(p) != nil || len(w.pods("app=web")) != 3 {
			t.Errorf("owner %v, %d pods in the set", controllerOf(p), len(w.pods("app=web")))
		}
		set, err := w.client.AppsV1().ReplicaSets("shop").Get(w.ctx, "web", metav1.GetOptions{})
		w.ok(err)
		if s := set.Status; s.Replicas != 3 || s.ReadyReplicas != 3 || s.AvailableReplicas != 3 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestAQuotaThatRefusesPodsShowsInTheConditionAndCostsFewRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, setLoop, webSet(50))
		var refusals, raised atomic.Int32
		w.intercept("create", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			if raised.Load() == 0 && len(w.pods("app=web")) >= 2 {
				refusals.Add(1)
				return true, nil, errors.New("exceeded quota")
			}
			return false, nil, nil
		})
		<-time.After(time.Minute)
		set, err := w.client.AppsV1().ReplicaSets("shop").Get(w.ctx, "web", metav1.GetOptions{})
		w.ok(err)
		if len(set.Status.Conditions) != 1 || set.Status.Conditions[0].Reason != "FailedCreate" || set.Status.Replicas != 2 {
			t.Errorf("status %+v", set.Status)
		}
		if refusals.Load() > 20 {
			t.Errorf("%d refused requests in a minute", refusals.Load())
		}
		raised.Store(1)
		<-time.After(time.Minute)
		if have := len(w.pods("app=web")); have != 50 {
			t.Errorf("%d pods after the quota was raised, want 50 exactly", have)
		}
	})
}

func TestDecidePodSet(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	at := func(name, node string, ready bool, edits ...func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))}}
		p.Spec.NodeName, p.Status.Phase = node, corev1.PodRunning
		status := corev1.ConditionFalse
		if ready {
			status = corev1.ConditionTrue
		}
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour))}}
		for _, edit := range edits {
			edit(p)
		}
		return p
	}
	tests := []struct {
		name   string
		want   int32
		pods   []*corev1.Pod
		crowd  map[string]int
		create int
		remove string
	}{
		{"missing pods are made", 3, []*corev1.Pod{at("a", "n", true)}, nil, 2, ""},
		{"ended and leaving pods do not count", 2, []*corev1.Pod{
			at("a", "n", true), at("b", "n", true, func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }),
			at("c", "n", true, func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: now} }),
		}, nil, 1, ""},
		{"an unassigned pod goes before an assigned one", 1, []*corev1.Pod{at("a", "n", true), at("b", "", false)}, nil, 0, "b"},
		{"one that is not ready goes before a ready one", 1, []*corev1.Pod{at("a", "n", true), at("b", "n", false)}, nil, 0, "b"},
		{"the cheaper to delete goes first", 1, []*corev1.Pod{
			at("a", "n", true), at("b", "n", true, func(p *corev1.Pod) {
				p.Annotations = map[string]string{corev1.PodDeletionCost: "-5"}
			}),
		}, nil, 0, "b"},
		{"the fuller node gives first", 1, []*corev1.Pod{at("a", "n1", true), at("b", "n2", true)}, map[string]int{"n1": 1, "n2": 4}, 0, "b"},
		{"the one that restarted more goes first", 1, []*corev1.Pod{
			at("a", "n", true), at("b", "n", true, func(p *corev1.Pod) { p.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: 3}} }),
		}, nil, 0, "b"},
		{"the younger goes first", 1, []*corev1.Pod{
			at("a", "n", true), at("b", "n", true, func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(now.Add(-time.Minute)) }),
		}, nil, 0, "b"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			plan := decidePodSet(now, podSet{Replicas: test.want}, test.pods, test.crowd)
			var removed string
			for _, p := range plan.Delete {
				removed += p.Name
			}
			if plan.Create != test.create || removed != test.remove {
				t.Errorf("create %d, delete %q; want %d, %q", plan.Create, removed, test.create, test.remove)
			}
		})
	}
	t.Run("a ready pod is available after minReadySeconds", func(t *testing.T) {
		young := at("a", "n", true)
		young.Status.Conditions[0].LastTransitionTime = metav1.NewTime(now.Add(-4 * time.Second))
		plan := decidePodSet(now, podSet{Replicas: 1, MinReady: 10 * time.Second}, []*corev1.Pod{young}, nil)
		if plan.Status.Ready != 1 || plan.Status.Available != 0 || plan.Again != 6*time.Second {
			t.Errorf("%+v again in %s", plan.Status, plan.Again)
		}
	})
}

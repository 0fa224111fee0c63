package controller

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/kubectl/pkg/polymorphichelpers"

	"perch/controlplane/controller/reconcile"
)

func webDeployment(replicas int32, image string) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Generation: 1, Labels: map[string]string{"app": "web"}},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			RevisionHistoryLimit: ref(int32(2)), ProgressDeadlineSeconds: ref(int32(600)),
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{
				MaxSurge: ref(intstr.FromString("25%")), MaxUnavailable: ref(intstr.FromString("25%")),
			}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: image}}},
			},
		},
	}
}

func rolloutLoops(d deps) []*reconcile.Controller {
	return []*reconcile.Controller{newDeployment(d), newReplicaSet(d)}
}

func (w *world) deployment() *appsv1.Deployment {
	w.t.Helper()
	d, err := w.client.AppsV1().Deployments("shop").Get(w.ctx, "web", metav1.GetOptions{})
	w.ok(err)
	return d
}

func (w *world) edit(change func(*appsv1.Deployment)) {
	w.t.Helper()
	d := w.deployment()
	change(d)
	d.Generation++
	_, err := w.client.AppsV1().Deployments("shop").Update(w.ctx, d, metav1.UpdateOptions{})
	w.ok(err)
}

// rolledOut asks what `kubectl rollout status` asks.
func (w *world) rolledOut() (string, bool) {
	w.t.Helper()
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(w.deployment())
	w.ok(err)
	message, done, err := (&polymorphichelpers.DeploymentStatusViewer{}).Status(toUnstructured(object), 0)
	w.ok(err)
	return message, done
}

func (w *world) setsBySize() string {
	w.t.Helper()
	list, err := w.client.AppsV1().ReplicaSets("shop").List(w.ctx, metav1.ListOptions{})
	w.ok(err)
	var out []string
	for _, s := range list.Items {
		out = append(out, fmt.Sprintf("%s=%d@%s", s.Spec.Template.Spec.Containers[0].Image, *s.Spec.Replicas, s.Annotations[revisionAnnotation]))
	}
	return strings.Join(out, " ")
}

func TestARolloutCompletesWithinItsBudgetAndCanBeUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, rolloutLoops, webDeployment(4, "web:1"))
		<-time.After(time.Minute)
		if message, done := w.rolledOut(); !done || len(w.pods("app=web")) != 4 {
			t.Fatalf("first rollout: %s, %d pods", message, len(w.pods("app=web")))
		}
		if c := findCondition(w.deployment().Status.Conditions, appsv1.DeploymentProgressing); c == nil || c.Reason != "NewReplicaSetAvailable" {
			t.Errorf("progress condition %+v", c)
		}

		// Watch the budget: the sets never ask for more than 5 pods, at least 3 stay ready.
		w.intercept("update", "replicasets", func(action clienttesting.Action) (bool, runtime.Object, error) {
			if action.GetSubresource() != "" {
				return false, nil, nil
			}
			changed := action.(clienttesting.UpdateAction).GetObject().(*appsv1.ReplicaSet)
			total := *changed.Spec.Replicas
			list, err := w.client.Tracker().List(appsv1.SchemeGroupVersion.WithResource("replicasets"), appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), "shop")
			w.ok(err)
			for _, other := range list.(*appsv1.ReplicaSetList).Items {
				if other.Name != changed.Name {
					total += *other.Spec.Replicas
				}
			}
			if total > 5 {
				t.Errorf("the sets ask for %d pods, surge allows 5", total)
			}
			return false, nil, nil
		})
		w.intercept("delete", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			ready := 0
			for _, p := range w.pods("app=web") {
				if podReady(&p) {
					ready++
				}
			}
			if ready < 3 {
				t.Errorf("%d pods ready before a delete, 3 must stay", ready)
			}
			return false, nil, nil
		})
		w.edit(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "web:2" })
		<-time.After(time.Minute)
		if message, done := w.rolledOut(); !done {
			t.Fatalf("second rollout: %s", message)
		}
		if got := w.setsBySize(); !strings.Contains(got, "web:1=0@1") || !strings.Contains(got, "web:2=4@2") {
			t.Fatalf("sets after the rollout: %s", got)
		}

		// kubectl rollout undo puts the old template back.
		w.edit(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "web:1" })
		<-time.After(time.Minute)
		if got := w.setsBySize(); !strings.Contains(got, "web:1=4@3") || !strings.Contains(got, "web:2=0@2") {
			t.Fatalf("sets after undo: %s", got)
		}
		if got := w.deployment().Annotations[revisionAnnotation]; got != "3" {
			t.Errorf("revision %q, want 3", got)
		}

		// Old sets beyond the history limit of 2 go.
		for i := range 4 {
			w.edit(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = fmt.Sprint("web:", 10+i) })
			<-time.After(time.Minute)
		}
		if got := len(strings.Fields(w.setsBySize())); got != 3 {
			t.Errorf("%d sets kept, want the present one and 2 of history: %s", got, w.setsBySize())
		}
		if !w.heard("ScalingReplicaSet", "Scaled up replica set web-") {
			t.Error("scaling must be told")
		}
	})
}

func TestAStuckRolloutMissesItsDeadlineAndScalesProportionally(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, rolloutLoops, webDeployment(8, "web:1"))
		<-time.After(time.Minute)
		w.behaves(func(p *corev1.Pod) *corev1.PodStatus {
			if p.Spec.Containers[0].Image == "web:bad" {
				return stuck(p)
			}
			return running(p)
		})
		w.edit(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "web:bad" })
		<-time.After(time.Minute)
		// surge 2 and unavailable 2 of 8: six old ones stay, four new ones wait
		if got := w.setsBySize(); !strings.Contains(got, "web:1=6") || !strings.Contains(got, "web:bad=4") {
			t.Fatalf("stuck at %s", got)
		}
		w.edit(func(d *appsv1.Deployment) { d.Spec.Replicas = ref(int32(16)) })
		<-time.After(time.Minute)
		if got := w.setsBySize(); !strings.Contains(got, "web:1=12") || !strings.Contains(got, "web:bad=8") {
			t.Errorf("scaled in the middle of a rollout: %s, want 12 and 8", got)
		}
		<-time.After(11 * time.Minute)
		c := findCondition(w.deployment().Status.Conditions, appsv1.DeploymentProgressing)
		if c == nil || c.Reason != "ProgressDeadlineExceeded" || c.Status != corev1.ConditionFalse {
			t.Errorf("after the deadline: %+v", c)
		}
	})
}

func TestAPausedDeploymentScalesButDoesNotRoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, rolloutLoops, webDeployment(2, "web:1"))
		<-time.After(time.Minute)
		w.edit(func(d *appsv1.Deployment) {
			d.Spec.Paused = true
			d.Spec.Template.Spec.Containers[0].Image = "web:2"
			d.Spec.Replicas = ref(int32(3))
		})
		<-time.After(time.Minute)
		if got := w.setsBySize(); got != "web:1=3@1" {
			t.Errorf("paused: %s, want web:1=3@1", got)
		}
		if c := findCondition(w.deployment().Status.Conditions, appsv1.DeploymentProgressing); c.Reason != "DeploymentPaused" {
			t.Errorf("condition %+v", c)
		}
		w.edit(func(d *appsv1.Deployment) { d.Spec.Paused = false })
		<-time.After(time.Minute)
		if got := w.setsBySize(); !strings.Contains(got, "web:1=0@1") || !strings.Contains(got, "web:2=3@2") {
			t.Errorf("resumed: %s", got)
		}
	})
}

func TestRecreateEndsAllOldPodsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := webDeployment(3, "web:1")
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
		w := newWorld(t, rolloutLoops, d)
		<-time.After(time.Minute)
		w.intercept("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
			for _, p := range w.pods("app=web") {
				if p.Spec.Containers[0].Image == "web:1" {
					t.Error("a new pod was made while an old one lived")
				}
			}
			return false, nil, nil
		})
		w.edit(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "web:2" })
		<-time.After(time.Minute)
		if message, done := w.rolledOut(); !done || len(w.pods("app=web")) != 3 {
			t.Errorf("recreate: %s, %s", message, w.setsBySize())
		}
	})
}

func TestSurgeAndUnavailableRound(t *testing.T) {
	tests := []struct {
		name               string
		replicas           int32
		surge, unavailable intstr.IntOrString
		wantSurge, wantUn  int32
	}{
		{"a quarter of one surges one and takes none away", 1, intstr.FromString("25%"), intstr.FromString("25%"), 1, 0},
		{"a quarter of ten rounds up and down", 10, intstr.FromString("25%"), intstr.FromString("25%"), 3, 2},
		{"both zero would stand still", 5, intstr.FromInt32(0), intstr.FromString("10%"), 0, 1},
		{"unavailability ends at all", 2, intstr.FromInt32(1), intstr.FromInt32(5), 1, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := webDeployment(test.replicas, "x")
			d.Spec.Strategy.RollingUpdate.MaxSurge, d.Spec.Strategy.RollingUpdate.MaxUnavailable = &test.surge, &test.unavailable
			surge, unavailable := surgeAndUnavailable(d)
			if surge != test.wantSurge || unavailable != test.wantUn {
				t.Errorf("have %d and %d, want %d and %d", surge, unavailable, test.wantSurge, test.wantUn)
			}
		})
	}
}

package agent

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	k8stesting "k8s.io/client-go/testing"
)

func TestWhatTheWatchStillTellsOfAPodThatIsGoneDoesNotStartItAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.stop()
		late := watch.NewFakeWithChanSize(10, false)
		w.api.PrependWatchReactor("pods", func(k8stesting.Action) (bool, watch.Interface, error) { return true, late, nil })
		w.start()
		pass(2 * time.Second)
		p := simple("brief", "busybox", "sleep", "2")
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		w.create(p)
		late.Add(p)
		pass(time.Second)
		if got := w.reasons(); !slices.Contains(got, "Started") {
			t.Fatalf("the pod did not start: %v", got)
		}
		// It is deleted; whoever sends its status learns that before the watch tells it.
		w.api.PrependReactor("patch", "pods", func(k8stesting.Action) (bool, kruntime.Object, error) {
			return true, nil, apierrors.NewNotFound(corev1.Resource("pods"), p.Name)
		})
		pass(10 * time.Second)
		if len(w.containers()) != 0 || len(w.cg.have) != 0 {
			t.Fatalf("the pod is not gone: %d containers, cgroups %v", len(w.containers()), w.cg.have)
		}
		w.a.want(p.DeepCopy(), true) // as the watch would
		w.a.mu.Lock()
		if len(w.a.workers) != 0 {
			t.Error("an old event starts the pod again")
		}
		w.a.mu.Unlock()
		late.Delete(p)
		pass(time.Second)
		w.a.mu.Lock()
		defer w.a.mu.Unlock()
		if len(w.a.ended) != 0 || len(w.a.workers) != 0 {
			t.Errorf("%v and %d workers are remembered", w.a.ended, len(w.a.workers))
		}
	})
}

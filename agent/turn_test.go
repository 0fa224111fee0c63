package agent

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"perch/agent/runtime/runtimetest"
)

// slow is a runtime whose sandboxes take a second and whose pulls of images
// named slow never end.
type slow struct {
	*runtimetest.Fake
	now, most atomic.Int64 // sandboxes under way
}

func (s *slow) RunPodSandbox(ctx context.Context, config *cri.PodSandboxConfig, handler string) (string, error) {
	n := s.now.Add(1)
	defer s.now.Add(-1)
	s.most.Store(max(s.most.Load(), n)) // near enough: all begin in one bubble
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return "", ctx.Err()
	}
	return s.Fake.RunPodSandbox(ctx, config, handler)
}

func (s *slow) PullImage(ctx context.Context, img *cri.ImageSpec, auth *cri.AuthConfig, p *cri.PodSandboxConfig) (string, error) {
	<-ctx.Done()
	return "", ctx.Err()
}

func slowWorld(t *testing.T) (*world, *slow) {
	w := newWorld(t)
	w.stop()
	s := &slow{Fake: w.rt}
	w.via = s
	w.start()
	return w, s
}

func TestOfManyPodsTheFirstAreNotHeldUpByTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := slowWorld(t)
		const pods = 4 * maxBoxes
		for i := range pods {
			w.create(simple(fmt.Sprintf("p%d", i), "server"))
		}
		pass(1500 * time.Millisecond)
		if n := len(w.containers()); n != maxBoxes {
			t.Errorf("%d containers run after the first turn, want %d", n, maxBoxes)
		}
		pass(4 * time.Second)
		if n := len(w.containers()); n != pods {
			t.Errorf("%d containers run in the end, want %d", n, pods)
		}
		if got := s.most.Load(); got > maxBoxes {
			t.Errorf("%d sandboxes started at once, limit %d", got, maxBoxes)
		}
	})
}

func TestPullsAndHooksThatHangDoNotHoldUpOtherPods(t *testing.T) {
	hang := func(i int) *corev1.Pod {
		if i%2 == 0 {
			return simple(fmt.Sprintf("pull%d", i), "nowhere/slow")
		}
		p := simple(fmt.Sprintf("hook%d", i), "server")
		p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 600}}}
		return p
	}
	synctest.Test(t, func(t *testing.T) {
		w, _ := slowWorld(t)
		for i := range 4 * maxStarts {
			w.create(hang(i))
		}
		pass(20 * time.Second)
		w.create(simple("web", "server"))
		pass(5 * time.Second)
		if p := w.get("web"); p.Status.Phase != corev1.PodRunning {
			t.Errorf("phase %s, want Running", p.Status.Phase)
		}
	})
}

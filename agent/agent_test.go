package agent

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"perch/agent/image"
	"perch/agent/pod"
	"perch/agent/probe"
	"perch/agent/runtime"
	"perch/agent/runtime/runtimetest"
	"perch/controlplane/event"
)

// TestMain drops client-go's error handlers: one of them sleeps by a clock that
// starts before the bubbles of these tests do.
func TestMain(m *testing.M) {
	utilruntime.ErrorHandlers = nil
	m.Run()
}

// world is a node with a fake runtime and a fake API, in bubble time.
type world struct {
	t    *testing.T
	api  *fake.Clientset
	rt   *runtimetest.Fake
	via  runtime.Service // how the agent sees rt; nil: as it is
	dir  string
	stop func()
	a    *Agent
	cg   *fakeCgroups
	reg  *prometheus.Registry // of the agent that runs

	mu     sync.Mutex
	events []event.Record
	away   bool // the API does not answer
}

type fakeCgroups struct {
	mu   sync.Mutex
	have map[string]string
}

func (f *fakeCgroups) Make(class corev1.PodQOSClass, uid string, _ pod.Limits) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.have[uid] = string(class)
	return "/perch-t/" + strings.ToLower(string(class)) + "/pod" + uid, nil
}

func (f *fakeCgroups) Remove(uid string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.have, uid)
	return nil
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, api: fake.NewClientset(), dir: t.TempDir(), cg: &fakeCgroups{have: map[string]string{}}}
	w.rt = runtimetest.NewFake(runtimetest.FakeConfig{Images: []string{"busybox", "server"}})
	w.rt.Program("server", func(p *runtimetest.Process) int {
		for {
			select {
			case s := <-p.Signals:
				if s == syscall.SIGTERM {
					return 0
				}
			case <-p.Ctx.Done():
				return 137
			}
		}
	})
	w.api.PrependReactor("*", "*", func(k8stesting.Action) (bool, kruntime.Object, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.away {
			return true, nil, apierrors.NewServiceUnavailable("away")
		}
		return false, nil, nil
	})
	w.start()
	t.Cleanup(func() {
		w.stop()
		w.rt.Close()
	})
	return w
}

// start runs an agent, as a new process would.
func (w *world) start() {
	var rt runtime.Service = w.rt
	if w.via != nil {
		rt = w.via
	}
	w.reg = prometheus.NewRegistry()
	cfg := Default()
	cfg.Node, cfg.IPs, cfg.Data, cfg.ClusterDNS = "n1", []string{"192.0.2.1"}, w.dir, []string{"10.43.0.10"}
	a, err := New(cfg, Parts{
		API: w.api, Runtime: rt, Images: image.New(image.Config{}, rt, slog.New(slog.DiscardHandler), prometheus.NewRegistry()), Cgroups: w.cg,
		Tell:       func(r event.Record) { w.mu.Lock(); defer w.mu.Unlock(); w.events = append(w.events, r) },
		Services:   func(string) []*corev1.Service { return nil },
		Conditions: func() []corev1.NodeCondition { return nil },
		Drained:    func(context.Context, string) bool { return true },
		Leaving:    func(context.Context, string) {},
		Observe:    func(probe.Result) {},
	}, slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})), w.reg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.a = a
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		w.stop = func() {}
	}
}

func (w *world) create(p *corev1.Pod) {
	w.t.Helper()
	p.Spec.NodeName = "n1"
	if _, err := w.api.CoreV1().Pods(p.Namespace).Create(w.t.Context(), p, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) get(name string) *corev1.Pod {
	w.t.Helper()
	p, err := w.api.CoreV1().Pods("default").Get(w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// markDeleted is what an API server does for a graceful deletion.
func (w *world) markDeleted(name string, grace int64) {
	w.t.Helper()
	p := w.get(name)
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: time.Now().Add(time.Duration(grace) * time.Second)}, &grace
	if _, err := w.api.CoreV1().Pods(p.Namespace).Update(w.t.Context(), p, metav1.UpdateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) containers() []*cri.Container {
	w.t.Helper()
	list, err := w.rt.ListContainers(w.t.Context(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

func (w *world) reasons() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, e := range w.events {
		if e.Object.Kind == "Pod" {
			out = append(out, e.Reason)
		}
	}
	return out
}

func simple(name, image string, command ...string) *corev1.Pod {
	if len(command) == 0 {
		command = []string{"server"}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID("uid-" + name)},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image, Command: command, ImagePullPolicy: corev1.PullIfNotPresent}}},
	}
}

func pass(d time.Duration) {
	<-time.After(d) // bubble time
	synctest.Wait()
}

func TestAPodRunsIsDeletedAndLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.create(simple("web", "server"))
		pass(3 * time.Second)
		p := w.get("web")
		if p.Status.Phase != corev1.PodRunning || p.Status.PodIP == "" || p.Status.HostIP != "192.0.2.1" || p.Status.QOSClass != corev1.PodQOSBestEffort {
			t.Errorf("status %+v", p.Status)
		}
		for _, c := range p.Status.Conditions {
			if c.Status != corev1.ConditionTrue {
				t.Errorf("condition %s is %s: %s", c.Type, c.Status, c.Message)
			}
		}
		if len(p.Status.Conditions) != 5 {
			t.Errorf("%d conditions, want 5", len(p.Status.Conditions))
		}
		w.markDeleted("web", 30)
		pass(3 * time.Second)
		if _, err := w.api.CoreV1().Pods("default").Get(t.Context(), "web", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("pod is still there: %v", err)
		}
		if list := w.containers(); len(list) != 0 {
			t.Errorf("%d containers left", len(list))
		}
		if len(w.cg.have) != 0 {
			t.Errorf("cgroups left: %v", w.cg.have)
		}
		pass(10 * time.Second) // output is looked at every 5 s
		for _, dir := range []string{"pods", "podlogs"} {
			if left, _ := os.ReadDir(filepath.Join(w.dir, dir)); len(left) != 0 {
				t.Errorf("%s left: %v", dir, left)
			}
		}
		want := []string{"Pulled", "Created", "Started", "Killing"}
		if got := w.reasons(); !slices.Equal(got, want) {
			t.Errorf("events %v, want %v", got, want)
		}
	})
}

func TestACrashingContainerBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.create(simple("bad", "busybox", "sh", "-c", "echo last words; exit 3"))
		pass(5 * time.Second)
		s := w.get("bad").Status.ContainerStatuses[0]
		if s.RestartCount != 1 || s.State.Waiting == nil || s.State.Waiting.Reason != "CrashLoopBackOff" {
			t.Errorf("after 5 s: %+v", s)
		}
		if l := s.LastTerminationState.Terminated; l == nil || l.ExitCode != 3 || l.Reason != "Error" {
			t.Errorf("last state %+v", s.LastTerminationState)
		}
		pass(10 * time.Second)
		if n := w.get("bad").Status.ContainerStatuses[0].RestartCount; n != 2 {
			t.Errorf("after 15 s: %d restarts, want 2", n)
		}
		pass(20 * time.Second)
		if n := w.get("bad").Status.ContainerStatuses[0].RestartCount; n != 3 {
			t.Errorf("after 35 s: %d restarts, want 3", n)
		}
		if n := len(w.containers()); n != 2 {
			t.Errorf("%d containers kept, want 2", n)
		}
		told := 0
		for _, r := range w.reasons() {
			if r == "BackOff" {
				told++
			}
		}
		if told != 3 {
			t.Errorf("told of %d waits, want one for each of the 3", told)
		}
	})
}

func TestAnAgentRestartTouchesNoContainer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.create(simple("web", "server"))
		pass(3 * time.Second)
		before := w.containers()
		w.stop()
		pass(time.Minute)
		w.start()
		pass(10 * time.Second)
		after := w.containers()
		if len(before) != 1 || len(after) != 1 || before[0].Id != after[0].Id || after[0].State != cri.ContainerState_CONTAINER_RUNNING {
			t.Errorf("before %v, after %v", before, after)
		}
		if p := w.get("web"); p.Status.Phase != corev1.PodRunning || p.Status.ContainerStatuses[0].RestartCount != 0 || !p.Status.ContainerStatuses[0].Ready {
			t.Errorf("status %+v", p.Status)
		}
	})
}

func TestContainersAreRestartedWhileTheAPIIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.create(simple("web", "server"))
		pass(3 * time.Second)
		w.mu.Lock()
		w.away = true
		w.mu.Unlock()
		w.stop()
		w.start() // even by an agent that has never seen the API
		pass(5 * time.Second)
		w.rt.Exit(w.containers()[0].Id, 9)
		pass(5 * time.Second)
		running := slices.DeleteFunc(w.containers(), func(c *cri.Container) bool { return c.State != cri.ContainerState_CONTAINER_RUNNING })
		if len(running) != 1 || running[0].Metadata.Attempt != 1 {
			t.Fatalf("running: %v", running)
		}
		w.mu.Lock()
		w.away = false
		w.mu.Unlock()
		pass(time.Minute)
		s := w.get("web").Status.ContainerStatuses[0]
		if s.RestartCount != 1 || s.State.Running == nil || s.LastTerminationState.Terminated == nil || s.LastTerminationState.Terminated.ExitCode != 9 {
			t.Errorf("status sent later: %+v", s)
		}
	})
}

func TestPodsTheAPIForgotAreRemovedButOnlyAfterAList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.create(simple("web", "server"))
		pass(3 * time.Second)
		w.stop()
		if err := w.api.CoreV1().Pods("default").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		w.away = true
		w.mu.Unlock()
		w.start()
		pass(time.Minute)
		if n := len(w.containers()); n != 1 {
			t.Fatalf("%d containers while the API is away, want 1", n)
		}
		w.mu.Lock()
		w.away = false
		w.mu.Unlock()
		pass(2 * time.Minute)
		if n := len(w.containers()); n != 0 {
			t.Errorf("%d containers after the list, want 0", n)
		}
	})
}

func TestAnImageThatCannotBePulledSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.create(simple("web", "nowhere/none"))
		pass(2 * time.Second)
		if s := w.get("web").Status.ContainerStatuses[0].State.Waiting; s == nil || s.Reason != "ErrImagePull" {
			t.Errorf("after 2 s: %+v", s)
		}
		pass(5 * time.Second)
		if s := w.get("web").Status.ContainerStatuses[0].State.Waiting; s == nil || s.Reason != "ImagePullBackOff" {
			t.Errorf("after 7 s: %+v", s)
		}
		w.rt.AddImage("nowhere/none")
		pass(10 * time.Second)
		if p := w.get("web"); p.Status.Phase != corev1.PodRunning {
			t.Errorf("after the image came: %+v", p.Status)
		}
	})
}

func TestAMissingConfigMapIsNamedAndItsArrivalHelps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := simple("web", "server")
		p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}}
		w.create(p)
		pass(3 * time.Second)
		s := w.get("web").Status.ContainerStatuses[0].State.Waiting
		if s == nil || s.Reason != "CreateContainerConfigError" || !strings.Contains(s.Message, `configmap "cm" not found`) {
			t.Fatalf("waiting: %+v", s)
		}
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cm", Namespace: "default"}, Data: map[string]string{"A": "1"}}
		if _, err := w.api.CoreV1().ConfigMaps("default").Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		if p := w.get("web"); p.Status.Phase != corev1.PodRunning {
			t.Errorf("status %+v", p.Status)
		}
	})
}

func TestAJobPodEndsWithItsExitCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for name, code := range map[string]string{"good": "0", "poor": "7"} {
			p := simple(name, "busybox", "sh", "-c", "exit "+code)
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			p.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "busybox", Command: []string{"true"}, ImagePullPolicy: corev1.PullIfNotPresent}}
			w.create(p)
		}
		pass(5 * time.Second)
		if p := w.get("good"); p.Status.Phase != corev1.PodSucceeded || p.Status.ContainerStatuses[0].State.Terminated.Reason != "Completed" {
			t.Errorf("good: %+v", p.Status)
		}
		if p := w.get("poor"); p.Status.Phase != corev1.PodFailed || p.Status.ContainerStatuses[0].State.Terminated.ExitCode != 7 {
			t.Errorf("poor: %+v", p.Status)
		}
		if len(w.cg.have) != 0 {
			t.Errorf("ended pods hold cgroups: %v", maps.Clone(w.cg.have))
		}
	})
}

// late is a runtime whose network comes later.
type late struct {
	*runtimetest.Fake
	network time.Time
}

func (l *late) Status(ctx context.Context) (*cri.RuntimeStatus, error) {
	s, err := l.Fake.Status(ctx)
	if err == nil && time.Now().Before(l.network) {
		s.Conditions[1].Status = false
	}
	return s, err
}

func TestTheNodeIsReadySoonAfterItsNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.stop()
		if err := w.api.CoreV1().Nodes().Delete(t.Context(), "n1", metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		w.via = &late{w.rt, time.Now().Add(5100 * time.Millisecond)}
		w.start()
		pass(5 * time.Second)
		ready := func() corev1.ConditionStatus {
			n, err := w.api.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return readyStatus(n.Status)
		}
		if got := ready(); got != corev1.ConditionFalse {
			t.Errorf("without network: ready is %s", got)
		}
		pass(500 * time.Millisecond)
		if got := ready(); got != corev1.ConditionTrue {
			t.Errorf("0.4 s after the network came: ready is %s", got)
		}
	})
}

// hesitant is a runtime that takes its time to say how it is.
type hesitant struct {
	*runtimetest.Fake
	takes time.Duration
}

func (s *hesitant) Status(ctx context.Context) (*cri.RuntimeStatus, error) {
	<-time.After(s.takes)
	return s.Fake.Status(ctx)
}

func TestAnAgentThatRestartsDoesNotTakeTheNodesReadinessBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		pass(15 * time.Second)
		ready := func() corev1.NodeCondition {
			n, err := w.api.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range n.Status.Conditions {
				if c.Type == corev1.NodeReady {
					return c
				}
			}
			return corev1.NodeCondition{}
		}
		w.stop()
		stopped := time.Now()
		w.via = &hesitant{w.rt, time.Second}
		w.start()
		for range 40 {
			pass(50 * time.Millisecond)
			if c := ready(); c.Status != corev1.ConditionTrue {
				t.Fatalf("%s after the restart: %s, %s", time.Since(stopped), c.Reason, c.Message)
			}
			if c := ready(); time.Since(stopped) < time.Second && c.LastHeartbeatTime.After(stopped.Add(-time.Second)) {
				t.Fatalf("a heartbeat %s after the restart, before the runtime was asked", time.Since(stopped))
			}
		}
		if c := ready(); c.LastHeartbeatTime.Time.Before(stopped.Truncate(time.Second)) {
			t.Errorf("no heartbeat 2 s after the restart: the last is of %s before", stopped.Sub(c.LastHeartbeatTime.Time))
		}
	})
}

func TestTheNodeRegistersAndBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		pass(15 * time.Second)
		n, err := w.api.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if readyStatus(n.Status) != corev1.ConditionTrue || n.Labels[corev1.LabelHostname] != "n1" || n.Status.DaemonEndpoints.KubeletEndpoint.Port != 10250 {
			t.Errorf("node %+v", n)
		}
		if n.Status.Allocatable.Cpu().IsZero() || n.Status.NodeInfo.KernelVersion == "" {
			t.Errorf("node status %+v", n.Status)
		}
		l, err := w.api.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(t.Context(), "n1", metav1.GetOptions{})
		if err != nil || time.Since(l.Spec.RenewTime.Time) > 10*time.Second {
			t.Errorf("lease %+v, %v", l, err)
		}
	})
}

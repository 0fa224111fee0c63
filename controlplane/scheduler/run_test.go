package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"perch/controlplane/event"
)

// bindable is a fake API server that knows pods/binding; fail may refuse a binding.
func bindable(fail func(pod string) error, objects ...runtime.Object) *fake.Clientset {
	client := fake.NewClientset(objects...)
	var mu sync.Mutex
	client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if action.GetSubresource() != "binding" {
			return false, nil, nil
		}
		mu.Lock()
		defer mu.Unlock()
		binding := action.(clienttesting.CreateAction).GetObject().(*corev1.Binding)
		if err := fail(binding.Name); err != nil {
			return true, nil, err
		}
		pods := corev1.SchemeGroupVersion.WithResource("pods")
		object, err := client.Tracker().Get(pods, action.GetNamespace(), binding.Name)
		if err != nil {
			return true, nil, err
		}
		p := object.(*corev1.Pod).DeepCopy()
		p.Spec.NodeName = binding.Target.Name
		return true, binding, client.Tracker().Update(pods, p, action.GetNamespace())
	})
	return client
}

type told struct {
	mu      sync.Mutex
	records []event.Record
}

func (l *told) tell(r event.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, r)
}

func (l *told) last(name, reason string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := ""
	for _, r := range l.records {
		if r.Object.Name == name && r.Reason == reason {
			out = r.Message
		}
	}
	return out
}

// run starts a scheduler inside a synctest bubble and ends it with the test.
func run(t *testing.T, client *fake.Clientset) *told {
	t.Helper()
	return runWith(t, client, prometheus.NewRegistry())
}

func runWith(t *testing.T, client *fake.Clientset, reg *prometheus.Registry) *told {
	t.Helper()
	l := &told{}
	factory := informers.NewSharedInformerFactory(client, 0)
	s, err := New(Default(), client, factory, l.tell, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	factory.Start(ctx.Done())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		factory.Shutdown()
	})
	return l
}

func get(t *testing.T, client *fake.Clientset, name string) *corev1.Pod {
	t.Helper()
	p, err := client.CoreV1().Pods("shop").Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRapidBindsNeverOvercommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		objects := []runtime.Object{node("n1", "2", "8Gi").Object, node("n2", "3", "8Gi").Object}
		for i := range 12 {
			objects = append(objects, pod(fmt.Sprint("p", i), asks("500m", "64Mi")))
		}
		tries := 0
		client := bindable(func(string) error {
			if tries++; tries%4 == 0 {
				return errors.New("the server is busy")
			}
			return nil
		}, objects...)
		l := run(t, client)
		<-time.After(2 * time.Minute)
		count := map[string]int{}
		for i := range 12 {
			count[get(t, client, fmt.Sprint("p", i)).Spec.NodeName]++
		}
		if count["n1"] != 4 || count["n2"] != 6 || count[""] != 2 {
			t.Errorf("pods by node %v, want n1 4, n2 6, waiting 2", count)
		}
		for i := range 12 {
			p := get(t, client, fmt.Sprint("p", i))
			if p.Spec.NodeName != "" {
				continue
			}
			c := p.Status.Conditions
			if len(c) != 1 || c[0].Reason != "Unschedulable" || !strings.HasPrefix(c[0].Message, "0/2 nodes are available: 2 Insufficient cpu") {
				t.Errorf("conditions %+v", c)
			}
			if got := l.last(p.Name, "FailedScheduling"); !strings.Contains(got, "2 Insufficient cpu") {
				t.Errorf("event %q", got)
			}
		}
	})
}

func TestAWaitingPodIsBoundSoonAfterRoomAppears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gated := pod("gated", func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "wait"}} })
		important := pod("important", asks("1", "64Mi"), func(p *corev1.Pod) { high := int32(1000); p.Spec.Priority = &high })
		client := bindable(func(string) error { return nil }, pod("modest", asks("1", "64Mi")), important, gated)
		l := run(t, client)
		<-time.After(time.Minute)
		if _, err := client.CoreV1().Nodes().Create(t.Context(), node("n1", "1", "8Gi").Object, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		<-time.After(100 * time.Millisecond)
		if get(t, client, "important").Spec.NodeName != "n1" || get(t, client, "modest").Spec.NodeName != "" {
			t.Error("the important pod must get the only place")
		}
		if c := get(t, client, "gated").Status.Conditions; len(c) != 1 || c[0].Reason != "SchedulingGated" {
			t.Errorf("gated pod has conditions %+v", c)
		}
		if got := l.last("important", "Scheduled"); !strings.HasPrefix(got, "Successfully assigned shop/important to n1") {
			t.Errorf("event %q", got)
		}
		if err := client.CoreV1().Pods("shop").Delete(t.Context(), "important", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		<-time.After(11 * time.Second) // at most its back-off
		if get(t, client, "modest").Spec.NodeName != "n1" {
			t.Error("the modest pod must follow when the important one is gone")
		}
		free := get(t, client, "gated")
		free.Spec.SchedulingGates = nil
		if _, err := client.CoreV1().Pods("shop").Update(t.Context(), free, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		<-time.After(100 * time.Millisecond)
		if get(t, client, "gated").Spec.NodeName != "n1" {
			t.Error("a pod whose gates are gone must be bound")
		}
	})
}

// numbers are "name{label=value,…} count" of every series of the registry.
func numbers(t *testing.T, reg *prometheus.Registry) []string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var pairs []string
			for _, l := range m.GetLabel() {
				pairs = append(pairs, l.GetName()+"="+l.GetValue())
			}
			v := m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			out = append(out, fmt.Sprintf("%s{%s} %g", f.GetName(), strings.Join(pairs, ","), v))
		}
	}
	return out
}

func TestAttemptsAndWaitingPodsAreCountedUnderKubeSchedulersNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		busy := true
		client := bindable(func(name string) error {
			if name == "second" && busy {
				busy = false
				return errors.New("the server is busy")
			}
			return nil
		}, node("n1", "1", "8Gi").Object, pod("first", asks("400m", "64Mi")), pod("second", asks("400m", "64Mi")))
		runWith(t, client, reg)
		<-time.After(time.Minute)
		if _, err := client.CoreV1().Pods("shop").Create(t.Context(), pod("large", asks("8", "64Mi")), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		var have []string
		for _, line := range numbers(t, reg) {
			if strings.HasPrefix(line, "scheduler_") {
				have = append(have, line)
			}
		}
		want := []string{
			"scheduler_pending_pods{queue=active} 0", "scheduler_pending_pods{queue=backoff} 0", "scheduler_pending_pods{queue=unschedulable} 1",
			"scheduler_pod_scheduling_attempts{} 2",
			"scheduler_pod_scheduling_sli_duration_seconds{attempts=1} 1", "scheduler_pod_scheduling_sli_duration_seconds{attempts=2} 1",
			"scheduler_schedule_attempts_total{profile=default-scheduler,result=error} 1",
			"scheduler_schedule_attempts_total{profile=default-scheduler,result=scheduled} 2",
			"scheduler_schedule_attempts_total{profile=default-scheduler,result=unschedulable} 1",
			"scheduler_scheduling_algorithm_duration_seconds{} 4",
			"scheduler_scheduling_attempt_duration_seconds{profile=default-scheduler,result=error} 1",
			"scheduler_scheduling_attempt_duration_seconds{profile=default-scheduler,result=scheduled} 2",
			"scheduler_scheduling_attempt_duration_seconds{profile=default-scheduler,result=unschedulable} 1",
		}
		if got, want := strings.Join(have, "\n"), strings.Join(want, "\n"); got != want {
			t.Errorf("have\n%s\nwant\n%s", got, want)
		}
	})
}

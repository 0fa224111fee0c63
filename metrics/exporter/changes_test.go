package exporter

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/value"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// lines are samples without time, as text, sorted.
func lines(batch []Sample) []string {
	var out []string
	for _, x := range batch {
		v := fmt.Sprintf("%g", x.V)
		if value.IsStaleNaN(x.V) {
			v = "end"
		}
		out = append(out, x.Labels.String()+" "+v)
	}
	slices.Sort(out)
	return out
}

func TestSamplesAndTheCollectorSayTheSame(t *testing.T) {
	o := NewObjects(allLists(t))
	at := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	var want []string
	for _, f := range gather(t, o) {
		for _, m := range f.GetMetric() {
			var pairs []string
			for _, l := range m.GetLabel() {
				if l.GetValue() != "" {
					pairs = append(pairs, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
				}
			}
			pairs = append(pairs, fmt.Sprintf("__name__=%q", f.GetName()))
			slices.Sort(pairs)
			want = append(want, fmt.Sprintf("{%s} %g", strings.Join(pairs, ", "), m.GetGauge().GetValue()+m.GetCounter().GetValue()))
		}
	}
	slices.Sort(want)
	have := lines(o.Samples(nil, at))
	if len(want) < 250 || !slices.Equal(have, want) {
		t.Errorf("%d samples, %d of the collector", len(have), len(want))
		for _, x := range have {
			if !slices.Contains(want, x) {
				t.Log("more: ", x)
			}
		}
		for _, x := range want {
			if !slices.Contains(have, x) {
				t.Log("less: ", x)
			}
		}
	}
}

func somePod(name, node string, restarts int32) *corev1.Pod {
	made := metav1.NewTime(time.Unix(990, 0))
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: name, UID: types.UID("u-" + name), CreationTimestamp: made},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "nginx:1", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m"), corev1.ResourceMemory: resource.MustParse("64Mi")}}}},
			Tolerations: []corev1.Toleration{{Key: "a", Operator: "Exists"}, {Key: "a", Operator: "Exists"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, HostIP: "10.0.0.1", PodIP: "10.1.0.1", PodIPs: []corev1.PodIP{{IP: "10.1.0.1"}}, QOSClass: corev1.PodQOSBurstable,
			Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: "True", LastTransitionTime: made}, {Type: corev1.PodScheduled, Status: "True", LastTransitionTime: made}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "c", Ready: true, RestartCount: restarts, Image: "nginx:1", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: made}}}}},
	}
}

func TestOnlyWhatChangedIsToldAtOnceTheRestInTurn(t *testing.T) {
	pods := map[string]*corev1.Pod{"a": somePod("a", "n1", 0), "b": somePod("b", "n1", 2)}
	o := NewObjects(Lists{Pods: func() []*corev1.Pod { return slices.Collect(maps.Values(pods)) }})
	base := map[string]string{"job": "kube-state-metrics", "uid": "nobody", "instance": "n0", "node": ""}
	at := time.Unix(1000, 0)
	first := o.Samples(base, at)
	if len(first) < 60 {
		t.Fatalf("%d samples", len(first))
	}
	ids, text := map[uint64]bool{}, lines(first)
	for i, x := range first {
		if ids[x.ID] || x.T != at.UnixMilli() {
			t.Errorf("%d: id %d again, or time %d", i, x.ID, x.T)
		}
		ids[x.ID] = true
		if l := x.Labels; l.Get("job") != "kube-state-metrics" || l.Get("instance") != "n0" || l.Get("uid") == "nobody" {
			t.Errorf("labels of the target: %s", l)
		}
	}
	for i := 1; i < len(text); i++ {
		if text[i] == text[i-1] {
			t.Errorf("twice: %s", text[i])
		}
	}

	// Nothing changed: each object is told once in 15 s.
	told := 0
	for range 3 {
		at = at.Add(5 * time.Second)
		n := len(o.Samples(base, at))
		if told += n; n == len(first) {
			t.Error("all at the same time")
		}
	}
	if told != len(first) {
		t.Errorf("%d samples in 15 s, want %d", told, len(first))
	}

	// A restart on another node: the series that depend on it change at once.
	at = at.Add(time.Second)
	pods["a"] = somePod("a", "n2", 1)
	have := lines(o.Samples(base, at))
	own := `instance="n0", job="kube-state-metrics", namespace="red", `
	for _, want := range []string{
		`{__name__="kube_pod_container_status_restarts_total", container="c", ` + own + `pod="a", uid="u-a"} 1`,
		`{__name__="kube_pod_info", host_ip="10.0.0.1", host_network="false", ` + own + `node="n2", pod="a", pod_ip="10.1.0.1", uid="u-a"} 1`,
		`{__name__="kube_pod_info", host_ip="10.0.0.1", host_network="false", ` + own + `node="n1", pod="a", pod_ip="10.1.0.1", uid="u-a"} end`,
		`{__name__="kube_pod_container_resource_requests", container="c", ` + own + `node="n2", pod="a", resource="cpu", uid="u-a", unit="core"} 0.25`,
		`{__name__="kube_pod_container_resource_requests", container="c", ` + own + `node="n1", pod="a", resource="cpu", uid="u-a", unit="core"} end`,
	} {
		if !slices.Contains(have, want) {
			t.Errorf("no %s in\n%s", want, strings.Join(have, "\n"))
		}
	}
	if len(have) != 7 { // those and the memory request
		t.Errorf("%d samples:\n%s", len(have), strings.Join(have, "\n"))
	}

	// A pod that goes ends all its series, once.
	delete(pods, "b")
	at = at.Add(time.Second)
	gone := o.Samples(base, at)
	for _, x := range gone {
		if !value.IsStaleNaN(x.V) || x.Labels.Get("pod") != "b" {
			t.Errorf("%s %g", x.Labels, x.V)
		}
	}
	if len(gone)*2 != len(first) {
		t.Errorf("%d ends", len(gone))
	}
	if again := o.Samples(base, at.Add(time.Second)); len(again) != 0 {
		t.Errorf("%d more", len(again))
	}
}

func TestACounterBeginsAtZeroWhenItsObjectIsYounger(t *testing.T) {
	pods := []*corev1.Pod{somePod("old", "n1", 3)} // made at 990
	o := NewObjects(Lists{Pods: func() []*corev1.Pod { return pods }})
	restarts := func(at int64) (out []string) {
		for _, x := range o.Samples(nil, time.Unix(at, 0)) {
			if x.Labels.Get("__name__") == "kube_pod_container_status_restarts_total" {
				out = append(out, fmt.Sprint(x.Labels.Get("pod"), " ", x.T/1000, " ", x.V))
			}
		}
		return out
	}
	if got := restarts(1000); !slices.Equal(got, []string{"old 1000 3"}) {
		t.Errorf("made before the first look, an earlier process may have told of it: %v", got)
	}
	young := somePod("young", "n1", 1)
	young.CreationTimestamp = metav1.NewTime(time.Unix(1002, 0))
	pods = append(pods, young)
	if got := restarts(1005); !slices.Equal(got, []string{"young 1002 0", "young 1005 1"}) {
		t.Errorf("crashed before it was seen: %v", got)
	}
}

// cluster is the objects of n pods, ten of a deployment.
func cluster(n int) Lists {
	var pods []*corev1.Pod
	var deployments []*appsv1.Deployment
	var sets []*appsv1.ReplicaSet
	for i := range n {
		pods = append(pods, somePod(fmt.Sprintf("web-%d", i), fmt.Sprintf("n%d", i%30), 0))
		if i%10 == 0 {
			m := metav1.ObjectMeta{Namespace: "red", Name: fmt.Sprintf("web-%d", i)}
			deployments = append(deployments, &appsv1.Deployment{ObjectMeta: m})
			sets = append(sets, &appsv1.ReplicaSet{ObjectMeta: m})
		}
	}
	return Lists{Pods: func() []*corev1.Pod { return pods }, Deployments: func() []*appsv1.Deployment { return deployments }, ReplicaSets: func() []*appsv1.ReplicaSet { return sets }}
}

// BenchmarkObjects is the state of 3,000 pods as time passes, a look every 5 s in
// which ten pods change: percent of a core, and memory that is kept.
func BenchmarkObjects(b *testing.B) {
	lists := cluster(3000)
	o := NewObjects(lists)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	at, n := time.Unix(1000, 0), 0
	base := map[string]string{"job": "kube-state-metrics", "instance": "n0"}
	o.Samples(base, at)
	runtime.GC()
	runtime.ReadMemStats(&after)
	pods := lists.Pods()
	b.ReportAllocs()
	began := used()
	for b.Loop() {
		at = at.Add(5 * time.Second)
		for k := range 10 {
			i := (n/7 + k*13) % len(pods)
			c := *pods[i]
			c.Status.ContainerStatuses = slices.Clone(c.Status.ContainerStatuses)
			c.Status.ContainerStatuses[0].RestartCount++
			pods[i] = &c
		}
		n += len(o.Samples(base, at))
	}
	b.ReportMetric(float64(used()-began)/float64(b.N)/float64(5*time.Second)*100, "%core")
	b.ReportMetric(float64(n)/float64(b.N), "samples/op")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MB")
}

// BenchmarkCollect is the same without remembering: what a text endpoint costs.
func BenchmarkCollect(b *testing.B) {
	o := NewObjects(cluster(3000))
	reg := registry(o)
	began := used()
	for b.Loop() {
		if families, _ := reg.Gather(); len(families) == 0 { // the error is of tolerations that are there twice
			b.Fatal("nothing was gathered")
		}
	}
	b.ReportMetric(float64(used()-began)/float64(b.N)/float64(5*time.Second)*100, "%core")
}

// used is the CPU time of this process.
func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

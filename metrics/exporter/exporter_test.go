package exporter

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	"golang.org/x/sys/unix"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func text(t *testing.T, c prometheus.Collector) string {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestTheMachineHasNodeExportersNames(t *testing.T) {
	n, err := NewNode(DefaultNode(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	got := text(t, n)
	for _, want := range []string{
		`node_cpu_seconds_total{cpu="0",mode="idle"} `, "node_load1 ", "node_memory_MemAvailable_bytes ", "node_memory_MemTotal_bytes ",
		`node_network_receive_bytes_total{device="lo"} `, `mountpoint="/"`, "node_boot_time_seconds ", "node_uname_info{",
		`node_scrape_collector_success{collector="meminfo"} 1`, `node_scrape_collector_success{collector="filesystem"} 1`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if problems, err := testutil.CollectAndLint(n); err != nil {
		t.Error(problems, err)
	}
}

func TestTheTimesOfACpuOnlyGoForward(t *testing.T) {
	dir := t.TempDir()
	cfg := DefaultNode()
	cfg.Proc = dir
	n, err := NewNode(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ stat, mode, want string }{
		{"cpu0 100 0 100 5000 700 0 0 0 0 0", "iowait", "7"},
		{"cpu0 100 0 100 5100 699 0 0 0 0 0", "iowait", "7"}, // the kernel's count went back
		{"cpu0 100 0 100 5100 710 0 0 0 0 0", "iowait", "7.1"},
		{"cpu0 100 0 100 5090 710 0 0 0 0 0", "idle", "51"},
		{"cpu0 10 0 10 100 20 0 0 0 0 0", "idle", "1"}, // it was switched off and on
		{"cpu0 10 0 10 120 20 0 0 0 0 0", "iowait", "0.2"},
	} {
		if err := os.WriteFile(filepath.Join(dir, "stat"), []byte(c.stat+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf(`node_cpu_seconds_total{cpu="0",mode=%q} %s`, c.mode, c.want) + "\n"; !strings.Contains(text(t, n), want) {
			t.Errorf("after %q there is no %s", c.stat, want)
		}
	}
}

func TestAFileSystemThatDoesNotAnswerHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := NewNode(DefaultNode(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		calls, goOn := 0, make(chan struct{})
		n.size = func(_ string, st *unix.Statfs_t) error {
			calls++
			<-goOn
			st.Blocks = 7
			return nil
		}
		ask := make(chan error)
		for range 2 { // who scrapes, and somebody else in the middle of it
			go func() { _, err := n.statfs("/far"); ask <- err }()
		}
		for range 2 {
			if err := <-ask; !errors.Is(err, errStuck) {
				t.Error(err)
			}
		}
		began := time.Now()
		if _, err := n.statfs("/far"); !errors.Is(err, errStuck) || time.Since(began) > 0 {
			t.Error("asked again:", err, time.Since(began))
		}
		close(goOn)
		synctest.Wait()
		if st, err := n.statfs("/far"); err != nil || st.Blocks != 7 || calls != 2 {
			t.Errorf("once it answers: %+v %v after %d calls", st, err, calls)
		}
	})
}

func TestWhyAJobFailedIsToldAsKubeStateMetricsDoes(t *testing.T) {
	failed := func(reason string) batchv1.JobStatus {
		return batchv1.JobStatus{Failed: 3, Conditions: []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, Reason: reason}}}
	}
	for name, c := range map[string]struct {
		status batchv1.JobStatus
		want   map[string]float64
	}{
		"nothing failed":       {batchv1.JobStatus{}, map[string]float64{"": 0}},
		"it still tries":       {batchv1.JobStatus{Failed: 2}, map[string]float64{"": 2}},
		"a reason that counts": {failed("DeadlineExceeded"), map[string]float64{"BackoffLimitExceeded": 0, "DeadlineExceeded": 1, "Evicted": 0}},
		"another reason":       {failed("Tired"), map[string]float64{"BackoffLimitExceeded": 0, "DeadlineExceeded": 0, "Evicted": 0, "": 3}},
	} {
		t.Run(name, func(t *testing.T) {
			got := map[string]float64{}
			for _, f := range gather(t, NewObjects(Lists{Jobs: func() []*batchv1.Job { return []*batchv1.Job{{Status: c.status}} }})) {
				for _, m := range f.GetMetric() {
					for _, l := range m.GetLabel() {
						if f.GetName() == "kube_job_status_failed" && l.GetName() == "reason" {
							got[l.GetValue()] = m.GetGauge().GetValue()
						}
					}
				}
			}
			if !maps.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestObjectsHaveKubeStateMetricsNames(t *testing.T) {
	three := int32(3)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "web-1", UID: "u1"},
		Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("128Mi")},
		}}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}},
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: "c", RestartCount: 4, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
				LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "OOMKilled", ExitCode: 137}},
			}},
		},
	}
	got := text(t, NewObjects(Lists{
		Pods: func() []*corev1.Pod { return []*corev1.Pod{p} },
		Nodes: func() []*corev1.Node {
			return []*corev1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
				Capacity:   corev1.ResourceList{corev1.ResourcePods: resource.MustParse("110")},
			}}}
		},
		Deployments: func() []*appsv1.Deployment {
			return []*appsv1.Deployment{{ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "web"}, Spec: appsv1.DeploymentSpec{Replicas: &three}, Status: appsv1.DeploymentStatus{AvailableReplicas: 2}}}
		},
	}))
	for _, want := range []string{
		`kube_pod_status_phase{namespace="red",phase="Running",pod="web-1",uid="u1"} 1`,
		`kube_pod_status_phase{namespace="red",phase="Failed",pod="web-1",uid="u1"} 0`,
		`kube_pod_status_ready{condition="false",namespace="red",pod="web-1",uid="u1"} 1`,
		`kube_pod_container_status_restarts_total{container="c",namespace="red",pod="web-1",uid="u1"} 4`,
		`kube_pod_container_status_waiting_reason{container="c",namespace="red",pod="web-1",reason="CrashLoopBackOff",uid="u1"} 1`,
		`kube_pod_container_status_last_terminated_reason{container="c",namespace="red",pod="web-1",reason="OOMKilled",uid="u1"} 1`,
		`kube_pod_container_resource_requests{container="c",namespace="red",node="n1",pod="web-1",resource="cpu",uid="u1",unit="core"} 0.25`,
		`kube_pod_container_resource_limits{container="c",namespace="red",node="n1",pod="web-1",resource="memory",uid="u1",unit="byte"} 1.34217728e+08`,
		`kube_node_status_condition{condition="Ready",node="n1",status="true"} 1`,
		`kube_node_status_capacity{node="n1",resource="pods",unit="integer"} 110`,
		`kube_deployment_spec_replicas{deployment="web",namespace="red"} 3`,
		`kube_deployment_status_replicas_available{deployment="web",namespace="red"} 2`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}

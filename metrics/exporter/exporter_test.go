package exporter

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	appsv1 "k8s.io/api/apps/v1"
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

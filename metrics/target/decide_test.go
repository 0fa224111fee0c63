package target

import (
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func pod(change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "web-1", Labels: map[string]string{"app": "web"}, Annotations: map[string]string{scrapeMark: "true"}},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{{ContainerPort: 8080}}}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.42.0.5"},
	}
	if change != nil {
		change(p)
	}
	return p
}

func TestDecide(t *testing.T) {
	yes := true
	for _, c := range []struct {
		name    string
		pod     *corev1.Pod
		service *corev1.Service
		url     string
		labels  map[string]string
		why     string
	}{
		{"a pod with one port", pod(nil), nil, "http://10.42.0.5:8080/metrics",
			map[string]string{"job": "red/web", "instance": "10.42.0.5:8080", "namespace": "red", "pod": "web-1", "container": "c", "node": "n1"}, ""},
		{"port, path and scheme by annotation", pod(func(p *corev1.Pod) {
			p.Annotations[portMark], p.Annotations[pathMark], p.Annotations[schemeMark] = "9100", "stats", "https"
		}), nil, "https://10.42.0.5:9100/stats", nil, ""},
		{"the port named metrics among several", pod(func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = append(p.Spec.Containers[0].Ports, corev1.ContainerPort{Name: "metrics", ContainerPort: 9})
		}), nil, "http://10.42.0.5:9/metrics", nil, ""},
		{"several ports and no word which", pod(func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = append(p.Spec.Containers[0].Ports, corev1.ContainerPort{ContainerPort: 9})
		}), nil, "", nil, "declares 2 ports"},
		{"no port", pod(func(p *corev1.Pod) { p.Spec.Containers[0].Ports = nil }), nil, "", nil, "declares no port"},
		{"a port that is no number", pod(func(p *corev1.Pod) { p.Annotations[portMark] = "80x" }), nil, "", nil, `"80x"`},
		{"a scheme that is none", pod(func(p *corev1.Pod) { p.Annotations[schemeMark] = "ftp" }), nil, "", nil, "want http or https"},
		{"a pod without an address", pod(func(p *corev1.Pod) { p.Status.PodIP = "" }), nil, "", nil, "no address yet"},
		{"a pod that ended", pod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }), nil, "", nil, "has ended"},
		{"a pod of another node", pod(func(p *corev1.Pod) { p.Spec.NodeName = "n2" }), nil, "", nil, ""},
		{"a pod that does not ask", pod(func(p *corev1.Pod) { p.Annotations = nil }), nil, "", nil, ""},
		{"the workload's name from its owner", pod(func(p *corev1.Pod) {
			p.Labels = map[string]string{"pod-template-hash": "abc"}
			p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "shop-abc", Controller: &yes}}
		}), nil, "http://10.42.0.5:8080/metrics",
			map[string]string{"job": "red/shop", "instance": "10.42.0.5:8080", "namespace": "red", "pod": "web-1", "container": "c", "node": "n1"}, ""},
		{"a service that asks for its pods", pod(func(p *corev1.Pod) { p.Annotations = nil }), &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "front", Annotations: map[string]string{scrapeMark: "true"}},
			Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
		}, "http://10.42.0.5:8080/metrics",
			map[string]string{"job": "red/front", "service": "front", "instance": "10.42.0.5:8080", "namespace": "red", "pod": "web-1", "container": "c", "node": "n1"}, ""},
		{"a service of another namespace", pod(func(p *corev1.Pod) { p.Annotations = nil }), &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "blue", Name: "front", Annotations: map[string]string{scrapeMark: "true"}},
			Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}},
		}, "", nil, ""},
		{"a service without a selector", pod(func(p *corev1.Pod) { p.Annotations = nil }), &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "front", Annotations: map[string]string{scrapeMark: "true"}},
		}, "", nil, "no selector"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var services []*corev1.Service
			if c.service != nil {
				services = append(services, c.service)
			}
			got, dropped := Decide("n1", []*corev1.Pod{c.pod}, services)
			url := ""
			if len(got) == 1 {
				url = got[0].Scheme + "://" + got[0].Address + got[0].Path
			}
			if url != c.url || len(got) > 1 || c.labels != nil && !reflect.DeepEqual(got[0].Labels, c.labels) {
				t.Errorf("got %+v, want %s %v", got, c.url, c.labels)
			}
			why := ""
			if len(dropped) == 1 {
				why = dropped[0].Reason
			}
			if (c.why == "") != (why == "") || !strings.Contains(why, c.why) {
				t.Errorf("dropped %v, want %q", dropped, c.why)
			}
		})
	}
}

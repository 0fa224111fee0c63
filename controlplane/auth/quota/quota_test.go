package quota

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	quota "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
)

func list(pairs ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

func pod(name string, requests, limits corev1.ResourceList) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}}},
	}
}

func TestUsage(t *testing.T) {
	class, no := "local", false
	finished := pod("f", list("cpu", "1"), nil)
	finished.Status.Phase = corev1.PodSucceeded
	claim := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &class}}
	claim.Spec.Resources.Requests = list("storage", "5Gi")
	ports := []corev1.ServicePort{{Port: 1}, {Port: 2}}
	for _, c := range []struct {
		name   string
		kind   kind
		object runtime.Object
		want   corev1.ResourceList
	}{
		{"a pod costs its requests and limits", podKind{}, pod("p", list("cpu", "100m", "memory", "1Gi"), list("cpu", "200m")),
			list("count/pods", "1", "pods", "1", "cpu", "100m", "requests.cpu", "100m", "memory", "1Gi", "requests.memory", "1Gi", "limits.cpu", "200m")},
		{"a finished pod costs its place in the store", podKind{}, finished, list("count/pods", "1")},
		{"a cluster service has no node ports", serviceKind{}, &corev1.Service{Spec: corev1.ServiceSpec{Ports: ports}},
			list("services", "1", "count/services", "1", "services.nodeports", "0", "services.loadbalancers", "0")},
		{"a node port for each port", serviceKind{}, &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: ports}},
			list("services", "1", "count/services", "1", "services.nodeports", "2", "services.loadbalancers", "0")},
		{"a balancer may do without", serviceKind{}, &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: ports, AllocateLoadBalancerNodePorts: &no}},
			list("services", "1", "count/services", "1", "services.nodeports", "0", "services.loadbalancers", "1")},
		{"a claim costs in all and by class", claimKind{}, claim, list("persistentvolumeclaims", "1", "count/persistentvolumeclaims", "1", "requests.storage", "5Gi",
			"local.storageclass.storage.k8s.io/persistentvolumeclaims", "1", "local.storageclass.storage.k8s.io/requests.storage", "5Gi")},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.kind.usage(c.object)
			if err != nil || !quota.Equals(got, c.want) {
				t.Fatalf("%v, got %v, want %v", err, got, c.want)
			}
			var all []corev1.ResourceName
			for name := range c.want {
				all = append(all, name)
			}
			if known := c.kind.names(all); len(known) != len(all) {
				t.Errorf("of %v it knows only %v", all, known)
			}
		})
	}
}

func TestPodRules(t *testing.T) {
	bare, burst := pod("bare", nil, nil), pod("burst", list("cpu", "1"), nil)
	if got := (podKind{}).lacks([]corev1.ResourceName{"requests.cpu", "limits.memory", "pods"}, burst); len(got) != 1 || got[0] != "limits.memory" {
		t.Errorf("lacks %v", got)
	}
	deadline := int64(5)
	job := pod("job", nil, nil)
	job.Spec.ActiveDeadlineSeconds, job.Spec.PriorityClassName = &deadline, "low"
	for _, c := range []struct {
		scope  corev1.ResourceQuotaScope
		values []string
		pod    *corev1.Pod
		want   bool
	}{
		{corev1.ResourceQuotaScopeBestEffort, nil, bare, true},
		{corev1.ResourceQuotaScopeBestEffort, nil, burst, false},
		{corev1.ResourceQuotaScopeNotBestEffort, nil, burst, true},
		{corev1.ResourceQuotaScopeTerminating, nil, job, true},
		{corev1.ResourceQuotaScopeNotTerminating, nil, job, false},
		{corev1.ResourceQuotaScopePriorityClass, []string{"low"}, job, true},
		{corev1.ResourceQuotaScopePriorityClass, []string{"high"}, job, false},
		{corev1.ResourceQuotaScopePriorityClass, []string{"low"}, bare, false},
	} {
		operator := corev1.ScopeSelectorOpExists
		if c.values != nil {
			operator = corev1.ScopeSelectorOpIn
		}
		got, err := podKind{}.inScope(corev1.ScopedResourceSelectorRequirement{ScopeName: c.scope, Operator: operator, Values: c.values}, c.pod)
		if err != nil || got != c.want {
			t.Errorf("%s of %s: %v %v", c.scope, c.pod.Name, got, err)
		}
	}
}

func TestControllerCountsAndGivesBack(t *testing.T) {
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: list("pods", "5", "requests.cpu", "2", "secrets", "10")}}
	client := fake.NewClientset(q, pod("a", list("cpu", "500m"), nil), pod("b", list("cpu", "250m"), nil))
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	objects := metadatafake.NewSimpleMetadataClient(scheme, &metav1.PartialObjectMetadata{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "s"},
	})
	ctx, cancel := context.WithCancel(t.Context())
	f := informers.NewSharedInformerFactory(client, 0)
	c := New(client, objects, f, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	f.Start(ctx.Done())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	used := func(want corev1.ResourceList) func() bool {
		return func() bool {
			have, err := client.CoreV1().ResourceQuotas("shop").Get(ctx, "q", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return quota.Equals(have.Status.Used, want) && quota.Equals(have.Status.Hard, q.Spec.Hard)
		}
	}
	eventually(t, "two pods and a secret are counted", used(list("pods", "2", "requests.cpu", "750m", "secrets", "1")))
	if err := client.CoreV1().Pods("shop").Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the deleted pod is given back", used(list("pods", "1", "requests.cpu", "250m", "secrets", "1")))
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestConstraintsNameWhatIsMissing(t *testing.T) {
	for _, e := range Configuration(nil).Evaluators() {
		if e.GroupResource() != corev1.Resource("pods") {
			continue
		}
		err := e.Constraints([]corev1.ResourceName{"limits.cpu", "requests.memory"}, pod("bare", nil, nil))
		if err == nil || !strings.Contains(err.Error(), "must specify limits.cpu,requests.memory") {
			t.Error(err)
		}
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatal("never happened:", what)
		case <-tick.C:
		}
	}
}

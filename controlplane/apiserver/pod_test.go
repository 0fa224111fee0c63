package apiserver

import (
	"io"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// aNode registers a node whose agent is the test's.
func aNode(t *testing.T, name string) {
	t.Helper()
	_, err := shared.client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: corev1.NodeStatus{
			Addresses:       []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}},
			DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: shared.agentPort()}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func bind(t *testing.T, ns, pod, node string) error {
	t.Helper()
	return shared.client.CoreV1().Pods(ns).Bind(t.Context(), &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: pod, Namespace: ns}, Target: corev1.ObjectReference{Kind: "Node", Name: node}}, metav1.CreateOptions{})
}

func TestPodsStartPendingWithTheirClassOfService(t *testing.T) {
	p := aPod("p")
	limits := corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("64Mi")}
	p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Limits: limits}
	p.Status.Phase = corev1.PodRunning
	p, err := shared.client.CoreV1().Pods(namespace(t)).Create(t.Context(), p, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if p.Status.Phase != corev1.PodPending || p.Status.QOSClass != corev1.PodQOSGuaranteed || p.Generation != 1 || p.Spec.Containers[0].Resources.Requests.Cpu().String() != "100m" {
		t.Errorf("have %+v, generation %d", p.Status, p.Generation)
	}
}

func TestAPodIsBoundOnceAndDeletedGracefully(t *testing.T) {
	ctx, ns := t.Context(), namespace(t)
	api := shared.client.CoreV1().Pods(ns)
	for _, name := range []string{"bound", "free"} {
		if _, err := api.Create(ctx, aPod(name), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := bind(t, ns, "bound", "somewhere"); err != nil {
		t.Fatal(err)
	}
	if err := bind(t, ns, "bound", "elsewhere"); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `already assigned to node "somewhere"`) {
		t.Errorf("have %v", err)
	}
	p, err := api.Get(ctx, "bound", metav1.GetOptions{})
	if err != nil || p.Spec.NodeName != "somewhere" || condition(p, corev1.PodScheduled) == nil {
		t.Fatalf("have %+v, %v", p.Spec.NodeName, err)
	}
	l, err := shared.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=somewhere"})
	if err != nil || len(l.Items) != 1 || l.Items[0].Name != "bound" {
		t.Errorf("have %d, %v", len(l.Items), err)
	}
	for _, name := range []string{"bound", "free"} {
		if err := api.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := api.Get(ctx, "free", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a pod without node stays: %v", err)
	}
	p, err = api.Get(ctx, "bound", metav1.GetOptions{})
	if err != nil || p.DeletionTimestamp == nil || *p.DeletionGracePeriodSeconds != 30 {
		t.Fatalf("have %+v, %v", p.DeletionTimestamp, err)
	}
	p.Status.Phase = corev1.PodRunning
	if p, err = api.UpdateStatus(ctx, p, metav1.UpdateOptions{}); err != nil || p.DeletionTimestamp == nil || p.Status.Phase != corev1.PodRunning {
		t.Fatalf("status update lost the deletion: %v", err)
	}
	now := int64(0)
	if err := api.Delete(ctx, "bound", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Get(ctx, "bound", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("have %v", err)
	}
}

func TestSubresourcesOfPodsChangeOneThing(t *testing.T) {
	ctx, ns := t.Context(), namespace(t)
	api := shared.client.CoreV1().Pods(ns)
	p := aPod("p")
	p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("100m")}
	p, err := api.Create(ctx, p, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "busybox"}}}
	if p, err = api.UpdateEphemeralContainers(ctx, "p", p, metav1.UpdateOptions{}); err != nil || len(p.Spec.EphemeralContainers) != 1 || p.Generation != 2 {
		t.Fatalf("generation %d, %v", p.Generation, err)
	}
	body := `{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"200m"}}}]}}`
	if p, err = api.Patch(ctx, "p", types.StrategicMergePatchType, []byte(body), metav1.PatchOptions{}, "resize"); err != nil || p.Spec.Containers[0].Resources.Requests.Cpu().String() != "200m" {
		t.Fatalf("resize: %v", err)
	}
	if _, err := api.Patch(ctx, "p", types.StrategicMergePatchType, []byte(body[:len(body)-len(`"200m"}}}]}}`)]+`"300m"}}}]}}`), metav1.PatchOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("the pod itself changed resources: %v", err)
	}
}

func TestEvictionHonoursBudgets(t *testing.T) {
	ctx, ns := t.Context(), namespace(t)
	n := int32(2)
	labels := map[string]string{"app": "w"}
	rs, err := shared.client.AppsV1().ReplicaSets(ns).Create(ctx, &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "w"}, Spec: appsv1.ReplicaSetSpec{
		Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: aPod("w").Spec},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	one := intstr.FromInt32(1)
	_, err = shared.client.PolicyV1().PodDisruptionBudgets(ns).Create(ctx, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &one, Selector: &metav1.LabelSelector{MatchLabels: labels}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	for _, name := range []string{"w1", "w2"} {
		p := aPod(name)
		p.Labels = labels
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: rs.Name, UID: rs.UID, Controller: &yes}}
		if p, err = shared.client.CoreV1().Pods(ns).Create(ctx, p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		if _, err = shared.client.CoreV1().Pods(ns).UpdateStatus(ctx, p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	evict := func(name string) error {
		return shared.client.PolicyV1().Evictions(ns).Evict(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns}})
	}
	if err := evict("w1"); err != nil {
		t.Fatal(err)
	}
	if err := evict("w2"); !apierrors.IsTooManyRequests(err) {
		t.Errorf("have %v", err)
	}
	b, err := shared.client.PolicyV1().PodDisruptionBudgets(ns).Get(ctx, "b", metav1.GetOptions{})
	if err != nil || b.Status.DesiredHealthy != 1 || b.Status.DisruptionsAllowed != 0 {
		t.Errorf("have %+v, %v", b.Status, err)
	}
}

func TestLogsAndNodesAreReachedThroughTheAgent(t *testing.T) {
	ctx, ns := t.Context(), namespace(t)
	aNode(t, "reached")
	if _, err := shared.client.CoreV1().Pods(ns).Create(ctx, aPod("p"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := shared.client.CoreV1().Pods(ns).GetLogs("p", &corev1.PodLogOptions{}).Stream(ctx); !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), "does not have a host assigned") {
		t.Errorf("have %v", err)
	}
	if err := bind(t, ns, "p", "reached"); err != nil {
		t.Fatal(err)
	}
	tail := int64(5)
	r, err := shared.client.CoreV1().Pods(ns).GetLogs("p", &corev1.PodLogOptions{TailLines: &tail, Timestamps: true}).Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r)
	if err != nil || string(body) != "agent /containerLogs/"+ns+"/p/c\n" {
		t.Errorf("have %q, %v", body, err)
	}
	shared.mu.Lock()
	last := shared.asked[len(shared.asked)-1]
	shared.mu.Unlock()
	if !strings.HasSuffix(last, "?tailLines=5&timestamps=true") {
		t.Errorf("agent was asked %s", last)
	}
	body, err = shared.client.CoreV1().RESTClient().Get().Resource("nodes").Name("reached").SubResource("proxy").Suffix("metrics/cadvisor").DoRaw(ctx)
	if err != nil || string(body) != "agent /metrics/cadvisor\n" {
		t.Errorf("have %q, %v", body, err)
	}
	if _, err := shared.client.CoreV1().Pods(ns).GetLogs("p", &corev1.PodLogOptions{Container: "other"}).Stream(ctx); !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), "container other is not valid for pod p") {
		t.Errorf("have %v", err)
	}
}

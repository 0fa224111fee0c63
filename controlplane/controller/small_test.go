package controller

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"perch/controlplane/controller/reconcile"
)

func TestFreeCIDR(t *testing.T) {
	cluster := netip.MustParsePrefix("10.42.0.0/22")
	taken := []netip.Prefix{netip.MustParsePrefix("10.42.1.0/24")}
	for _, want := range []string{"10.42.0.0/24", "10.42.2.0/24", "10.42.3.0/24"} {
		got, err := freeCIDR(cluster, 24, taken)
		if err != nil || got.String() != want {
			t.Fatalf("%s %v, want %s", got, err, want)
		}
		taken = append(taken, got)
	}
	if got, err := freeCIDR(cluster, 24, taken); err == nil {
		t.Errorf("got %s from a full cluster", got)
	}
	if got, err := freeCIDR(netip.MustParsePrefix("fd00::/56"), 64, []netip.Prefix{netip.MustParsePrefix("fd00::/64")}); err != nil || got.String() != "fd00:0:0:1::/64" {
		t.Errorf("%s %v", got, err)
	}
}

func TestNodesGetDifferentAddressesAndTheLastOneIsToldWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var nodes []runtime.Object
		for i := range 5 {
			nodes = append(nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", i)}})
		}
		w := newWorld(t, func(d deps) []*reconcile.Controller {
			d.cfg.ClusterCIDR = netip.MustParsePrefix("10.42.0.0/22")
			d.cfg.RootCA = []byte("PEM")
			return []*reconcile.Controller{newNodeCIDR(d), newNamespaceDefault(d)}
		}, append(nodes, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})...)
		<-time.After(time.Minute)
		list, err := w.client.CoreV1().Nodes().List(w.ctx, metav1.ListOptions{})
		w.ok(err)
		seen := map[string]bool{}
		for _, n := range list.Items {
			seen[n.Spec.PodCIDR] = true
			if n.Spec.PodCIDR == "" && (len(n.Status.Conditions) != 1 || n.Status.Conditions[0].Reason != "CIDRNotAvailable") {
				t.Errorf("conditions %+v", n.Status.Conditions)
			}
		}
		if len(seen) != 5 || !w.heard("CIDRNotAvailable", "10.42.0.0/22") {
			t.Errorf("addresses %v", seen)
		}
		ca, err := w.client.CoreV1().ConfigMaps("shop").Get(w.ctx, rootCAName, metav1.GetOptions{})
		w.ok(err)
		if ca.Data["ca.crt"] != "PEM" {
			t.Errorf("root CA %v", ca.Data)
		}
		w.ok(w.client.CoreV1().ServiceAccounts("shop").Delete(w.ctx, "default", metav1.DeleteOptions{}))
		<-time.After(time.Second)
		_, err = w.client.CoreV1().ServiceAccounts("shop").Get(w.ctx, "default", metav1.GetOptions{})
		w.ok(err)
	})
}

func servicePod(name, ip string, ready bool, edits ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{"app": "web"}}}
	p.Spec.NodeName = "n1"
	p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip}
	if ready {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	for _, edit := range edits {
		edit(p)
	}
	return p
}

func TestDecideSlices(t *testing.T) {
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "s1"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("http")}}},
	}
	other := func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].ContainerPort = 9090 }
	leaving := func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(0, 0)} }
	named := func(p *corev1.Pod) { p.Spec.Hostname, p.Spec.Subdomain = "db-0", "web" }
	t.Run("named ports are looked up pod by pod", func(t *testing.T) {
		got := decideSlices(service, []*corev1.Pod{servicePod("a", "10.0.0.1", true), servicePod("b", "10.0.0.2", true, other)}, nil)
		if len(got) != 2 || *got[0].Ports[0].Port != 8080 || *got[1].Ports[0].Port != 9090 {
			t.Errorf("%+v", got)
		}
	})
	t.Run("conditions tell ready, serving and terminating apart", func(t *testing.T) {
		got := decideSlices(service, []*corev1.Pod{
			servicePod("a", "10.0.0.1", true, named), servicePod("b", "10.0.0.2", false), servicePod("c", "10.0.0.3", true, leaving), servicePod("d", "", true),
		}, map[string]string{"n1": "z1"})
		if len(got) != 1 || len(got[0].Endpoints) != 3 {
			t.Fatalf("%+v", got)
		}
		var text string
		for _, e := range got[0].Endpoints {
			text += fmt.Sprint(e.Addresses[0], *e.Conditions.Ready, *e.Conditions.Serving, *e.Conditions.Terminating, " ")
		}
		if want := "10.0.0.1true true false 10.0.0.2false false false 10.0.0.3false true true "; text != want {
			t.Errorf("%s, want %s", text, want)
		}
		if e := got[0].Endpoints[0]; *e.Hostname != "db-0" || *e.NodeName != "n1" || *e.Zone != "z1" || e.TargetRef.Name != "a" {
			t.Errorf("%+v", e)
		}
	})
	t.Run("a hundred addresses fill a slice", func(t *testing.T) {
		var pods []*corev1.Pod
		for i := range 250 {
			pods = append(pods, servicePod(fmt.Sprint("p", i), fmt.Sprintf("10.0.%d.%d", i/200, i%200), true))
		}
		got := decideSlices(service, pods, nil)
		if len(got) != 3 || len(got[0].Endpoints) != 100 || len(got[2].Endpoints) != 50 || got[0].Name == got[1].Name {
			t.Errorf("%d slices", len(got))
		}
		if got[0].Labels[discoveryv1.LabelServiceName] != "web" {
			t.Errorf("labels %v", got[0].Labels)
		}
	})
	t.Run("old clients see ready and other addresses apart", func(t *testing.T) {
		got := decideEndpoints(service, []*corev1.Pod{servicePod("a", "10.0.0.1", true), servicePod("b", "10.0.0.2", false), servicePod("c", "10.0.0.3", true, leaving)})
		if len(got.Subsets) != 1 || len(got.Subsets[0].Addresses) != 1 || len(got.Subsets[0].NotReadyAddresses) != 1 || got.Subsets[0].Ports[0].Port != 8080 {
			t.Errorf("%+v", got.Subsets)
		}
	})
}

func TestEndpointsFollowPodsAndGoWithTheService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
			Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
		}
		w := newWorld(t, func(d deps) []*reconcile.Controller { return []*reconcile.Controller{newEndpoint(d)} }, service, servicePod("a", "10.0.0.1", true))
		count := func() (slices, endpoints, old int) {
			list, err := w.client.DiscoveryV1().EndpointSlices("shop").List(w.ctx, metav1.ListOptions{})
			w.ok(err)
			for _, s := range list.Items {
				endpoints += len(s.Endpoints)
			}
			olds, err := w.client.CoreV1().Endpoints("shop").List(w.ctx, metav1.ListOptions{})
			w.ok(err)
			return len(list.Items), endpoints, len(olds.Items)
		}
		<-time.After(5 * time.Second)
		if s, e, o := count(); s != 1 || e != 1 || o != 1 {
			t.Fatalf("%d slices, %d endpoints, %d old", s, e, o)
		}
		w.ok(w.client.CoreV1().Pods("shop").Delete(w.ctx, "a", metav1.DeleteOptions{}))
		<-time.After(5 * time.Second)
		if s, e, _ := count(); s != 1 || e != 0 {
			t.Fatalf("without pods: %d slices, %d endpoints", s, e)
		}
		w.ok(w.client.CoreV1().Services("shop").Delete(w.ctx, "web", metav1.DeleteOptions{}))
		<-time.After(5 * time.Second)
		if s, _, o := count(); s != 0 || o != 0 {
			t.Errorf("without the service: %d slices, %d old", s, o)
		}
	})
}

func TestDecideLeftovers(t *testing.T) {
	now := time.Unix(10_000, 0)
	deleted := func(p *corev1.Pod) { p.DeletionTimestamp, p.Spec.NodeName = &metav1.Time{Time: now}, "" }
	ended := func(age time.Duration) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.Phase, p.Spec.NodeName, p.CreationTimestamp = corev1.PodSucceeded, "n2", metav1.NewTime(now.Add(-age))
		}
	}
	got := decideLeftovers(now, []*corev1.Pod{
		servicePod("lost", "", true), servicePod("never-placed", "", false, deleted),
		servicePod("old", "", false, ended(time.Hour)), servicePod("older", "", false, ended(2*time.Hour)), servicePod("young", "", false, ended(time.Minute)),
	}, map[string]time.Time{"n1": now.Add(-time.Minute)}, 40*time.Second, 2)
	text := ""
	for _, l := range got {
		text += fmt.Sprint(l.Pod.Name, " ", l.Force, "; ")
	}
	if want := "lost true; never-placed true; older false; "; text != want {
		t.Errorf("%s, want %s", text, want)
	}
}

func TestDecideDisruptions(t *testing.T) {
	pods := []*corev1.Pod{servicePod("a", "1", true), servicePod("b", "2", true), servicePod("c", "3", false)}
	tests := []struct {
		name     string
		spec     policyv1.PodDisruptionBudgetSpec
		expected int
		allowed  int32
	}{
		{"two of three ready, one must be: one may go", policyv1.PodDisruptionBudgetSpec{MinAvailable: ref(intstr.FromInt32(1))}, 3, 1},
		{"half of four must be, two are: none may go", policyv1.PodDisruptionBudgetSpec{MinAvailable: ref(intstr.FromString("50%"))}, 4, 0},
		{"one may be missing and one is: none may go", policyv1.PodDisruptionBudgetSpec{MaxUnavailable: ref(intstr.FromInt32(1))}, 3, 0},
		{"two may be missing and one is: one may go", policyv1.PodDisruptionBudgetSpec{MaxUnavailable: ref(intstr.FromInt32(2))}, 3, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			status, err := decideDisruptions(time.Unix(0, 0), &policyv1.PodDisruptionBudget{Spec: test.spec}, pods, test.expected)
			if err != nil || status.DisruptionsAllowed != test.allowed {
				t.Errorf("%+v %v, want %d allowed", status, err, test.allowed)
			}
		})
	}
}

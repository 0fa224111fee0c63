package apiserver

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func aService(name string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Port: 80}}}}
}

func TestServicesGetAddressesAndPorts(t *testing.T) {
	ctx, ns := t.Context(), namespace(t)
	api := shared.client.CoreV1().Services(ns)
	s, err := api.Create(ctx, aService("s"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cidr := Default().ServiceCIDR
	if ip, err := netip.ParseAddr(s.Spec.ClusterIP); err != nil || !cidr.Contains(ip) || s.Spec.ClusterIPs[0] != s.Spec.ClusterIP || s.Spec.IPFamilies[0] != corev1.IPv4Protocol {
		t.Fatalf("have %+v", s.Spec)
	}
	taken := aService("taken")
	taken.Spec.ClusterIP = s.Spec.ClusterIP
	if _, err := api.Create(ctx, taken, metav1.CreateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "provided value is already allocated") {
		t.Errorf("have %v", err)
	}
	outside := aService("outside")
	outside.Spec.ClusterIP = "10.99.0.1"
	if _, err := api.Create(ctx, outside, metav1.CreateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "not in the valid range") {
		t.Errorf("have %v", err)
	}
	if err := api.Delete(ctx, "s", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Create(ctx, taken, metav1.CreateOptions{}); err != nil {
		t.Errorf("the address was not freed: %v", err)
	}

	np := aService("np")
	np.Spec.Type = corev1.ServiceTypeNodePort
	if np, err = api.Create(ctx, np, metav1.CreateOptions{}); err != nil || np.Spec.Ports[0].NodePort < 30000 || np.Spec.Ports[0].NodePort > 32767 {
		t.Fatalf("have %+v, %v", np.Spec, err)
	}
	port := np.Spec.Ports[0].NodePort
	np.Spec.Type = corev1.ServiceTypeClusterIP
	if np, err = api.Update(ctx, np, metav1.UpdateOptions{}); err != nil || np.Spec.Ports[0].NodePort != 0 {
		t.Fatalf("have %+v, %v", np.Spec, err)
	}
	wants := aService("wants")
	wants.Spec.Type, wants.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, port
	if _, err := api.Create(ctx, wants, metav1.CreateOptions{}); err != nil {
		t.Errorf("the node port was not freed: %v", err)
	}

	headless := aService("headless")
	headless.Spec.ClusterIP = corev1.ClusterIPNone
	if headless, err = api.Create(ctx, headless, metav1.CreateOptions{}); err != nil || headless.Spec.ClusterIPs[0] != corev1.ClusterIPNone {
		t.Errorf("have %+v, %v", headless.Spec, err)
	}
	name := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "name"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}}
	if name, err = api.Create(ctx, name, metav1.CreateOptions{}); err != nil || name.Spec.ClusterIP != "" {
		t.Errorf("have %+v, %v", name.Spec, err)
	}
	bad := aService("bad")
	bad.Spec.Ports[0].Port = 0
	if _, err := api.Create(ctx, bad, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("have %v", err)
	}
}

func TestReplacingAServiceKeepsWhatTheServerChose(t *testing.T) {
	ctx, api := t.Context(), shared.client.CoreV1().Services(namespace(t))
	first := aService("s")
	first.Spec.Type = corev1.ServiceTypeNodePort
	s, err := api.Create(ctx, first, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	again := aService("s")
	again.Spec.Type, again.ResourceVersion = corev1.ServiceTypeNodePort, s.ResourceVersion
	again.Spec.Selector = map[string]string{"app": "other"}
	have, err := api.Update(ctx, again, metav1.UpdateOptions{})
	if err != nil || have.Spec.ClusterIP != s.Spec.ClusterIP || have.Spec.Ports[0].NodePort != s.Spec.Ports[0].NodePort {
		t.Errorf("have %+v, %v", have, err)
	}
}

func TestClaimsWithoutServiceAreRepaired(t *testing.T) {
	ctx := t.Context()
	a := shared.server.install.services
	if err := a.take(ctx, a.ips, "10.43.7.7", "gone"); err != nil {
		t.Fatal(err)
	}
	services := shared.server.install.stores[schema.GroupResource{Resource: "services"}]
	if err := repairClaims(ctx, a, services, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if err := a.take(ctx, a.ips, "10.43.7.7", "next"); err != nil {
		t.Errorf("have %v", err)
	}
	if err := a.take(ctx, a.ips, "10.43.0.1", "thief"); err == nil {
		t.Error("the API's own address lost its claim")
	}
	_ = a.free(ctx, a.ips, "10.43.7.7", "next") // the next repair would do it
}

func TestARangeThatIsFullSaysSo(t *testing.T) {
	a := newAllocator(shared.store.Client(), netip.MustParsePrefix("10.99.0.0/28"), 1, 2, slog.New(slog.DiscardHandler))
	a.ips.name = "test-ip"
	var err error
	n := 0
	for ; n < 20 && err == nil; n++ {
		_, err = a.next(context.Background(), a.ips, "x"+string(rune('a'+n)))
	}
	if err == nil || !strings.Contains(err.Error(), "range is full") || n != 15 {
		t.Errorf("after %d: %v", n, err)
	}
}

func TestTheServiceOfTheAPIExists(t *testing.T) {
	ctx := t.Context()
	s, err := shared.client.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil || s.Spec.ClusterIP != "10.43.0.1" {
		t.Fatalf("have %+v, %v", s, err)
	}
	e, err := shared.client.DiscoveryV1().EndpointSlices("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil || e.Endpoints[0].Addresses[0] != "192.0.2.10" {
		t.Errorf("have %+v, %v", e, err)
	}
}

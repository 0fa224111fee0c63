package apiserver

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

func TestAWebhooksServiceIsFoundByItsEndpointsAndNotByDNS(t *testing.T) {
	f := informers.NewSharedInformerFactory(fake.NewClientset(), 0)
	r, err := newServiceResolver(f)
	if err != nil {
		t.Fatal(err)
	}
	name, port := "https", int32(8443)
	about := metav1.ObjectMeta{Namespace: "shop", Name: "hook", Labels: map[string]string{discoveryv1.LabelServiceName: "hook"}}
	service := &corev1.Service{ObjectMeta: about, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Ports: []corev1.ServicePort{{Name: name, Port: 443}}}}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: about, AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.1.2.3"}}}, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}}}
	if err := f.Core().V1().Services().Informer().GetStore().Add(service); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ResolveEndpoint("shop", "hook", 443); err == nil || !strings.Contains(err.Error(), "no endpoints available") {
		t.Errorf("without endpoints: %v", err)
	}
	if err := f.Discovery().V1().EndpointSlices().Informer().GetStore().Add(slice); err != nil {
		t.Fatal(err)
	}
	if u, err := r.ResolveEndpoint("shop", "hook", 443); err != nil || u.String() != "https://10.1.2.3:8443" {
		t.Errorf("got %v, %v", u, err)
	}
	if _, err := r.ResolveEndpoint("shop", "none", 443); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("a service that is not there: %v", err)
	}
}

package apiserver

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"perch/controlplane/api"
)

// selfEvery is how often the server looks after its own objects.
const selfEvery = 10 * time.Second

// self keeps what a cluster cannot be without: the system namespaces and the
// Service by which pods reach this server.
type self struct {
	client  kubernetes.Interface
	ip      netip.Addr // cluster IP of the Service
	address netip.Addr // where this server listens
	port    int
	log     *slog.Logger
}

// run repairs until ctx ends.
func (s *self) run(ctx context.Context) {
	tick := time.NewTicker(selfEvery)
	defer tick.Stop()
	for {
		if err := s.repair(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("own objects were not repaired", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *self) repair(ctx context.Context) error {
	for _, name := range []string{api.NamespaceDefault, api.NamespaceSystem, api.NamespacePublic, api.NamespaceNodeLease} {
		_, err := s.client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			_, err = s.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		}
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("keep namespace %s: %w", name, err)
		}
	}
	if err := s.repairService(ctx); err != nil {
		return fmt.Errorf("keep service kubernetes: %w", err)
	}
	if s.address.IsLoopback() {
		return nil // pods cannot reach it, and Kubernetes refuses such endpoints
	}
	if err := s.repairEndpoints(ctx); err != nil {
		return fmt.Errorf("keep endpoints kubernetes: %w", err)
	}
	if err := s.repairSlice(ctx); err != nil {
		return fmt.Errorf("keep endpoint slice kubernetes: %w", err)
	}
	return nil
}

func (s *self) labels() map[string]string {
	return map[string]string{"component": "apiserver", "provider": "kubernetes"}
}

func (s *self) repairService(ctx context.Context) error {
	services := s.client.CoreV1().Services(api.NamespaceDefault)
	ports := []corev1.ServicePort{{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443, TargetPort: intstr.FromInt32(int32(s.port))}}
	have, err := services.Get(ctx, "kubernetes", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = services.Create(ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", Labels: s.labels()},
			Spec:       corev1.ServiceSpec{ClusterIP: s.ip.String(), Ports: ports, Type: corev1.ServiceTypeClusterIP},
		}, metav1.CreateOptions{})
		return err
	}
	if err != nil || equality.Semantic.DeepEqual(have.Spec.Ports, ports) {
		return err
	}
	have.Spec.Ports = ports
	_, err = services.Update(ctx, have, metav1.UpdateOptions{})
	return err
}

func (s *self) repairEndpoints(ctx context.Context) error {
	want := []corev1.EndpointSubset{{
		Addresses: []corev1.EndpointAddress{{IP: s.address.String()}},
		Ports:     []corev1.EndpointPort{{Name: "https", Port: int32(s.port), Protocol: corev1.ProtocolTCP}},
	}}
	endpoints := s.client.CoreV1().Endpoints(api.NamespaceDefault)
	have, err := endpoints.Get(ctx, "kubernetes", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		// The slice below is written by us; nobody may mirror it from here.
		_, err = endpoints.Create(ctx, &corev1.Endpoints{
			ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"}}, Subsets: want,
		}, metav1.CreateOptions{})
		return err
	}
	if err != nil || equality.Semantic.DeepEqual(have.Subsets, want) {
		return err
	}
	have.Subsets = want
	_, err = endpoints.Update(ctx, have, metav1.UpdateOptions{})
	return err
}

func (s *self) repairSlice(ctx context.Context) error {
	name, proto, port, ready := "https", corev1.ProtocolTCP, int32(s.port), true
	want := discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "kubernetes", Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{s.address.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Protocol: &proto, Port: &port}},
	}
	slices := s.client.DiscoveryV1().EndpointSlices(api.NamespaceDefault)
	have, err := slices.Get(ctx, "kubernetes", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = slices.Create(ctx, &want, metav1.CreateOptions{})
		return err
	}
	if err != nil || equality.Semantic.DeepEqual(have.Endpoints, want.Endpoints) && equality.Semantic.DeepEqual(have.Ports, want.Ports) {
		return err
	}
	have.Endpoints, have.Ports = want.Endpoints, want.Ports
	_, err = slices.Update(ctx, have, metav1.UpdateOptions{})
	return err
}

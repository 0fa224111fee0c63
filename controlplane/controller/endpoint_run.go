package controller

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"

	"perch/controlplane/controller/reconcile"
)

// endpoints write the addresses behind Services: EndpointSlices, and one
// Endpoints object for old clients.
type endpoints struct {
	deps
	services  corelisters.ServiceLister
	pods      corelisters.PodLister
	nodes     corelisters.NodeLister
	slices    discoverylisters.EndpointSliceLister
	endpoints corelisters.EndpointsLister
}

func newEndpoint(d deps) *reconcile.Controller {
	core, slices := d.informers.Core().V1(), d.informers.Discovery().V1().EndpointSlices()
	c := &endpoints{d, core.Services().Lister(), core.Pods().Lister(), core.Nodes().Lister(), slices.Lister(), core.Endpoints().Lister()}
	core.Nodes().Informer() // zones are read when a service is looked at; a node alone wakes nobody
	return &reconcile.Controller{
		Name:    "endpoint",
		Reads:   []string{"Service", "Pod", "Node", "discovery.k8s.io/EndpointSlice", "Endpoints"},
		Writes:  []reconcile.Part{{Kind: "discovery.k8s.io/EndpointSlice", Fields: "objects", Of: "Service"}, {Kind: "Endpoints", Fields: "objects", Of: "Service"}},
		Workers: 4,
		Sources: []reconcile.Source{
			{Informer: core.Services().Informer()},
			{Informer: core.Pods().Informer(), Keys: c.ofPod},
			{Informer: slices.Informer(), Keys: ofSlice},
			{Informer: core.Endpoints().Informer()},
		},
		Reconcile: c.reconcile,
	}
}

func (c *endpoints) ofPod(object any) []reconcile.Key {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return nil
	}
	services, err := c.services.Services(pod.Namespace).List(labels.Everything())
	if err != nil {
		return nil // a lister over a cache does not fail
	}
	var keys []reconcile.Key
	for _, s := range services {
		if len(s.Spec.Selector) > 0 && labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(pod.Labels)) {
			keys = append(keys, reconcile.Self(s)...)
		}
	}
	return keys
}

func ofSlice(object any) []reconcile.Key {
	slice, ok := object.(*discoveryv1.EndpointSlice)
	if !ok || slice.Labels[discoveryv1.LabelManagedBy] != sliceManager {
		return nil
	}
	return []reconcile.Key{{Namespace: slice.Namespace, Name: slice.Labels[discoveryv1.LabelServiceName]}}
}

func (c *endpoints) reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	service, err := c.services.Services(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, c.remove(ctx, key) // slices would go with the Service by ownership; Endpoints have no owner
	}
	if err != nil {
		return 0, fmt.Errorf("read service %s: %w", key, err)
	}
	if len(service.Spec.Selector) == 0 || service.Spec.Type == corev1.ServiceTypeExternalName || service.DeletionTimestamp != nil {
		return 0, nil // its addresses are somebody else's
	}
	pods, err := c.pods.Pods(key.Namespace).List(labels.SelectorFromSet(service.Spec.Selector))
	if err != nil {
		return 0, fmt.Errorf("list pods of %s: %w", key.Namespace, err)
	}
	if err := c.writeSlices(ctx, key, decideSlices(service, pods, c.zones())); err != nil {
		return 0, err
	}
	return 0, c.writeEndpoints(ctx, key, decideEndpoints(service, pods))
}

func (c *endpoints) zones() map[string]string {
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		return nil // a lister over a cache does not fail
	}
	zones := map[string]string{}
	for _, node := range nodes {
		zones[node.Name] = node.Labels[corev1.LabelTopologyZone]
	}
	return zones
}

func (c *endpoints) have(key reconcile.Key) (map[string]*discoveryv1.EndpointSlice, error) {
	list, err := c.slices.EndpointSlices(key.Namespace).List(labels.SelectorFromSet(labels.Set{
		discoveryv1.LabelServiceName: key.Name, discoveryv1.LabelManagedBy: sliceManager,
	}))
	if err != nil {
		return nil, fmt.Errorf("list endpointslices of %s: %w", key, err)
	}
	have := map[string]*discoveryv1.EndpointSlice{}
	for _, slice := range list {
		have[slice.Name] = slice
	}
	return have, nil
}

func (c *endpoints) writeSlices(ctx context.Context, key reconcile.Key, want []*discoveryv1.EndpointSlice) error {
	have, err := c.have(key)
	if err != nil {
		return err
	}
	client := c.kube.DiscoveryV1().EndpointSlices(key.Namespace)
	for _, w := range want {
		old, ok := have[w.Name]
		delete(have, w.Name)
		if !ok {
			if _, err := client.Create(ctx, w, metav1.CreateOptions{}); err != nil && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				return fmt.Errorf("create endpointslice %s/%s: %w", w.Namespace, w.Name, err)
			}
			continue
		}
		if apiequality.Semantic.DeepEqual(old.Endpoints, w.Endpoints) && apiequality.Semantic.DeepEqual(old.Ports, w.Ports) && maps.Equal(old.Labels, w.Labels) {
			continue
		}
		fresh := old.DeepCopy()
		fresh.Endpoints, fresh.Ports, fresh.Labels = w.Endpoints, w.Ports, w.Labels
		if _, err := client.Update(ctx, fresh, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("update endpointslice %s/%s: %w", w.Namespace, w.Name, err)
		}
	}
	return c.drop(ctx, have)
}

func (c *endpoints) drop(ctx context.Context, slices map[string]*discoveryv1.EndpointSlice) error {
	for _, old := range slices {
		err := c.kube.DiscoveryV1().EndpointSlices(old.Namespace).Delete(ctx, old.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(old.UID))})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete endpointslice %s/%s: %w", old.Namespace, old.Name, err)
		}
	}
	return nil
}

func (c *endpoints) writeEndpoints(ctx context.Context, key reconcile.Key, want *corev1.Endpoints) error {
	client := c.kube.CoreV1().Endpoints(key.Namespace)
	have, err := c.endpoints.Endpoints(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		_, err = client.Create(ctx, want, metav1.CreateOptions{})
		if err != nil && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return fmt.Errorf("create endpoints %s: %w", key, err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read endpoints %s: %w", key, err)
	}
	if apiequality.Semantic.DeepEqual(have.Subsets, want.Subsets) && maps.Equal(have.Labels, want.Labels) && have.Annotations[overCapacity] == want.Annotations[overCapacity] {
		return nil
	}
	fresh := have.DeepCopy()
	fresh.Subsets, fresh.Labels = want.Subsets, want.Labels
	delete(fresh.Annotations, overCapacity)
	if v, ok := want.Annotations[overCapacity]; ok {
		fresh.Annotations = with(fresh.Annotations, overCapacity, v)
	}
	if _, err := client.Update(ctx, fresh, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update endpoints %s: %w", key, err)
	}
	return nil
}

func (c *endpoints) remove(ctx context.Context, key reconcile.Key) error {
	have, err := c.have(key)
	if err != nil {
		return err
	}
	if err := c.drop(ctx, have); err != nil {
		return err
	}
	old, err := c.endpoints.Endpoints(key.Namespace).Get(key.Name)
	if err != nil || old.Labels["endpoints.kubernetes.io/managed-by"] != "endpoint-controller" {
		return nil // absent, or made by hand and kept
	}
	if err := c.kube.CoreV1().Endpoints(key.Namespace).Delete(ctx, key.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(old.UID))}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete endpoints %s: %w", key, err)
	}
	return nil
}

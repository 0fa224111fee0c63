package daemon

import (
	"errors"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"

	"perch/agent/network"
	"perch/agent/proxy"
	"perch/cmd/perch/daemon/config"
)

// world is what a node knows of the cluster's objects, for its network.
type world struct {
	cfg      config.Config
	nodes    corelisters.NodeLister
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
	pods     corelisters.PodLister // of this node

	nodesSynced, allSynced   func() bool
	nodesChanged, allChanged chan struct{} // capacity 1: "look again"
}

var errNotSynced = errors.New("not all objects are known yet")

func newWorld(cfg config.Config, f, mine informers.SharedInformerFactory) *world {
	nodes, services := f.Core().V1().Nodes(), f.Core().V1().Services()
	slices, pods := f.Discovery().V1().EndpointSlices(), mine.Core().V1().Pods()
	w := &world{cfg: cfg, nodes: nodes.Lister(), services: services.Lister(), slices: slices.Lister(), pods: pods.Lister(),
		nodesChanged: make(chan struct{}, 1), allChanged: make(chan struct{}, 1)}
	w.nodesSynced = nodes.Informer().HasSynced
	all := []cache.SharedIndexInformer{nodes.Informer(), services.Informer(), slices.Informer(), pods.Informer()}
	w.allSynced = func() bool {
		for _, i := range all {
			if !i.HasSynced() {
				return false
			}
		}
		return true
	}
	poke := func(c chan struct{}) {
		select {
		case c <- struct{}{}:
		default: // it will look again anyway
		}
	}
	for k, i := range all {
		tell := func() {
			poke(w.allChanged)
			if k == 0 {
				poke(w.nodesChanged)
			}
		}
		// The error says that the informer has stopped; it has not begun.
		_, _ = i.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) { tell() }, DeleteFunc: func(any) { tell() },
			UpdateFunc: func(old, new any) {
				if k == 0 && sameNetwork(old, new) {
					return // heartbeats
				}
				tell()
			}})
	}
	return w
}

// sameNetwork says that nothing of two versions of a node concerns the network.
func sameNetwork(old, new any) bool {
	a, ok := old.(*corev1.Node)
	b, also := new.(*corev1.Node)
	if !ok || !also || a.Spec.PodCIDR != b.Spec.PodCIDR || len(a.Status.Addresses) != len(b.Status.Addresses) {
		return false
	}
	for i := range a.Status.Addresses {
		if a.Status.Addresses[i] != b.Status.Addresses[i] {
			return false
		}
	}
	return true
}

// servicesOf lists the Services of a namespace from memory.
func (w *world) servicesOf(namespace string) []*corev1.Service {
	list, err := w.services.Services(namespace).List(labels.Everything())
	if err != nil {
		return nil // a cache cannot fail
	}
	return list
}

type nodeSource struct{ w *world }

func (w *world) nodeSource() network.Nodes { return nodeSource{w} }

// List implements network.Nodes.
func (s nodeSource) List() ([]*corev1.Node, error) {
	if !s.w.nodesSynced() {
		return nil, errNotSynced
	}
	return s.w.nodes.List(labels.Everything())
}

// Changed implements network.Nodes.
func (s nodeSource) Changed() <-chan struct{} { return s.w.nodesChanged }

type serviceSource struct {
	w   *world
	net *network.Network
}

func (w *world) serviceSource(net *network.Network) proxy.Source { return serviceSource{w, net} }

// Snapshot implements proxy.Source.
func (s serviceSource) Snapshot() (proxy.Snapshot, error) {
	cidr, gateway, ok := s.net.PodCIDR()
	if !ok || !s.w.allSynced() {
		return proxy.Snapshot{}, errNotSynced
	}
	out := proxy.Snapshot{Node: proxy.Node{Name: s.w.cfg.NodeName, PodCIDR: cidr}}
	var errs error
	var err error
	out.Services, err = s.w.services.List(labels.Everything())
	errs = errors.Join(errs, err)
	out.Slices, err = s.w.slices.List(labels.Everything())
	errs = errors.Join(errs, err)
	out.Pods, err = s.w.pods.List(labels.Everything())
	errs = errors.Join(errs, err)
	dns := s.w.cfg.ServiceIP(10)
	for _, p := range []corev1.Protocol{corev1.ProtocolUDP, corev1.ProtocolTCP} {
		out.Static = append(out.Static, proxy.Static{Service: netip.AddrPortFrom(dns, 53), Target: netip.AddrPortFrom(gateway, 53), Protocol: p})
	}
	return out, errs
}

// Changed implements proxy.Source.
func (s serviceSource) Changed() <-chan struct{} { return s.w.allChanged }

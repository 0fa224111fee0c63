package apiserver

import (
	"fmt"
	"net/url"

	"k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// serviceResolver finds the address of a Service that a webhook names. The library's
// own one asks the machine's DNS, which does not know the cluster's names.
type serviceResolver struct {
	services corelisters.ServiceLister
	slices   proxy.EndpointSliceGetter
}

func newServiceResolver(f informers.SharedInformerFactory) (serviceResolver, error) {
	slices, err := proxy.NewEndpointSliceListerGetter(f.Discovery().V1().EndpointSlices().Lister())
	if err != nil {
		return serviceResolver{}, fmt.Errorf("list endpoint slices: %w", err)
	}
	return serviceResolver{services: f.Core().V1().Services().Lister(), slices: slices}, nil
}

// ResolveEndpoint is the address of one ready endpoint of the Service.
func (r serviceResolver) ResolveEndpoint(namespace, name string, port int32) (*url.URL, error) {
	u, err := proxy.ResolveEndpoint(r.services, r.slices, namespace, name, port)
	if err != nil {
		return nil, fmt.Errorf("resolve service %s/%s port %d: %w", namespace, name, port, err)
	}
	return u, nil
}

package apiserver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/proxy"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
)

// proxyREST forwards ordinary requests to a node, pod or service.
type proxyREST struct {
	options func() runtime.Object
	target  func(ctx context.Context, name string) (*url.URL, http.RoundTripper, error)
}

var _ rest.Connecter = (*proxyREST)(nil)

// New is an empty set of options.
func (p *proxyREST) New() runtime.Object { return p.options() }

// Destroy leaves the shared storage alone.
func (p *proxyREST) Destroy() {}

// NewConnectOptions says that the rest of the path is an option.
func (p *proxyREST) NewConnectOptions() (runtime.Object, bool, string) {
	return p.options(), true, "path"
}

// ConnectMethods are all that a web application may use.
func (p *proxyREST) ConnectMethods() []string {
	return []string{"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"}
}

// Connect answers with a handler that forwards.
func (p *proxyREST) Connect(ctx context.Context, name string, options runtime.Object, responder rest.Responder) (http.Handler, error) {
	at, transport, err := p.target(ctx, name)
	if err != nil {
		return nil, err
	}
	at.Path = "/" + trimSlash(pathOption(options))
	h := proxy.NewUpgradeAwareHandler(at, transport, true, false, proxy.NewErrorResponder(responder))
	h.UseRequestLocation = false
	return h, nil
}

func pathOption(o runtime.Object) string {
	switch o := o.(type) {
	case *corev1.PodProxyOptions:
		return o.Path
	case *corev1.NodeProxyOptions:
		return o.Path
	case *corev1.ServiceProxyOptions:
		return o.Path
	}
	return ""
}

func trimSlash(p string) string {
	clean := path.Clean("/" + p)[1:]
	if len(p) > 1 && p[len(p)-1] == '/' && clean != "" {
		clean += "/" // a trailing slash means something to many servers
	}
	return clean
}

// workload is the transport towards pods. Their certificates are their own, so
// they cannot be verified, as with any Kubernetes API server.
func workload() http.RoundTripper {
	return utilnet.SetTransportDefaults(&http.Transport{
		DialContext:       (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSClientConfig:   unverified(),
		DisableKeepAlives: true,
	})
}

// reachable refuses addresses that would make the server call itself.
func reachable(ip string) error {
	a, err := netip.ParseAddr(ip)
	if err != nil || !a.IsGlobalUnicast() {
		return apierrors.NewBadRequest(fmt.Sprintf("address %q is not allowed", ip))
	}
	return nil
}

func nodeParts(i *installer, store *genericregistry.Store, parts map[string]rest.Storage) {
	i.agents.nodes = store
	parts["nodes/proxy"] = &proxyREST{
		options: func() runtime.Object { return &corev1.NodeProxyOptions{} },
		target: func(ctx context.Context, id string) (*url.URL, http.RoundTripper, error) {
			_, name, port, ok := utilnet.SplitSchemeNamePort(id)
			if !ok {
				return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("invalid node request %q", id))
			}
			at, err := i.agents.urlOf(ctx, name)
			if err != nil {
				return nil, nil, err
			}
			if port != "" && port != at.Port() {
				return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("only the agent's own port %s of node %s can be reached", at.Port(), name))
			}
			return at, i.agents.transport, nil
		},
	}
}

func podProxyTarget(pods *genericregistry.Store) func(context.Context, string) (*url.URL, http.RoundTripper, error) {
	return func(ctx context.Context, id string) (*url.URL, http.RoundTripper, error) {
		scheme, name, port, ok := utilnet.SplitSchemeNamePort(id)
		if !ok {
			return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("invalid pod request %q", id))
		}
		o, err := pods.Get(ctx, name, &metav1.GetOptions{})
		if err != nil {
			return nil, nil, err
		}
		p := o.(*corev1.Pod)
		if port == "" {
			for _, c := range p.Spec.Containers {
				if len(c.Ports) > 0 {
					port = strconv.Itoa(int(c.Ports[0].ContainerPort))
					break
				}
			}
		}
		if err := reachable(p.Status.PodIP); err != nil {
			return nil, nil, err
		}
		return location(scheme, p.Status.PodIP, port), workload(), nil
	}
}

func location(scheme, host, port string) *url.URL {
	if scheme == "" {
		scheme = "http"
	}
	if port != "" {
		host = net.JoinHostPort(host, port)
	}
	return &url.URL{Scheme: scheme, Host: host}
}

func serviceProxyTarget(services, endpointSlices *genericregistry.Store) func(context.Context, string) (*url.URL, http.RoundTripper, error) {
	return func(ctx context.Context, id string) (*url.URL, http.RoundTripper, error) {
		scheme, name, port, ok := utilnet.SplitSchemeNamePort(id)
		if !ok {
			return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("invalid service request %q", id))
		}
		o, err := services.Get(ctx, name, &metav1.GetOptions{})
		if err != nil {
			return nil, nil, err
		}
		portName, err := servicePort(o.(*corev1.Service), port)
		if err != nil {
			return nil, nil, err
		}
		list, err := endpointSlices.List(ctx, &internalversion.ListOptions{LabelSelector: labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: name})})
		if err != nil {
			return nil, nil, err
		}
		hosts := endpoints(list.(*discoveryv1.EndpointSliceList).Items, portName)
		if len(hosts) == 0 {
			return nil, nil, apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", id))
		}
		at := hosts[rand.IntN(len(hosts))]
		if err := reachable(at.Addr().String()); err != nil {
			return nil, nil, err
		}
		return location(scheme, at.Addr().String(), strconv.Itoa(int(at.Port()))), workload(), nil
	}
}

// servicePort is the name of the service's port that a user gave by name or
// number; without one the service must have a single port.
func servicePort(s *corev1.Service, want string) (string, error) {
	if want == "" && len(s.Spec.Ports) == 1 {
		return s.Spec.Ports[0].Name, nil
	}
	for _, p := range s.Spec.Ports {
		if want != "" && (p.Name == want || strconv.Itoa(int(p.Port)) == want) {
			return p.Name, nil
		}
	}
	return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %q found for service %q", want, s.Name))
}

// endpoints are the ready addresses of a port.
func endpoints(all []discoveryv1.EndpointSlice, portName string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range all {
		i := slices.IndexFunc(s.Ports, func(p discoveryv1.EndpointPort) bool {
			return p.Port != nil && (p.Name == nil && portName == "" || p.Name != nil && *p.Name == portName)
		})
		if i < 0 {
			continue
		}
		for _, e := range s.Endpoints {
			if e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			for _, a := range e.Addresses {
				if ip, err := netip.ParseAddr(a); err == nil {
					out = append(out, netip.AddrPortFrom(ip, uint16(*s.Ports[i].Port)))
				}
			}
		}
	}
	return out
}

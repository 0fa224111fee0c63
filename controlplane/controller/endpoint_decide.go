package controller

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	endpointsPerSlice = 100
	endpointsLimit    = 1000 // in one Endpoints object, as in Kubernetes
	sliceManager      = "endpointslice-controller.k8s.io"
	overCapacity      = "endpoints.kubernetes.io/over-capacity"
)

// decideSlices names the EndpointSlices a Service wants: one group per address
// family and set of resolved ports, at most 100 endpoints in each.
func decideSlices(service *corev1.Service, pods []*corev1.Pod, zones map[string]string) []*discoveryv1.EndpointSlice {
	var out []*discoveryv1.EndpointSlice
	for _, family := range familiesOf(service) {
		type group struct {
			ports     []discoveryv1.EndpointPort
			endpoints []discoveryv1.Endpoint
		}
		groups := map[string]*group{}
		for _, pod := range pods {
			ip := addressOf(pod, family)
			if ip == "" || podFinished(pod) {
				continue
			}
			ports := resolvePorts(service, pod)
			if len(ports) == 0 && len(service.Spec.Ports) > 0 {
				continue // none of the named ports exists on this pod
			}
			g := groups[portsKey(ports)]
			if g == nil {
				g = &group{ports: ports}
				groups[portsKey(ports)] = g
			}
			g.endpoints = append(g.endpoints, endpointOf(service, pod, ip, zones[pod.Spec.NodeName]))
		}
		if len(groups) == 0 { // a Service without pods still has one, empty slice
			groups["-"] = &group{}
		}
		number := 0
		for _, key := range sortedKeys(groups) {
			g := groups[key]
			slices.SortFunc(g.endpoints, func(a, b discoveryv1.Endpoint) int { return cmp.Compare(a.Addresses[0], b.Addresses[0]) })
			for first := 0; first == 0 || first < len(g.endpoints); first += endpointsPerSlice {
				part := g.endpoints[first:min(first+endpointsPerSlice, len(g.endpoints))]
				out = append(out, sliceOf(service, family, g.ports, part, number))
				number++
			}
		}
	}
	return out
}

func sliceOf(service *corev1.Service, family discoveryv1.AddressType, ports []discoveryv1.EndpointPort, endpoints []discoveryv1.Endpoint, number int) *discoveryv1.EndpointSlice {
	labels := map[string]string{}
	for k, v := range service.Labels {
		if !strings.HasPrefix(k, "kubernetes.io/") && !strings.HasPrefix(k, "endpointslice.kubernetes.io/") {
			labels[k] = v
		}
	}
	labels[discoveryv1.LabelServiceName] = service.Name
	labels[discoveryv1.LabelManagedBy] = sliceManager
	if service.Spec.ClusterIP == corev1.ClusterIPNone {
		labels[corev1.IsHeadlessService] = ""
	}
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: service.Namespace, Name: sliceName(service, family, number), Labels: labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(service, corev1.SchemeGroupVersion.WithKind("Service"))},
		},
		AddressType: family, Ports: ports, Endpoints: endpoints,
	}
}

// sliceName is made from the Service's uid, so that a repeated create meets the
// first one and a Service of the same name later does not.
func sliceName(service *corev1.Service, family discoveryv1.AddressType, number int) string {
	sum := sha256.Sum256([]byte(string(service.UID) + "/" + string(family)))
	name := service.Name
	if len(name) > 230 {
		name = name[:230]
	}
	return fmt.Sprintf("%s-%s-%d", name, hex.EncodeToString(sum[:3]), number)
}

func endpointOf(service *corev1.Service, pod *corev1.Pod, ip, zone string) discoveryv1.Endpoint {
	serving := podReady(pod)
	terminating := pod.DeletionTimestamp != nil
	ready := service.Spec.PublishNotReadyAddresses || (serving && !terminating)
	e := discoveryv1.Endpoint{
		Addresses:  []string{ip},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
	}
	if pod.Spec.NodeName != "" {
		node := pod.Spec.NodeName
		e.NodeName = &node
	}
	if zone != "" {
		e.Zone = &zone
	}
	if pod.Spec.Hostname != "" && pod.Spec.Subdomain == service.Name {
		hostname := pod.Spec.Hostname
		e.Hostname = &hostname
	}
	return e
}

// resolvePorts looks up named target ports in the pod; a port it lacks is left out.
func resolvePorts(service *corev1.Service, pod *corev1.Pod) []discoveryv1.EndpointPort {
	var out []discoveryv1.EndpointPort
	for i := range service.Spec.Ports {
		port := &service.Spec.Ports[i]
		number, ok := targetPort(port, pod)
		if !ok {
			continue
		}
		name, protocol := port.Name, cmp.Or(port.Protocol, corev1.ProtocolTCP)
		out = append(out, discoveryv1.EndpointPort{Name: &name, Protocol: &protocol, Port: &number, AppProtocol: port.AppProtocol})
	}
	return out
}

func targetPort(port *corev1.ServicePort, pod *corev1.Pod) (int32, bool) {
	if port.TargetPort.Type == intstr.Int {
		return cmp.Or(port.TargetPort.IntVal, port.Port), true
	}
	restartable := slices.DeleteFunc(slices.Clone(pod.Spec.InitContainers), func(c corev1.Container) bool {
		return c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways
	})
	for _, container := range append(slices.Clone(pod.Spec.Containers), restartable...) {
		for _, have := range container.Ports {
			if have.Name == port.TargetPort.StrVal && cmp.Or(have.Protocol, corev1.ProtocolTCP) == cmp.Or(port.Protocol, corev1.ProtocolTCP) {
				return have.ContainerPort, true
			}
		}
	}
	return 0, false
}

func familiesOf(service *corev1.Service) []discoveryv1.AddressType {
	var out []discoveryv1.AddressType
	for _, family := range service.Spec.IPFamilies {
		out = append(out, discoveryv1.AddressType(family)) // both spell IPv4 and IPv6
	}
	if len(out) == 0 {
		out = append(out, discoveryv1.AddressTypeIPv4)
	}
	return out
}

func addressOf(pod *corev1.Pod, family discoveryv1.AddressType) string {
	all := pod.Status.PodIPs
	if len(all) == 0 && pod.Status.PodIP != "" {
		all = []corev1.PodIP{{IP: pod.Status.PodIP}}
	}
	for _, ip := range all {
		if strings.Contains(ip.IP, ":") == (family == discoveryv1.AddressTypeIPv6) {
			return ip.IP
		}
	}
	return ""
}

func portsKey(ports []discoveryv1.EndpointPort) string {
	var b strings.Builder
	for _, p := range ports {
		fmt.Fprintf(&b, "%s/%s/%d;", *p.Name, *p.Protocol, *p.Port)
	}
	return b.String()
}

// decideEndpoints is the view of old clients: one object, ready and other addresses apart.
func decideEndpoints(service *corev1.Service, pods []*corev1.Pod) *corev1.Endpoints {
	out := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: service.Namespace, Name: service.Name, Labels: map[string]string{}}}
	for k, v := range service.Labels {
		out.Labels[k] = v
	}
	out.Labels["endpoints.kubernetes.io/managed-by"] = "endpoint-controller"
	if service.Spec.ClusterIP == corev1.ClusterIPNone {
		out.Labels[corev1.IsHeadlessService] = ""
	}
	subsets, count := map[string]*corev1.EndpointSubset{}, 0
	for _, pod := range byName(slices.Clone(pods)) {
		ip := addressOf(pod, familiesOf(service)[0])
		if ip == "" || podFinished(pod) || (pod.DeletionTimestamp != nil && !service.Spec.PublishNotReadyAddresses) {
			continue
		}
		ports := resolvePorts(service, pod)
		if len(ports) == 0 && len(service.Spec.Ports) > 0 {
			continue
		}
		if count++; count > endpointsLimit {
			out.Annotations = map[string]string{overCapacity: "truncated"}
			break
		}
		subset := subsets[portsKey(ports)]
		if subset == nil {
			subset = &corev1.EndpointSubset{Ports: oldPorts(ports)}
			subsets[portsKey(ports)] = subset
		}
		address := corev1.EndpointAddress{IP: ip, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: types.UID(pod.UID)}}
		if pod.Spec.NodeName != "" {
			node := pod.Spec.NodeName
			address.NodeName = &node
		}
		if pod.Spec.Hostname != "" && pod.Spec.Subdomain == service.Name {
			address.Hostname = pod.Spec.Hostname
		}
		if podReady(pod) || service.Spec.PublishNotReadyAddresses {
			subset.Addresses = append(subset.Addresses, address)
		} else {
			subset.NotReadyAddresses = append(subset.NotReadyAddresses, address)
		}
	}
	for _, key := range sortedKeys(subsets) {
		s := subsets[key]
		byIP := func(a, b corev1.EndpointAddress) int { return cmp.Compare(a.IP, b.IP) }
		slices.SortFunc(s.Addresses, byIP)
		slices.SortFunc(s.NotReadyAddresses, byIP)
		out.Subsets = append(out.Subsets, *s)
	}
	return out
}

func oldPorts(ports []discoveryv1.EndpointPort) []corev1.EndpointPort {
	var out []corev1.EndpointPort
	for _, p := range ports {
		out = append(out, corev1.EndpointPort{Name: *p.Name, Port: *p.Port, Protocol: *p.Protocol, AppProtocol: p.AppProtocol})
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

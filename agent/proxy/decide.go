package proxy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Key is where clients send to. Addr 0.0.0.0 is any address of the node.
type Key struct {
	Addr  netip.Addr
	Proto uint8 // IP protocol number
	Port  uint16
}

func (k Key) String() string { return fmt.Sprintf("%s:%d/%d", k.Addr, k.Port, k.Proto) }

// Frontend is one address, protocol and port that clients use.
type Frontend struct {
	Key
	Owner   string           // namespace/name of the Service, or what else wants it
	Targets []netip.AddrPort // sorted; empty: refuse at once
	Sticky  time.Duration    // client affinity; 0 = none
	Outside bool             // reached from outside the cluster: masquerade what leaves to other nodes
	// LocalOnly: clients outside the cluster get LocalTargets and keep their
	// source address; when there are none their packets are dropped, so that the
	// load balancer before them looks for another node.
	LocalOnly    bool
	LocalTargets []netip.AddrPort
}

// Skip is something that could not be served, and why.
type Skip struct{ Object, Reason string }

// Plan is the whole of what the kernel shall do.
type Plan struct {
	Frontends []Frontend // sorted by key, each key once
	Hairpin   []netip.Addr
	Skipped   []Skip
}

const static = "static" // owner of static entries

var nodeAddr = netip.IPv4Unspecified()

// Decide says how every Service port is served on this node. The first claim
// on a key wins, in this order: static entries, ClusterIPs, external addresses,
// NodePorts, host ports; within a kind the older Service.
func Decide(s Snapshot) Plan {
	d := decision{snapshot: s, taken: map[Key]string{}, slices: map[string][]*discoveryv1.EndpointSlice{}}
	for _, slice := range s.Slices {
		owner := slice.Namespace + "/" + slice.Labels[discoveryv1.LabelServiceName]
		d.slices[owner] = append(d.slices[owner], slice)
	}
	for _, st := range s.Static {
		d.claim(Frontend{Key: Key{st.Service.Addr(), protocol(st.Protocol), st.Service.Port()}, Owner: static, Targets: []netip.AddrPort{st.Target}})
	}
	services := slices.SortedFunc(slices.Values(s.Services), func(a, b *corev1.Service) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for _, claim := range []func(*corev1.Service, corev1.ServicePort, backends){d.clusterIP, d.external, d.nodePort} {
		for _, svc := range services {
			if svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.ClusterIP == corev1.ClusterIPNone || svc.Spec.ClusterIP == "" {
				continue
			}
			for _, port := range svc.Spec.Ports {
				claim(svc, port, d.backends(svc, port))
			}
		}
	}
	for _, pod := range s.Pods {
		d.hostPorts(pod)
	}
	return d.plan()
}

type decision struct {
	snapshot Snapshot
	slices   map[string][]*discoveryv1.EndpointSlice // by namespace/service
	taken    map[Key]string
	out      Plan
}

func (d *decision) plan() Plan {
	slices.SortFunc(d.out.Frontends, func(a, b Frontend) int { return compareKeys(a.Key, b.Key) })
	local := map[netip.Addr]bool{}
	for _, f := range d.out.Frontends {
		for _, t := range f.Targets {
			if f.Owner != static && d.snapshot.Node.PodCIDR.IsValid() && d.snapshot.Node.PodCIDR.Contains(t.Addr()) {
				local[t.Addr()] = true
			}
		}
	}
	for addr := range local {
		d.out.Hairpin = append(d.out.Hairpin, addr)
	}
	slices.SortFunc(d.out.Hairpin, netip.Addr.Compare)
	return d.out
}

func compareKeys(a, b Key) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port))
}

func (d *decision) skip(object, reason string) {
	d.out.Skipped = append(d.out.Skipped, Skip{object, reason})
}

func (d *decision) claim(f Frontend) {
	switch {
	case !f.Addr.Is4():
		d.skip(f.Owner, fmt.Sprintf("%s is no IPv4 address", f.Addr))
		return
	case f.Proto == 0:
		d.skip(f.Owner, fmt.Sprintf("port %d has a protocol that is not served", f.Port))
		return
	case d.taken[f.Key] != "":
		if f.Owner != d.taken[f.Key] && d.taken[f.Key] != static {
			d.skip(f.Owner, fmt.Sprintf("%s is already served for %s", f.Key, d.taken[f.Key]))
		}
		return
	}
	if n := len(f.Targets); n > maxSlots {
		d.skip(f.Owner, fmt.Sprintf("%d of %d endpoints of %s get no traffic from this node", n-maxSlots, n, f.Key))
		f.Targets = f.Targets[:maxSlots]
	}
	f.LocalTargets = f.LocalTargets[:min(len(f.LocalTargets), maxSlots)]
	d.taken[f.Key] = f.Owner
	d.out.Frontends = append(d.out.Frontends, f)
}

// backends are the endpoints of one Service port.
type backends struct{ all, local []netip.AddrPort }

// backends picks the endpoints that get traffic: the ready ones; only when no
// one is ready, those that still serve while they terminate. The question is asked
// for all endpoints and for the local ones apart, as each set is used alone.
func (d *decision) backends(svc *corev1.Service, port corev1.ServicePort) backends {
	var ready, ending, localReady, localEnding []netip.AddrPort
	for _, slice := range d.slices[svc.Namespace+"/"+svc.Name] {
		if slice.AddressType != discoveryv1.AddressTypeIPv4 {
			continue
		}
		number, ok := slicePort(slice, port)
		if !ok {
			continue
		}
		for _, e := range slice.Endpoints {
			if len(e.Addresses) == 0 {
				continue
			}
			addr, err := netip.ParseAddr(e.Addresses[0])
			if err != nil || !addr.Is4() {
				d.skip(svc.Namespace+"/"+svc.Name, fmt.Sprintf("endpoint address %q is no IPv4 address", e.Addresses[0]))
				continue
			}
			target := netip.AddrPortFrom(addr, number)
			isReady := e.Conditions.Ready == nil || *e.Conditions.Ready
			serving := e.Conditions.Serving != nil && *e.Conditions.Serving
			terminating := e.Conditions.Terminating != nil && *e.Conditions.Terminating
			local := e.NodeName != nil && *e.NodeName == d.snapshot.Node.Name
			switch {
			case isReady:
				ready = append(ready, target)
				if local {
					localReady = append(localReady, target)
				}
			case serving && terminating:
				ending = append(ending, target)
				if local {
					localEnding = append(localEnding, target)
				}
			}
		}
	}
	return backends{unique(ready, ending), unique(localReady, localEnding)}
}

func slicePort(slice *discoveryv1.EndpointSlice, port corev1.ServicePort) (uint16, bool) {
	for _, p := range slice.Ports {
		name, proto := "", corev1.ProtocolTCP
		if p.Name != nil {
			name = *p.Name
		}
		if p.Protocol != nil {
			proto = *p.Protocol
		}
		if name == port.Name && proto == cmp.Or(port.Protocol, corev1.ProtocolTCP) && p.Port != nil {
			return uint16(*p.Port), true
		}
	}
	return 0, false
}

// unique is the first list that has something, sorted, each target once.
func unique(first, otherwise []netip.AddrPort) []netip.AddrPort {
	if len(first) == 0 {
		first = otherwise
	}
	slices.SortFunc(first, netip.AddrPort.Compare)
	return slices.Compact(first)
}

func (d *decision) clusterIP(svc *corev1.Service, port corev1.ServicePort, b backends) {
	f := frontend(svc, svc.Spec.ClusterIP, port.Port, port.Protocol)
	f.Targets = b.all
	if p := svc.Spec.InternalTrafficPolicy; p != nil && *p == corev1.ServiceInternalTrafficPolicyLocal {
		f.Targets = b.local
	}
	d.claim(f)
}

func (d *decision) external(svc *corev1.Service, port corev1.ServicePort, b backends) {
	addrs := slices.Clone(svc.Spec.ExternalIPs)
	for _, in := range svc.Status.LoadBalancer.Ingress {
		if in.IP == "" || in.IPMode != nil && *in.IPMode == corev1.LoadBalancerIPModeProxy {
			continue
		}
		if len(svc.Spec.LoadBalancerSourceRanges) > 0 {
			// To serve it without the restriction would open what was meant to be closed.
			d.skip(svc.Namespace+"/"+svc.Name, "loadBalancerSourceRanges are not enforced yet; load balancer address "+in.IP+" is not served")
			continue
		}
		addrs = append(addrs, in.IP)
	}
	for _, addr := range addrs {
		d.claim(fromOutside(frontend(svc, addr, port.Port, port.Protocol), svc, b))
	}
}

func (d *decision) nodePort(svc *corev1.Service, port corev1.ServicePort, b backends) {
	if port.NodePort == 0 {
		return
	}
	d.claim(fromOutside(frontend(svc, nodeAddr.String(), port.NodePort, port.Protocol), svc, b))
}

func frontend(svc *corev1.Service, addr string, port int32, proto corev1.Protocol) Frontend {
	parsed, _ := netip.ParseAddr(addr) // an invalid address is skipped by claim
	f := Frontend{Key: Key{parsed, protocol(proto), uint16(port)}, Owner: svc.Namespace + "/" + svc.Name}
	if svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		f.Sticky = 3 * time.Hour
		if c := svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
			f.Sticky = time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
		}
	}
	return f
}

func fromOutside(f Frontend, svc *corev1.Service, b backends) Frontend {
	f.Outside, f.Targets = true, b.all
	if svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		f.LocalOnly, f.LocalTargets = true, b.local
	}
	return f
}

// hostPorts serves the host ports of a pod that lives on this node.
func (d *decision) hostPorts(pod *corev1.Pod) {
	addr, err := netip.ParseAddr(pod.Status.PodIP)
	ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	if err != nil || ended || pod.Spec.HostNetwork || pod.Spec.NodeName != d.snapshot.Node.Name {
		return
	}
	owner := "pod " + pod.Namespace + "/" + pod.Name
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.HostPort == 0 {
				continue
			}
			at := nodeAddr
			if ip, err := netip.ParseAddr(p.HostIP); err == nil {
				at = ip
			}
			d.claim(Frontend{
				Key: Key{at, protocol(p.Protocol), uint16(p.HostPort)}, Owner: owner, Outside: true,
				Targets: []netip.AddrPort{netip.AddrPortFrom(addr, uint16(p.ContainerPort))},
			})
		}
	}
}

func protocol(p corev1.Protocol) uint8 {
	switch p {
	case corev1.ProtocolTCP, "":
		return 6
	case corev1.ProtocolUDP:
		return 17
	case corev1.ProtocolSCTP:
		return 132
	}
	return 0
}

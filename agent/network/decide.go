package network

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Topology is what the node must know of the cluster's nodes.
type Topology struct {
	PodCIDR netip.Prefix // this node's; invalid: not assigned yet
	Peers   []Peer       // the other nodes that have an address and a pod CIDR, by name
}

// Peer is another node.
type Peer struct {
	Name    string
	Address netip.Addr // its InternalIP
	PodCIDR netip.Prefix
}

// TopologyOf reads the nodes' objects. Nodes without an IPv4 InternalIP or pod
// CIDR are no peers yet; errors name those with values that make no sense.
func TopologyOf(self string, nodes []*corev1.Node) (Topology, error) {
	var t Topology
	var errs []error
	for _, n := range nodes {
		var pods netip.Prefix
		for _, text := range append(n.Spec.PodCIDRs[:len(n.Spec.PodCIDRs):len(n.Spec.PodCIDRs)], n.Spec.PodCIDR) {
			if text == "" {
				continue
			}
			p, err := netip.ParsePrefix(text)
			if err != nil {
				errs = append(errs, fmt.Errorf("read pod CIDR of node %s: %w", n.Name, err))
			} else if p.Addr().Is4() && !pods.IsValid() {
				pods = p.Masked()
			}
		}
		if n.Name == self {
			t.PodCIDR = pods
			continue
		}
		var addr netip.Addr
		for _, a := range n.Status.Addresses {
			if p, err := netip.ParseAddr(a.Address); a.Type == corev1.NodeInternalIP && err == nil && p.Is4() && !addr.IsValid() {
				addr = p
			}
		}
		if addr.IsValid() && pods.IsValid() {
			t.Peers = append(t.Peers, Peer{n.Name, addr, pods})
		}
	}
	slices.SortFunc(t.Peers, func(a, b Peer) int { return cmp.Compare(a.Name, b.Name) })
	return t, errors.Join(errs...)
}

// Hop is how the kernel would send to an address.
type Hop struct {
	Link   int  // index of the link
	Direct bool // no router in between: the address is on the link's subnet
}

// Route is a route to another node's pods.
type Route struct {
	Pods netip.Prefix
	Via  netip.Addr
	Link int
}

// Condition is one statement about the node's network, for its status.
type Condition struct {
	Type    string // PodNetwork, PeersRouted or FirewallOpen
	OK      bool
	Reason  string // one word
	Message string // one sentence
}

// Plan is what the routes shall be.
type Plan struct {
	Routes []Route
	Direct []netip.Addr // nodes that reach our pods' addresses: no masquerade towards them
	Peers  Condition
}

// Decide routes to the pods of every peer on one of our own subnets. hops holds
// what the kernel answered for each peer's address.
func Decide(t Topology, hops map[netip.Addr]Hop) Plan {
	var plan Plan
	var far, clash []string
	taken := map[netip.Prefix]string{t.PodCIDR: "this node"}
	for _, p := range t.Peers {
		if other, ok := taken[p.PodCIDR]; ok {
			clash = append(clash, fmt.Sprintf("%s has the pod CIDR %s of %s", p.Name, p.PodCIDR, other))
			continue
		}
		taken[p.PodCIDR] = p.Name
		hop, ok := hops[p.Address]
		if !ok || !hop.Direct {
			far = append(far, fmt.Sprintf("%s (%s)", p.Name, p.Address))
			continue
		}
		plan.Routes = append(plan.Routes, Route{p.PodCIDR, p.Address, hop.Link})
		plan.Direct = append(plan.Direct, p.Address)
	}
	switch {
	case len(clash) > 0:
		plan.Peers = Condition{"PeersRouted", false, "PodCIDRClash", "No route: " + strings.Join(clash, "; ") + "."}
	case len(far) > 0:
		plan.Peers = Condition{"PeersRouted", false, "NotOnSubnet",
			"Pods of " + strings.Join(far, ", ") + " are not reachable: the nodes share no subnet, and VXLAN is not available yet."}
	default:
		plan.Peers = Condition{"PeersRouted", true, "HostGateway", fmt.Sprintf("Routes to the pods of %d other nodes are set.", len(plan.Routes))}
	}
	return plan
}

package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Config is what does not change while the agent runs.
type Config struct {
	Cluster     string        // the table is named perch-<Cluster>
	ServiceCIDR netip.Prefix  // ClusterIPs, IPv4
	ClusterCIDR netip.Prefix  // all pods of all nodes, IPv4
	Mark        uint32        // one bit of the packet mark: "masquerade when it leaves"
	Settle      time.Duration // changes within this time are written together
	Verify      time.Duration // how often the kernel's table is looked at
}

// Default has every value that fits all nodes; cluster and CIDRs must be filled in.
// The mark bit is the one other Kubernetes nodes use for the same purpose.
func Default() Config {
	return Config{Mark: 0x4000, Settle: 20 * time.Millisecond, Verify: 10 * time.Second}
}

// Validate names every problem of the configuration at once.
func (c Config) Validate() error {
	var errs []error
	if c.Cluster == "" || strings.ContainsAny(c.Cluster, " /\x00") {
		errs = append(errs, fmt.Errorf("cluster name %q: want a plain name", c.Cluster))
	}
	for name, cidr := range map[string]netip.Prefix{"service CIDR": c.ServiceCIDR, "cluster CIDR": c.ClusterCIDR} {
		if !cidr.IsValid() || !cidr.Addr().Is4() {
			errs = append(errs, fmt.Errorf("%s %q: want an IPv4 prefix", name, cidr))
		}
	}
	if c.ServiceCIDR.IsValid() && c.ClusterCIDR.IsValid() && c.ServiceCIDR.Overlaps(c.ClusterCIDR) {
		errs = append(errs, fmt.Errorf("service CIDR %s overlaps cluster CIDR %s", c.ServiceCIDR, c.ClusterCIDR))
	}
	if c.Mark == 0 || c.Mark&(c.Mark-1) != 0 {
		errs = append(errs, fmt.Errorf("mark %#x: want exactly one bit", c.Mark))
	}
	if c.Settle <= 0 || c.Verify <= 0 {
		errs = append(errs, errors.New("settle and verify must be positive durations"))
	}
	return errors.Join(errs...)
}

// Node is what the proxy must know of its own node.
type Node struct {
	Name    string       // compared with the endpoints' nodeName
	PodCIDR netip.Prefix // the pods that live here
}

// Static sends one Service port to a fixed address of this node, whatever the
// API says of that Service: cluster DNS is answered by the node itself.
type Static struct {
	Service, Target netip.AddrPort
	Protocol        corev1.Protocol
}

// Snapshot is what the proxy acts on. Its objects are read-only.
type Snapshot struct {
	Node     Node
	Services []*corev1.Service
	Slices   []*discoveryv1.EndpointSlice
	Pods     []*corev1.Pod // of this node, for host ports; others are skipped
	Static   []Static
}

// Source gives the current snapshot and tells of changes. Snapshot returns an
// error while it is not complete yet (informers not synced, node without a pod
// CIDR): the kernel then keeps what it has.
type Source interface {
	Snapshot() (Snapshot, error)
	Changed() <-chan struct{}
}

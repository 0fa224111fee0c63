package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"perch/agent/network/cni"
)

// Config is what does not change while the agent runs.
type Config struct {
	Cluster     string // names tables, links' aliases and rule comments: perch-<Cluster>
	Node        string // our own Node object's name
	ClusterCIDR netip.Prefix
	ServiceCIDR netip.Prefix
	Dir         string        // absolute; holds net.d/ (the runtime reads it), ipam/ and network.json
	Plugin      string        // file name of the helper in the runtime's CNI binary folder
	MTU         int           // bytes; 0 = that of the default route's link
	Interval    time.Duration // between looks at routes and firewall, in which others may write
	Collect     time.Duration // between collections of leaked addresses and links
}

// Default has every value that fits all nodes; names, CIDRs and Dir must be filled in.
func Default() Config {
	return Config{Plugin: cni.DefaultType, Interval: 10 * time.Second, Collect: 5 * time.Minute}
}

// Validate names every problem of the configuration at once.
func (c Config) Validate() error {
	var errs []error
	if c.Cluster == "" || strings.ContainsAny(c.Cluster, " /\x00") {
		errs = append(errs, fmt.Errorf("cluster name %q: want a plain name", c.Cluster))
	}
	if c.Node == "" {
		errs = append(errs, errors.New("node name is empty"))
	}
	if !c.ClusterCIDR.IsValid() || !c.ClusterCIDR.Addr().Is4() {
		errs = append(errs, fmt.Errorf("cluster CIDR %q: want an IPv4 prefix", c.ClusterCIDR))
	}
	if !c.ServiceCIDR.IsValid() || !c.ServiceCIDR.Addr().Is4() {
		errs = append(errs, fmt.Errorf("service CIDR %q: want an IPv4 prefix", c.ServiceCIDR))
	}
	if c.ServiceCIDR.IsValid() && c.ClusterCIDR.IsValid() && c.ServiceCIDR.Overlaps(c.ClusterCIDR) {
		errs = append(errs, fmt.Errorf("service CIDR %s overlaps cluster CIDR %s", c.ServiceCIDR, c.ClusterCIDR))
	}
	if !filepath.IsAbs(c.Dir) {
		errs = append(errs, fmt.Errorf("dir %q: want an absolute path", c.Dir))
	}
	if c.Plugin == "" || c.Interval <= 0 || c.Collect <= 0 {
		errs = append(errs, errors.New("plugin, interval and collect must be set"))
	}
	return errors.Join(errs...)
}

// Nodes gives all Node objects, read-only, and tells of changes. List fails
// while the informer has not synced.
type Nodes interface {
	List() ([]*corev1.Node, error)
	Changed() <-chan struct{}
}

// Sandboxes lists the interfaces of all pod sandboxes that the runtime knows,
// ready or not. Interfaces not in the list are removed as leaked.
type Sandboxes func(context.Context) ([]cni.Attachment, error)

// tableName is the name of the cluster's tables and the comment of its rules.
func tableName(cluster string) string { return "perch-" + cluster }

func (c Config) plugin(podCIDR netip.Prefix, mtu int) cni.Config {
	return cni.Config{
		Network: tableName(c.Cluster), Cluster: c.Cluster, Type: c.Plugin, PodCIDR: podCIDR,
		Gateway: cni.Gateway(podCIDR), StateDir: filepath.Join(c.Dir, "ipam"), MTU: mtu,
	}
}

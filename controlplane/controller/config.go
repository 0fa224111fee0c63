package controller

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Config holds what no default fits.
type Config struct {
	ClusterCIDR   netip.Prefix  // pod addresses of the whole cluster
	NodeMaskBits  int           // size of one node's share
	RootCA        []byte        // PEM, published as ConfigMap kube-root-ca.crt in every namespace
	EndedPodLimit int           // finished pods kept in the cluster; the oldest go first
	GoneNodeGrace time.Duration // how long pods of a deleted node may wait for its return
	Rediscover    time.Duration // how often garbage collection looks for new kinds
}

// Default is a cluster of up to 256 nodes.
func Default() Config {
	return Config{
		ClusterCIDR: netip.MustParsePrefix("10.42.0.0/16"), NodeMaskBits: 24,
		EndedPodLimit: 12500, GoneNodeGrace: 40 * time.Second, Rediscover: 30 * time.Second,
	}
}

// Validate reports all problems at once.
func (c Config) Validate() error {
	var errs error
	if !c.ClusterCIDR.IsValid() {
		errs = errors.Join(errs, errors.New("cluster CIDR is missing"))
	} else if c.NodeMaskBits < c.ClusterCIDR.Bits() || c.NodeMaskBits > c.ClusterCIDR.Addr().BitLen()-2 || c.NodeMaskBits-c.ClusterCIDR.Bits() > 16 {
		errs = errors.Join(errs, fmt.Errorf("node mask /%d does not divide cluster CIDR %s", c.NodeMaskBits, c.ClusterCIDR))
	}
	if c.EndedPodLimit < 1 {
		errs = errors.Join(errs, fmt.Errorf("ended pod limit %d: want 1 or more", c.EndedPodLimit))
	}
	if c.Rediscover <= 0 {
		errs = errors.Join(errs, fmt.Errorf("rediscover every %s: want more than 0", c.Rediscover))
	}
	return errs
}

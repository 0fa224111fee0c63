package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/types"
)

// DefaultType is the name of the helper binary that the runtime executes.
const DefaultType = "perch-shim"

// Config is the network's part of the CNI configuration.
type Config struct {
	Network  string       // name of the network, also the folder below StateDir
	Cluster  string       // name of the cluster; marks the links as ours
	Type     string       // file name of the plugin binary; "" = DefaultType
	PodCIDR  netip.Prefix // addresses of this node's pods, IPv4
	Gateway  netip.Addr   // first address of PodCIDR
	StateDir string       // absolute folder of the address files
	MTU      int          // bytes; of both ends of a pod's veth
}

// Gateway is the first usable address of a pod CIDR: the pods' next hop and
// the address the node itself has towards its pods.
func Gateway(podCIDR netip.Prefix) netip.Addr {
	return podCIDR.Masked().Addr().Next()
}

// Validate names every problem of the configuration at once.
func (c Config) Validate() error {
	var errs []error
	if c.Network == "" || filepath.Base(c.Network) != c.Network || c.Network == "." || c.Network == ".." {
		errs = append(errs, fmt.Errorf("network name %q: want a plain file name", c.Network))
	}
	if c.Cluster == "" {
		errs = append(errs, errors.New("cluster name is empty"))
	}
	switch {
	case !c.PodCIDR.IsValid() || !c.PodCIDR.Addr().Is4():
		errs = append(errs, fmt.Errorf("pod CIDR %q: want an IPv4 prefix", c.PodCIDR))
	case c.PodCIDR.Bits() < 16 || c.PodCIDR.Bits() > 29:
		errs = append(errs, fmt.Errorf("pod CIDR %s: want a prefix of /16 to /29", c.PodCIDR))
	case c.Gateway != Gateway(c.PodCIDR):
		errs = append(errs, fmt.Errorf("gateway %s: want %s, the first address of %s", c.Gateway, Gateway(c.PodCIDR), c.PodCIDR))
	}
	if !filepath.IsAbs(c.StateDir) {
		errs = append(errs, fmt.Errorf("state dir %q: want an absolute path", c.StateDir))
	}
	if c.MTU < 576 || c.MTU > 65535 {
		errs = append(errs, fmt.Errorf("mtu %d: want 576 to 65535 bytes", c.MTU))
	}
	return errors.Join(errs...)
}

// wire is the plugin's configuration as the runtime passes it on stdin.
type wire struct {
	CNIVersion string          `json:"cniVersion,omitempty"`
	Network    string          `json:"name,omitempty"`
	Type       string          `json:"type"`
	Cluster    string          `json:"cluster"`
	PodCIDR    string          `json:"podCIDR"`
	Gateway    string          `json:"gateway"`
	StateDir   string          `json:"stateDir"`
	MTU        int             `json:"mtu"`
	Valid      []Attachment    `json:"cni.dev/valid-attachments,omitempty"`
	PrevResult json.RawMessage `json:"prevResult,omitempty"`
}

// Attachment names one interface of one sandbox.
type Attachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

// Conflist is the file for the runtime's CNI configuration folder. Runtimes
// that know CNI 1.1 choose it from cniVersions; older ones read cniVersion.
func Conflist(c Config) ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("compose cni configuration %s: %w", c.Network, err)
	}
	kind := c.Type
	if kind == "" {
		kind = DefaultType
	}
	list := struct {
		CNIVersion  string   `json:"cniVersion"`
		CNIVersions []string `json:"cniVersions"`
		Name        string   `json:"name"`
		Plugins     []wire   `json:"plugins"`
	}{
		CNIVersion:  "1.0.0",
		CNIVersions: []string{"1.0.0", "1.1.0"},
		Name:        c.Network,
		Plugins: []wire{{
			Type: kind, Cluster: c.Cluster, PodCIDR: c.PodCIDR.String(), Gateway: c.Gateway.String(),
			StateDir: c.StateDir, MTU: c.MTU,
		}},
	}
	text, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("compose cni configuration %s: %w", c.Network, err)
	}
	return append(text, '\n'), nil
}

// parse reads the configuration that the runtime passes on stdin.
func parse(stdin []byte) (Config, wire, error) {
	var w wire
	if err := json.Unmarshal(stdin, &w); err != nil {
		return Config{}, w, types.NewError(types.ErrDecodingFailure, "decode cni configuration", err.Error())
	}
	c := Config{Network: w.Network, Cluster: w.Cluster, Type: w.Type, StateDir: w.StateDir, MTU: w.MTU}
	// What does not parse stays zero and is named by Validate.
	c.PodCIDR, _ = netip.ParsePrefix(w.PodCIDR)
	c.PodCIDR = c.PodCIDR.Masked()
	c.Gateway, _ = netip.ParseAddr(w.Gateway)
	if err := c.Validate(); err != nil {
		return Config{}, w, types.NewError(types.ErrInvalidNetworkConfig, "read cni configuration", err.Error())
	}
	return c, w, nil
}

package network

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/prometheus/client_golang/prometheus"

	"perch/agent/network/cni"
)

// starting is longer than any runtime takes to start a sandbox.
const starting = 10 * time.Minute

// Network keeps this node's part of the pod network as it should be.
type Network struct {
	cfg       Config
	nodes     Nodes
	sandboxes Sandboxes
	log       *slog.Logger
	metrics   *metrics

	mu         sync.Mutex
	conditions map[string]Condition
	podCIDR    netip.Prefix

	// Owned by Run.
	masqueraded string // what the table was written for
	opened      []string
	collected   time.Time
}

// New checks the configuration and changes nothing. sandboxes may be nil: then
// leaked addresses are not collected.
func New(cfg Config, nodes Nodes, sandboxes Sandboxes, log *slog.Logger, reg prometheus.Registerer) (*Network, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure network: %w", err)
	}
	n := &Network{cfg: cfg, nodes: nodes, sandboxes: sandboxes, log: log, metrics: newMetrics(reg), conditions: map[string]Condition{}}
	n.set(Condition{"PodNetwork", false, "Starting", "The pod network is being set up."})
	return n, nil
}

// Conditions are the statements about the pod network, sorted by type. PodNetwork
// is true once pods can be attached. Safe to call at any time.
func (n *Network) Conditions() []Condition {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []Condition
	for _, c := range n.conditions {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Condition) int { return cmp.Compare(a.Type, b.Type) })
	return out
}

// PodCIDR is this node's pod CIDR and its gateway address, once they are set up.
func (n *Network) PodCIDR() (podCIDR netip.Prefix, gateway netip.Addr, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.podCIDR.IsValid() {
		return netip.Prefix{}, netip.Addr{}, false
	}
	return n.podCIDR, cni.Gateway(n.podCIDR), true
}

// Run sets up the network and keeps it until ctx ends. Errors become the
// condition PodNetwork and are tried again; Run itself never fails.
func (n *Network) Run(ctx context.Context) error {
	tick := time.NewTicker(n.cfg.Interval)
	defer tick.Stop()
	for {
		start := time.Now()
		if err := n.sync(ctx); err != nil {
			n.metrics.errors.Inc()
			n.log.Warn("pod network not set up", "err", err)
			n.set(Condition{"PodNetwork", false, "Failed", err.Error()})
		}
		n.metrics.took.Observe(time.Since(start).Seconds())
		select {
		case <-ctx.Done():
			return nil
		case <-n.nodes.Changed():
		case <-tick.C:
		}
	}
}

func (n *Network) sync(ctx context.Context) error {
	objects, err := n.nodes.List()
	if err != nil {
		n.log.Debug("nodes not known yet", "reason", err)
		return nil // Changed tells when they are
	}
	t, err := TopologyOf(n.cfg.Node, objects)
	if err != nil {
		n.log.Warn("node skipped", "err", err)
	}
	if !t.PodCIDR.IsValid() {
		n.set(Condition{"PodNetwork", false, "NoPodCIDR", "The node has no IPv4 pod CIDR yet."})
		return nil
	}
	mtu := n.cfg.MTU
	if mtu == 0 {
		if mtu, err = defaultMTU(); err != nil {
			return err
		}
	}
	plugin := n.cfg.plugin(t.PodCIDR, mtu)
	if err := plugin.Validate(); err != nil {
		return err
	}
	if err := remember(n.cfg, t.PodCIDR.String()); err != nil {
		return err
	}
	plan := Decide(t, hops(t.Peers))
	if err := setNode(n.cfg, t.PodCIDR, plugin.Gateway, mtu, plan); err != nil {
		return err
	}
	if err := n.filter(t.PodCIDR, plan); err != nil {
		return err
	}
	text, err := cni.Conflist(plugin)
	if err != nil {
		return err
	}
	if err := writeAtomically(conflistPath(n.cfg.Dir), text); err != nil {
		return err
	}
	n.mu.Lock()
	n.podCIDR = t.PodCIDR
	n.mu.Unlock()
	n.metrics.peers.Set(float64(len(t.Peers)))
	n.metrics.routes.Set(float64(len(plan.Routes)))
	n.set(plan.Peers)
	n.set(Condition{"PodNetwork", true, "Ready", fmt.Sprintf("Pods get addresses of %s.", t.PodCIDR)})
	n.collect(ctx, plugin)
	return nil
}

func conflistPath(dir string) string { return filepath.Join(dir, "net.d", "10-perch.conflist") }

// filter writes the masquerade table when it is not as wanted, and opens firewalls.
func (n *Network) filter(podCIDR netip.Prefix, plan Plan) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	there, err := masquerades(c, n.cfg.Cluster)
	if err != nil {
		return err
	}
	if want := fmt.Sprint(podCIDR, plan.Direct); !there || n.masqueraded != want {
		if err := masquerade(c, n.cfg, podCIDR, plan.Direct); err != nil {
			return err
		}
		n.masqueraded = want
	}
	opened, err := openForwarding(c, n.cfg.Cluster, n.cfg.ClusterCIDR)
	if err != nil {
		return err
	}
	for _, name := range opened {
		n.log.Info("firewall opened for pods", "chain", name, "cidr", n.cfg.ClusterCIDR)
		n.metrics.opened.Inc()
		if !slices.Contains(n.opened, name) {
			n.opened = append(n.opened, name)
		}
	}
	n.set(firewallCondition(n.opened, n.cfg.ClusterCIDR))
	return nil
}

// collect removes what sandboxes that are gone have left.
func (n *Network) collect(ctx context.Context, plugin cni.Config) {
	now := time.Now()
	if n.sandboxes == nil || now.Sub(n.collected) < n.cfg.Collect {
		return
	}
	valid, err := n.sandboxes(ctx)
	if err != nil {
		n.log.Warn("sandboxes not listed", "err", err)
		return
	}
	// A sandbox gets its address before the runtime lists it.
	freed, err := cni.Collect(plugin, valid, now.Add(-starting))
	n.metrics.collected.Add(float64(freed))
	if err != nil {
		n.log.Warn("leaked addresses not collected", "err", err)
		return
	}
	n.collected = now
	if freed > 0 {
		n.log.Info("leaked addresses collected", "count", freed)
	}
}

func (n *Network) set(c Condition) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if old := n.conditions[c.Type]; old != c {
		n.log.Info("network condition changed", "condition", c.Type, "ok", c.OK, "reason", c.Reason, "message", c.Message)
	}
	n.conditions[c.Type] = c
}

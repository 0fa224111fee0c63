package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"

	"perch/controlplane/controller/reconcile"
	"perch/controlplane/event"
)

// noAddresses is the condition of a node that got no pod addresses.
const noAddresses corev1.NodeConditionType = "PodCIDRExhausted"

// nodeCIDRs give each node its share of the cluster's pod addresses. The shares
// live in the Node objects only; one worker hands them out.
type nodeCIDRs struct {
	deps
	nodes corelisters.NodeLister
	given map[string]netip.Prefix // shares the watch has not shown yet; owned by the worker
}

func newNodeCIDR(d deps) *reconcile.Controller {
	nodes := d.informers.Core().V1().Nodes()
	c := &nodeCIDRs{d, nodes.Lister(), map[string]netip.Prefix{}}
	return &reconcile.Controller{
		Name: "nodecidr", Reads: []string{"Node"},
		Writes:    []reconcile.Part{{Kind: "Node", Fields: "spec.podCIDR"}, {Kind: "Node", Fields: "status.conditions[PodCIDRExhausted]"}},
		Sources:   []reconcile.Source{{Informer: nodes.Informer()}},
		Reconcile: c.reconcile,
	}
}

func (c *nodeCIDRs) reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	node, err := c.nodes.Get(key.Name)
	if apierrors.IsNotFound(err) {
		delete(c.given, key.Name)
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read node %s: %w", key.Name, err)
	}
	if node.Spec.PodCIDR != "" {
		delete(c.given, key.Name)
		return 0, nil
	}
	share, ok := c.given[key.Name]
	if !ok {
		taken, err := c.taken()
		if err != nil {
			return 0, err
		}
		if share, err = freeCIDR(c.cfg.ClusterCIDR, c.cfg.NodeMaskBits, taken); err != nil {
			return time.Minute, c.exhausted(ctx, node)
		}
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": node.UID},
		"spec":     map[string]any{"podCIDR": share.String(), "podCIDRs": []string{share.String()}},
	})
	if err != nil {
		return 0, fmt.Errorf("encode pod CIDR of node %s: %w", key.Name, err)
	}
	if _, err := c.kube.CoreV1().Nodes().Patch(ctx, key.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return 0, fmt.Errorf("write pod CIDR of node %s: %w", key.Name, err)
	}
	c.given[key.Name] = share
	c.log.Info("node was given pod addresses", "node", key.Name, "cidr", share.String())
	return 0, nil
}

func (c *nodeCIDRs) taken() ([]netip.Prefix, error) {
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	var taken []netip.Prefix
	for _, share := range c.given {
		taken = append(taken, share)
	}
	for _, node := range nodes {
		if p, err := netip.ParsePrefix(node.Spec.PodCIDR); err == nil {
			taken = append(taken, p)
		}
	}
	return taken, nil
}

func (c *nodeCIDRs) exhausted(ctx context.Context, node *corev1.Node) error {
	message := fmt.Sprintf("No /%d is left in cluster CIDR %s; remove nodes or start the cluster with a larger one.", c.cfg.NodeMaskBits, c.cfg.ClusterCIDR)
	for _, have := range node.Status.Conditions {
		if have.Type == noAddresses && have.Status == corev1.ConditionTrue {
			return nil
		}
	}
	c.tell(event.Record{Component: "nodecidr-controller", Object: event.Ref(node, "v1", "Node"), Type: event.Warning, Reason: "CIDRNotAvailable", Message: message})
	now := metav1.Now()
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{{
		Type: noAddresses, Status: corev1.ConditionTrue, Reason: "CIDRNotAvailable", Message: message, LastTransitionTime: now, LastHeartbeatTime: now,
	}}}})
	if err == nil {
		_, err = c.kube.CoreV1().Nodes().Patch(ctx, node.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	}
	if err != nil {
		return fmt.Errorf("write condition of node %s: %w", node.Name, err)
	}
	return nil
}

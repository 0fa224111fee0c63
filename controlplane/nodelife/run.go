package nodelife

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	coordinationlisters "k8s.io/client-go/listers/coordination/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"perch/controlplane/event"
)

const component = "node-controller"

// Config of the judgement.
type Config struct {
	Grace    time.Duration // silence after which a node's state is Unknown
	Patience time.Duration // how long pods without a toleration of their own stay on a lost node
	Look     time.Duration // how often all nodes are looked at when nothing changes
}

// Default is Kubernetes' timing.
func Default() Config {
	return Config{Grace: 40 * time.Second, Patience: 5 * time.Minute, Look: 2 * time.Second}
}

// Validate reports all problems at once.
func (c Config) Validate() error {
	var errs error
	if c.Grace < 5*time.Second {
		errs = errors.Join(errs, fmt.Errorf("node grace %s: want 5s or more", c.Grace))
	}
	if c.Patience < 0 {
		errs = errors.Join(errs, fmt.Errorf("node patience %s: want 0 or more", c.Patience))
	}
	if c.Look <= 0 {
		errs = errors.Join(errs, fmt.Errorf("node look %s: want more than 0", c.Look))
	}
	return errs
}

// Keeper watches over the nodes.
type Keeper struct {
	cfg       Config
	kube      kubernetes.Interface
	nodes     corelisters.NodeLister
	pods      corelisters.PodLister
	leases    coordinationlisters.LeaseLister
	informers []cache.SharedIndexInformer // nodes first
	tell      event.Tell
	log       *slog.Logger
	metrics   metrics
}

// New makes a keeper and registers its needs with the factory, which must be
// started after New. It starts nothing.
func New(cfg Config, kube kubernetes.Interface, factory informers.SharedInformerFactory, tell event.Tell, log *slog.Logger, reg prometheus.Registerer) (*Keeper, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	nodes, pods, leases := factory.Core().V1().Nodes(), factory.Core().V1().Pods(), factory.Coordination().V1().Leases()
	return &Keeper{
		cfg: cfg, kube: kube, nodes: nodes.Lister(), pods: pods.Lister(), leases: leases.Lister(),
		informers: []cache.SharedIndexInformer{nodes.Informer(), pods.Informer(), leases.Informer()},
		tell:      tell, log: log, metrics: newMetrics(reg),
	}, nil
}

// beat is the newest heartbeat of a node and when it was seen here.
type beat struct {
	uid   types.UID
	stamp time.Time
	at    time.Time
}

// Run judges the nodes until ctx ends. Each run starts with a full grace for all.
func (k *Keeper) Run(ctx context.Context) error {
	wake := make(chan struct{}, 1)
	signal := func() {
		select {
		case wake <- struct{}{}:
		default: // already awake
		}
	}
	handle, err := k.informers[0].AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { signal() },
		UpdateFunc: func(old, object any) {
			a, okA := old.(*corev1.Node)
			b, okB := object.(*corev1.Node)
			if !okA || !okB || !apiequality.Semantic.DeepEqual(a.Spec, b.Spec) || !sameStates(a, b) {
				signal()
			}
		},
	})
	if err != nil {
		return fmt.Errorf("watch for nodelife: %w", err)
	}
	defer func() { _ = k.informers[0].RemoveEventHandler(handle) }() // fails only when the informer has ended
	if !cache.WaitForCacheSync(ctx.Done(), k.informers[0].HasSynced, k.informers[1].HasSynced, k.informers[2].HasSynced) {
		return nil
	}
	beats, wasBlind := map[string]beat{}, false
	ticker := time.NewTicker(k.cfg.Look)
	defer ticker.Stop()
	for {
		began := time.Now()
		blind, err := k.look(ctx, began, beats)
		k.metrics.duration.Observe(time.Since(began).Seconds())
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			k.metrics.errors.Inc()
			k.log.Warn("nodes were not fully judged", "err", err)
		default:
			k.metrics.success.Set(float64(began.Unix()))
		}
		if blind && !wasBlind {
			k.log.Warn("all nodes are silent at once", "reason", "the control plane is the suspect; no pod is evicted until a node is heard")
		}
		wasBlind = blind
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-wake:
		}
	}
}

func sameStates(a, b *corev1.Node) bool {
	if len(a.Status.Conditions) != len(b.Status.Conditions) {
		return false
	}
	for _, c := range a.Status.Conditions {
		if other := conditionOf(b, c.Type); other == nil || other.Status != c.Status {
			return false
		}
	}
	return true
}

// look judges all nodes once.
func (k *Keeper) look(ctx context.Context, now time.Time, beats map[string]beat) (blind bool, errs error) {
	nodes, err := k.nodes.List(labels.Everything())
	if err != nil {
		return false, fmt.Errorf("list nodes: %w", err)
	}
	sights := k.listen(now, nodes, beats)
	verdicts, blind := Decide(now, sights, k.cfg.Grace)
	count := map[string]float64{"ready": 0, "not_ready": 0, "silent": 0}
	for _, v := range verdicts {
		ready := conditionOf(v.Node, corev1.NodeReady)
		switch {
		case v.Silent:
			count["silent"]++
		case ready != nil && ready.Status == corev1.ConditionTrue:
			count["ready"]++
		default:
			count["not_ready"]++
		}
		errs = errors.Join(errs, k.apply(ctx, now, v, blind))
	}
	for state, n := range count {
		k.metrics.nodes.WithLabelValues(state).Set(n)
	}
	return blind, errs
}

// listen notes which nodes were heard since the last look.
func (k *Keeper) listen(now time.Time, nodes []*corev1.Node, beats map[string]beat) []Sight {
	present := map[string]bool{}
	var out []Sight
	for _, node := range nodes {
		present[node.Name] = true
		stamp := node.CreationTimestamp.Time
		if c := conditionOf(node, corev1.NodeReady); c != nil && c.LastHeartbeatTime.After(stamp) {
			stamp = c.LastHeartbeatTime.Time
		}
		if lease, err := k.leases.Leases(corev1.NamespaceNodeLease).Get(node.Name); err == nil && lease.Spec.RenewTime != nil && lease.Spec.RenewTime.After(stamp) {
			stamp = lease.Spec.RenewTime.Time
		}
		have, ok := beats[node.Name]
		if !ok || have.uid != node.UID || !stamp.Equal(have.stamp) {
			beats[node.Name] = beat{node.UID, stamp, now}
		}
		if !ok {
			k.say(node, event.Normal, "RegisteredNode", fmt.Sprintf("Node %s is watched over", node.Name))
		}
		out = append(out, Sight{node, beats[node.Name].at})
	}
	for name := range beats {
		if !present[name] {
			delete(beats, name)
		}
	}
	return out
}

func (k *Keeper) apply(ctx context.Context, now time.Time, v Verdict, blind bool) error {
	var errs error
	if len(v.Conditions) > 0 {
		if err := k.writeConditions(ctx, v); err != nil {
			return err
		}
		k.say(v.Node, event.Warning, "NodeNotReady", fmt.Sprintf("Node %s status is now: NodeNotReady (%s)", v.Node.Name, v.Reason))
	}
	if v.Silent { // a node that still speaks reports its pods itself
		errs = errors.Join(errs, k.unready(ctx, v.Node))
	}
	if v.Retaint {
		fresh, err := k.writeTaints(ctx, v)
		if err != nil {
			return errors.Join(errs, err)
		}
		v.Node = fresh
	}
	if blind {
		return errs
	}
	for _, taint := range v.Node.Spec.Taints {
		if taint.Effect == corev1.TaintEffectNoExecute {
			return errors.Join(errs, k.evict(ctx, now, v.Node))
		}
	}
	return errs
}

func (k *Keeper) writeConditions(ctx context.Context, v Verdict) error {
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": v.Conditions}})
	if err == nil {
		_, err = k.kube.CoreV1().Nodes().Patch(ctx, v.Node.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write conditions of node %s: %w", v.Node.Name, err)
	}
	return nil
}

// writeTaints replaces the whole list, on the version it was decided from.
func (k *Keeper) writeTaints(ctx context.Context, v Verdict) (*corev1.Node, error) {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": v.Node.ResourceVersion},
		"spec":     map[string]any{"taints": v.Taints},
	})
	if err != nil {
		return nil, fmt.Errorf("encode taints of node %s: %w", v.Node.Name, err)
	}
	fresh, err := k.kube.CoreV1().Nodes().Patch(ctx, v.Node.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return v.Node, nil // the next look decides from the newer state
	}
	if err != nil {
		return nil, fmt.Errorf("write taints of node %s: %w", v.Node.Name, err)
	}
	k.log.Info("node taints were changed", "node", v.Node.Name, "count", len(v.Taints), "reason", v.Reason)
	return fresh, nil
}

func (k *Keeper) podsOf(node string) ([]*corev1.Pod, error) {
	all, err := k.pods.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list pods of node %s: %w", node, err)
	}
	var out []*corev1.Pod
	for _, pod := range all {
		if pod.Spec.NodeName == node {
			out = append(out, pod)
		}
	}
	return out, nil
}

// unready takes the pods of a node that cannot speak for them out of their Services.
func (k *Keeper) unready(ctx context.Context, node *corev1.Node) error {
	pods, err := k.podsOf(node.Name)
	if err != nil {
		return err
	}
	var errs error
	for _, pod := range pods {
		for _, c := range pod.Status.Conditions {
			if c.Type != corev1.PodReady || c.Status != corev1.ConditionTrue {
				continue
			}
			patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": map[string]any{"conditions": []corev1.PodCondition{{
				Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "NodeNotReady", Message: "Node " + node.Name + " is not ready", LastTransitionTime: metav1.Now(),
			}}}})
			if err == nil {
				_, err = k.kube.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
			}
			if err != nil && !apierrors.IsNotFound(err) {
				errs = errors.Join(errs, fmt.Errorf("mark pod %s/%s not ready: %w", pod.Namespace, pod.Name, err))
			}
		}
	}
	return errs
}

func (k *Keeper) evict(ctx context.Context, now time.Time, node *corev1.Node) error {
	pods, err := k.podsOf(node.Name)
	if err != nil {
		return err
	}
	var errs error
	for _, e := range Evictions(now, node, pods, k.cfg.Patience) {
		if e.At.After(now) {
			break // sorted by time
		}
		k.tell(event.Record{
			Component: component, Object: event.Ref(e.Pod, "v1", "Pod"), Type: event.Normal, Reason: "TaintManagerEviction",
			Message: fmt.Sprintf("Marking for deletion Pod %s/%s: %s", e.Pod.Namespace, e.Pod.Name, e.Reason),
		})
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": e.Pod.UID}, "status": map[string]any{"conditions": []corev1.PodCondition{{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByTaintManager", Message: e.Reason, LastTransitionTime: metav1.NewTime(now),
		}}}})
		if err == nil {
			_, err = k.kube.CoreV1().Pods(e.Pod.Namespace).Patch(ctx, e.Pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		}
		if err == nil {
			err = k.kube.CoreV1().Pods(e.Pod.Namespace).Delete(ctx, e.Pod.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(e.Pod.UID))})
		}
		if err != nil && !apierrors.IsNotFound(err) {
			errs = errors.Join(errs, fmt.Errorf("evict pod %s/%s: %w", e.Pod.Namespace, e.Pod.Name, err))
			continue
		}
		k.metrics.evictions.Inc()
	}
	return errs
}

func (k *Keeper) say(node *corev1.Node, kind, reason, message string) {
	k.tell(event.Record{Component: component, Object: event.Ref(node, "v1", "Node"), Type: kind, Reason: reason, Message: message})
}

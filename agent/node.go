package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"golang.org/x/sys/unix"

	"perch/controlplane/event"
)

// impatience is how often an agent looks again while its node is not there or
// not ready: someone waits for it.
const impatience = 150 * time.Millisecond

// register keeps the Node object: it makes it, and writes its labels and status
// when they change, and now and then when they do not.
func (a *Agent) register(ctx context.Context) error {
	var sent *corev1.NodeStatus
	var at time.Time
	for ctx.Err() == nil {
		looked := a.ready.Load() != nil
		fresh, err := a.syncNode(ctx, sent, time.Since(at) > a.cfg.Status)
		switch {
		case err != nil && ctx.Err() == nil:
			a.log.Debug("node status not sent", "err", err)
			sent = nil // look at what the API has
		case fresh != nil:
			if sent == nil {
				a.log.Info("node registered", "node", a.cfg.Node)
			}
			sent, at = fresh, time.Now()
		}
		if !looked {
			at = time.Time{} // that was an earlier agent's word on readiness
		}
		wait := time.Second
		if at.IsZero() || sent != nil && readyStatus(*sent) != corev1.ConditionTrue {
			wait = impatience
		}
		pause(ctx, wait)
	}
	return nil
}

// syncNode writes the node's status if it differs from what was sent, or if it
// is due. It returns what the API has now, nil if nothing was written.
func (a *Agent) syncNode(ctx context.Context, sent *corev1.NodeStatus, due bool) (*corev1.NodeStatus, error) {
	now := time.Now()
	if sent != nil {
		want := a.nodeStatus(*sent, now)
		if equality.Semantic.DeepEqual(withoutHeartbeat(*sent), withoutHeartbeat(want)) && !due {
			return nil, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	nodes := a.parts.API.CoreV1().Nodes()
	have, err := nodes.Get(ctx, a.cfg.Node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		fresh := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: a.cfg.Node, Labels: a.labels()}, Spec: corev1.NodeSpec{Taints: a.cfg.Taints}}
		fresh.Status = a.nodeStatus(corev1.NodeStatus{}, now)
		if have, err = nodes.Create(ctx, fresh, metav1.CreateOptions{}); err == nil {
			a.tellNode(event.Normal, "RegisteredNode", fmt.Sprintf("Node %s registered itself", a.cfg.Node))
		}
	}
	if err != nil {
		return nil, err
	}
	if missing := missingLabels(have.Labels, a.labels()); len(missing) > 0 {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": missing}})
		if err != nil {
			return nil, fmt.Errorf("encode labels of node: %w", err)
		}
		if have, err = nodes.Patch(ctx, a.cfg.Node, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return nil, err
		}
	}
	want := a.nodeStatus(have.Status, now)
	was, err := json.Marshal(corev1.Node{Status: have.Status})
	if err != nil {
		return nil, fmt.Errorf("encode status of node: %w", err)
	}
	is, err := json.Marshal(corev1.Node{Status: want})
	if err != nil {
		return nil, fmt.Errorf("encode status of node: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(was, is, corev1.Node{})
	if err != nil {
		return nil, fmt.Errorf("compare statuses of node: %w", err)
	}
	got, err := nodes.Patch(ctx, a.cfg.Node, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return nil, err
	}
	a.tellReady(have.Status, got.Status)
	a.node.Store(got)
	return &want, nil
}

func missingLabels(have, want map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range want {
		if have[k] != v {
			out[k] = v
		}
	}
	return out
}

func (a *Agent) labels() map[string]string {
	labels := map[string]string{
		corev1.LabelHostname: a.cfg.Node, corev1.LabelOSStable: "linux", corev1.LabelArchStable: a.machine.info.Architecture,
		"beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": a.machine.info.Architecture,
	}
	maps.Copy(labels, a.cfg.Labels)
	return labels
}

func withoutHeartbeat(s corev1.NodeStatus) corev1.NodeStatus {
	s.Conditions = slices.Clone(s.Conditions)
	for i := range s.Conditions {
		s.Conditions[i].LastHeartbeatTime = metav1.Time{}
	}
	return s
}

// nodeStatus is what the node's status should read, given what it reads.
func (a *Agent) nodeStatus(old corev1.NodeStatus, now time.Time) corev1.NodeStatus {
	s := *old.DeepCopy()
	s.Capacity, s.Allocatable = merged(old.Capacity, a.machine.capacity(a.cfg)), merged(old.Allocatable, a.machine.allocatable(a.cfg))
	s.Addresses = nil
	for _, ip := range a.cfg.IPs {
		s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
	}
	s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: a.machine.hostname})
	s.DaemonEndpoints.KubeletEndpoint.Port = a.cfg.Door
	s.NodeInfo = a.machine.info
	if rt := a.ready.Load(); rt != nil {
		s.NodeInfo.ContainerRuntimeVersion = strings.ToLower(rt.name) + "://" + strings.TrimPrefix(rt.version, "v")
	}
	conditions := a.conditions()
	for _, c := range a.parts.Conditions() {
		// Others may know better than the defaults here, e.g. MemoryPressure.
		conditions = slices.DeleteFunc(conditions, func(d corev1.NodeCondition) bool { return d.Type == c.Type })
		conditions = append(conditions, c)
	}
	for _, c := range conditions {
		if c.Reason == notLooked && readyStatus(old) != corev1.ConditionUnknown {
			continue // an agent that restarts takes back nothing that it has not looked at
		}
		setNodeCondition(&s, c, now)
	}
	return s
}

// notLooked is why a node is not ready whose runtime was not asked yet.
const notLooked = "RuntimeNotAsked"

// merged keeps resources that others announced.
func merged(old, own corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	maps.Copy(out, old)
	maps.Copy(out, own)
	return out
}

// conditions are what the agent itself can tell.
func (a *Agent) conditions() []corev1.NodeCondition {
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "agent is posting ready status"}
	rt := a.ready.Load()
	switch {
	case rt == nil:
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, notLooked, "container runtime has not answered yet"
	case !rt.ready:
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "KubeletNotReady", fmt.Sprintf("container runtime is not ready: %s %s", rt.reason, rt.message)
	case !rt.network:
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "KubeletNotReady", fmt.Sprintf("container runtime network not ready: %s %s", rt.reason, rt.message)
	}
	out := []corev1.NodeCondition{
		{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasSufficientMemory", Message: "agent has sufficient memory available"},
		{Type: corev1.NodePIDPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasSufficientPID", Message: "agent has sufficient PID available"},
		diskPressure(a.cfg.Data),
		ready,
	}
	if free, err := memoryBytes("/proc/meminfo", "MemAvailable"); err == nil && free < memoryLow {
		out[0].Status, out[0].Reason = corev1.ConditionTrue, "KubeletHasInsufficientMemory"
		out[0].Message = fmt.Sprintf("%d bytes of memory are available, fewer than %d", free, int64(memoryLow))
	}
	return out
}

// The thresholds of kubelet's own defaults.
const (
	memoryLow = 100 << 20
	diskLow   = 0.10
)

func diskPressure(dir string) corev1.NodeCondition {
	c := corev1.NodeCondition{Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasNoDiskPressure", Message: "agent has no disk pressure"}
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) == nil && fs.Blocks > 0 {
		if free := float64(fs.Bavail) / float64(fs.Blocks); free < diskLow {
			c.Status, c.Reason = corev1.ConditionTrue, "KubeletHasDiskPressure"
			c.Message = fmt.Sprintf("%.0f %% of the disk of %s are free, fewer than %.0f %%", 100*free, dir, 100*diskLow)
		}
	}
	return c
}

func setNodeCondition(s *corev1.NodeStatus, c corev1.NodeCondition, now time.Time) {
	c.LastHeartbeatTime = metav1.NewTime(now.Truncate(time.Second))
	c.LastTransitionTime = c.LastHeartbeatTime
	for i := range s.Conditions {
		if old := &s.Conditions[i]; old.Type == c.Type {
			if old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
			}
			*old = c
			return
		}
	}
	s.Conditions = append(s.Conditions, c)
}

// tellReady makes events of the node's changes that people look for.
func (a *Agent) tellReady(was, is corev1.NodeStatus) {
	old, now := readyStatus(was), readyStatus(is)
	if old == now {
		return
	}
	if now == corev1.ConditionTrue {
		a.tellNode(event.Normal, "NodeReady", fmt.Sprintf("Node %s status is now: NodeReady", a.cfg.Node))
	} else {
		a.tellNode(event.Warning, "NodeNotReady", fmt.Sprintf("Node %s status is now: NodeNotReady", a.cfg.Node))
	}
}

func readyStatus(s corev1.NodeStatus) corev1.ConditionStatus {
	for _, c := range s.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status
		}
	}
	return corev1.ConditionUnknown
}

func (a *Agent) tellNode(kind, reason, message string) {
	a.parts.Tell(event.Record{
		Component: "kubelet", Type: kind, Reason: reason, Message: message,
		Object: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: a.cfg.Node, UID: types.UID(a.cfg.Node)},
	})
}

// runtimeStatus asks the runtime how it is; n counts the calls, for what need
// not be asked each time.
func (a *Agent) runtimeStatus(ctx context.Context, n int) {
	old := a.ready.Load()
	if old != nil && old.ready && old.network && n%10 != 0 {
		return
	}
	st := &runtimeState{seen: time.Now()}
	if old != nil {
		st.name, st.version = old.name, old.version
	}
	ask, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	status, err := a.parts.Runtime.Status(ask)
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		st.reason, st.message = "RuntimeNotReachable", err.Error()
	default:
		for _, c := range status.GetConditions() {
			switch c.GetType() {
			case cri.RuntimeReady:
				st.ready = c.GetStatus()
			case cri.NetworkReady:
				st.network = c.GetStatus()
			}
			if !c.GetStatus() && st.reason == "" && (c.GetType() == cri.RuntimeReady || c.GetType() == cri.NetworkReady) {
				st.reason, st.message = c.GetReason(), c.GetMessage()
			}
		}
	}
	if st.ready && st.name == "" {
		if v, err := a.parts.Runtime.Version(ask); err == nil {
			st.name, st.version = v.GetRuntimeName(), v.GetRuntimeVersion()
		}
	}
	a.ready.Store(st)
}

// leaseSeconds is how long after the last heartbeat a node counts as lost, as
// kubelet tells.
const leaseSeconds = 40

// heartbeat renews the node's lease.
func (a *Agent) heartbeat(ctx context.Context) error {
	leases := a.parts.API.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	var have *coordinationv1.Lease
	for ctx.Err() == nil {
		wait := a.cfg.Lease
		limited, cancel := context.WithTimeout(ctx, a.cfg.Lease)
		err := func() (err error) {
			if have == nil {
				if have, err = leases.Get(limited, a.cfg.Node, metav1.GetOptions{}); apierrors.IsNotFound(err) {
					have, err = leases.Create(limited, a.lease(nil), metav1.CreateOptions{})
				}
				if err != nil {
					have = nil
					return err
				}
			}
			have, err = leases.Update(limited, a.lease(have), metav1.UpdateOptions{})
			return err
		}()
		cancel()
		if err != nil {
			have, wait = nil, min(time.Second, a.cfg.Lease)
			a.metrics.heartbeats.WithLabelValues("failed").Inc()
			if ctx.Err() == nil {
				a.log.Debug("lease not renewed", "err", err)
			}
		} else {
			a.metrics.heartbeats.WithLabelValues("ok").Inc()
		}
		pause(ctx, wait)
	}
	return nil
}

func (a *Agent) lease(old *coordinationv1.Lease) *coordinationv1.Lease {
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: a.cfg.Node, Namespace: corev1.NamespaceNodeLease}}
	if old != nil {
		l = old.DeepCopy()
	}
	seconds, now := int32(leaseSeconds), metav1.NewMicroTime(time.Now())
	l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds, l.Spec.RenewTime = &a.cfg.Node, &seconds, &now
	if n := a.node.Load(); n != nil && len(l.OwnerReferences) == 0 {
		l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}}
	}
	return l
}

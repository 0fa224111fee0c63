package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// leftoverPods removes pods that no agent and no owner will remove.
type leftoverPods struct {
	deps
	nodes corelisters.NodeLister
	pods  corelisters.PodLister
	gone  map[string]time.Time // since when a node with pods is missing; owned by the worker
}

func newLeftoverPod(d deps) *reconcile.Controller {
	nodes, pods := d.informers.Core().V1().Nodes(), d.informers.Core().V1().Pods()
	c := &leftoverPods{d, nodes.Lister(), pods.Lister(), map[string]time.Time{}}
	return &reconcile.Controller{
		Name: "leftoverpod", Reads: []string{"Node", "Pod"}, Ticks: 10 * time.Second,
		Writes:    []reconcile.Part{{Kind: "Pod", Fields: "objects", Of: "gone Node"}, {Kind: "Pod", Fields: "status.phase", Of: "gone Node"}},
		Sources:   []reconcile.Source{{Informer: nodes.Informer(), Keys: nothing}, {Informer: pods.Informer(), Keys: nothing}},
		Reconcile: c.reconcile,
	}
}

func nothing(any) []reconcile.Key { return nil }

func (c *leftoverPods) reconcile(ctx context.Context, _ reconcile.Key) (time.Duration, error) {
	pods, err := c.pods.List(labels.Everything())
	if err != nil {
		return 0, fmt.Errorf("list pods: %w", err)
	}
	now := time.Now()
	missing := map[string]time.Time{}
	for _, pod := range pods {
		name := pod.Spec.NodeName
		if _, err := c.nodes.Get(name); name == "" || !apierrors.IsNotFound(err) {
			continue
		}
		since, ok := c.gone[name]
		if !ok {
			since = now
		}
		missing[name] = since
	}
	c.gone = missing
	var errs error
	for _, l := range decideLeftovers(now, pods, c.gone, c.cfg.GoneNodeGrace, c.cfg.EndedPodLimit) {
		errs = errors.Join(errs, c.remove(ctx, l))
	}
	return 0, errs
}

func (c *leftoverPods) remove(ctx context.Context, l leftover) error {
	pod := l.Pod
	if l.Force && pod.Spec.NodeName != "" {
		// The snapshot may lag: only the API server knows that a node is gone.
		if _, err := c.kube.CoreV1().Nodes().Get(ctx, pod.Spec.NodeName, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return nil
		}
		if err := c.markFailed(ctx, pod, l.Reason); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("mark pod %s/%s failed: %w", pod.Namespace, pod.Name, err)
		}
	}
	options := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}
	if l.Force {
		options.GracePeriodSeconds = new(int64)
	}
	if err := c.kube.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, options); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	c.tell(event.Record{Component: "leftoverpod-controller", Object: event.Ref(pod, "v1", "Pod"), Reason: "PodRemoved", Message: "Pod was removed: " + l.Reason})
	return nil
}

func (c *leftoverPods) markFailed(ctx context.Context, pod *corev1.Pod, why string) error {
	if podFinished(pod) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": map[string]any{
		"phase": corev1.PodFailed, "conditions": []corev1.PodCondition{{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByPodGC", Message: why, LastTransitionTime: metav1.Now(),
		}},
	}})
	if err != nil {
		return err
	}
	_, err = c.kube.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

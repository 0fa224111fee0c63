package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"perch/agent/image"
	"perch/agent/pod"
	"perch/agent/runtime"
	"perch/controlplane/event"
)

// reasonError is an error with the word that a status or event shows for it.
type reasonError struct {
	reason string
	err    error
}

func (e *reasonError) Error() string { return e.err.Error() }
func (e *reasonError) Unwrap() error { return e.err }

func because(reason string, err error) error {
	if err == nil {
		return nil
	}
	return &reasonError{reason, err}
}

// reasons of steps whose errors carry none.
var stepReasons = map[pod.Verb]string{
	pod.Prepare: "FailedMount", pod.StartSandbox: "FailedCreatePodSandBox", pod.StartContainer: "RunContainerError",
	pod.StopContainer: "KillContainerError", pod.StopSandbox: "FailedKillPod", pod.Release: "FailedUnmount",
}

// fail remembers a failure, tells it, and says when to try again.
func (w *worker) fail(o outcome) {
	if errors.Is(o.err, context.Canceled) {
		return // no longer wanted, or the agent ends
	}
	now := time.Now()
	old := w.failures[o.step.Key]
	f := pod.Failure{Verb: o.step.Verb, Reason: stepReasons[o.step.Verb], Message: o.err.Error()}
	var r *reasonError
	if errors.As(o.err, &r) {
		f.Reason = r.reason
	}
	var waiting *image.Waiting
	switch {
	case errors.As(o.err, &waiting) && !errors.Is(o.err, runtime.ErrUnavailable):
		f.Reason, f.Message = waiting.Reason, waiting.Message
		f.Delay = maxIdle
		if !waiting.Retry.IsZero() {
			f.Delay = max(waiting.Retry.Sub(now), time.Second)
		}
	case errors.Is(o.err, runtime.ErrUnavailable):
		f.Delay = time.Second // the runtime restarts; that is no fault of the pod
	case f.Reason == "PostStartHookError":
		f.Delay = 0 // the container's own back-off counts
	default:
		f.Delay = min(max(time.Second, 2*old.Delay), 15*time.Second)
	}
	f.Retry = now.Add(f.Delay)
	w.failures[o.step.Key] = f
	w.agent.metrics.failures.WithLabelValues(f.Reason).Inc()
	switch o.step.Verb {
	case pod.StartSandbox:
		w.agent.metrics.kubelet.podErrors.Inc()
	case pod.StartContainer:
		w.agent.metrics.kubelet.containerErrors.WithLabelValues(containerType(w.want, o.step.Key), f.Reason).Inc()
	}
	if o.step.Key == keyStatus {
		w.statusFailed(o.err)
		return
	}
	w.log.Info("step of pod failed", "reason", f.Reason, "container", o.step.Key, "err", o.err)
	switch reason := f.Reason; o.step.Verb {
	case pod.StartContainer:
		switch {
		case reason == "PostStartHookError": // it has told its own
		case reason == image.ReasonBackOff:
			w.event(event.Normal, o.step.Key, "BackOff", f.Message)
		case waiting != nil:
			w.event(event.Warning, o.step.Key, "Failed", f.Message)
			w.event(event.Warning, o.step.Key, "Failed", "Error: "+reason)
		default:
			w.event(event.Warning, o.step.Key, "Failed", "Error: "+f.Message)
		}
	case pod.StopContainer:
		w.event(event.Warning, o.step.Key, "FailedKillPod", "error killing container: "+f.Message)
	default:
		if reason != "" {
			w.event(event.Warning, "", reason, f.Message)
		}
	}
}

// statusFailed handles an API that refuses a status: the pod is gone, or the
// API is away.
func (w *worker) statusFailed(err error) {
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		w.log.Debug("status of pod refused", "err", err)
	default:
		w.log.Debug("status of pod not sent", "err", err)
	}
}

// pullAfterglow is how long a failed pull shows its own error before it shows
// as being backed off.
const pullAfterglow = 3 * time.Second

// soften turns a failed pull into one that is backed off, and says when to look
// again for that.
func (w *worker) soften(now time.Time) time.Duration {
	again := maxIdle
	for key, f := range w.failures {
		at := f.Retry.Add(pullAfterglow - f.Delay)
		if f.Reason == image.ReasonPull && now.Before(at) {
			again = min(again, at.Sub(now))
		} else if f.Reason == image.ReasonPull && now.Before(f.Retry) {
			f.Reason = image.ReasonBackOff
			c := pod.Find(w.want, key)
			if c == nil {
				continue
			}
			f.Message = fmt.Sprintf("Back-off pulling image %q: ErrImagePull: %s", c.Image, f.Message)
			w.failures[key] = f
			w.event(event.Normal, key, "BackOff", fmt.Sprintf("Back-off pulling image %q", c.Image))
		}
	}
	return again
}

// tellWaits says once for each back-off that a container waits to be started
// again.
func (w *worker) tellWaits(want *corev1.Pod, waits map[string]pod.Failure) {
	for name, f := range waits {
		if w.waits[name].Equal(f.Retry) {
			continue
		}
		w.waits[name] = f.Retry
		w.event(event.Warning, name, "BackOff", fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)", name, want.Name, want.Namespace, want.UID))
	}
}

// event tells what happened to the pod, or to one of its containers. Operations
// may call it too: a pod is shown before its first one begins.
func (w *worker) event(kind, container, reason, message string) {
	w.agent.parts.Tell(podEvent(w.shown.Load(), kind, container, reason, message))
}

func podEvent(p *corev1.Pod, kind, container, reason, message string) event.Record {
	ref := event.Ref(p, "v1", "Pod")
	if container != "" {
		ref.FieldPath = "spec.containers{" + container + "}"
		for _, c := range p.Spec.InitContainers {
			if c.Name == container {
				ref.FieldPath = "spec.initContainers{" + container + "}"
			}
		}
	}
	return event.Record{Component: "kubelet", Object: ref, Type: kind, Reason: reason, Message: message}
}

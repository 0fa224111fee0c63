package apiserver

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// nodeLost is the reason a pod carries when its node does not answer.
const nodeLost = "NodeLost"

// podSummary is what one line says about a pod.
type podSummary struct {
	ready, total int
	status       string
	restarts     int32
	lastRestart  time.Time
}

// summarize condenses the states of a pod's containers the way kubectl's users
// know it: the most telling reason wins, init containers before the others.
func summarize(p *corev1.Pod) podSummary {
	s := podSummary{total: len(p.Spec.Containers), status: string(p.Status.Phase)}
	if p.Status.Reason != "" {
		s.status = p.Status.Reason
	}
	if c := condition(p, corev1.PodScheduled); c != nil && c.Reason == corev1.PodReasonSchedulingGated {
		s.status = corev1.PodReasonSchedulingGated
	}
	sidecars := map[string]bool{}
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			sidecars[c.Name] = true
			s.total++
		}
	}
	initializing := s.addInit(p, sidecars)
	initialized := condition(p, corev1.PodInitialized)
	if !initializing || initialized != nil && initialized.Status == corev1.ConditionTrue {
		s.restarts, s.lastRestart = 0, time.Time{} // of the init phase, which is over
		for _, c := range p.Status.InitContainerStatuses {
			if sidecars[c.Name] {
				s.addRestarts(c)
			}
		}
		s.addContainers(p)
	}
	done := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	switch {
	case p.DeletionTimestamp != nil && p.Status.Reason == nodeLost:
		s.status = "Unknown"
	case p.DeletionTimestamp != nil && !done:
		s.status = "Terminating"
	}
	return s
}

// addInit looks for the first init container that is not done.
func (s *podSummary) addInit(p *corev1.Pod, sidecars map[string]bool) (initializing bool) {
	for i, c := range p.Status.InitContainerStatuses {
		s.addRestarts(c)
		ended, waiting := c.State.Terminated, c.State.Waiting
		switch {
		case ended != nil && ended.ExitCode == 0:
			continue
		case sidecars[c.Name] && c.Started != nil && *c.Started:
			if c.Ready {
				s.ready++
			}
			continue
		case ended != nil:
			s.status = "Init:" + endReason(ended)
		case waiting != nil && waiting.Reason != "" && waiting.Reason != "PodInitializing":
			s.status = "Init:" + waiting.Reason
		default:
			s.status = fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers))
		}
		return true
	}
	return false
}

// addContainers goes backwards: the first container has the last word.
func (s *podSummary) addContainers(p *corev1.Pod) {
	running, failed := false, ""
	for _, c := range slices.Backward(p.Status.ContainerStatuses) {
		s.addRestarts(c)
		switch {
		case c.State.Waiting != nil && c.State.Waiting.Reason != "":
			s.status = c.State.Waiting.Reason
		case c.State.Terminated != nil:
			s.status = endReason(c.State.Terminated)
			if c.State.Terminated.ExitCode != 0 {
				failed = s.status
			}
		case c.State.Running != nil && c.Ready:
			running = true
			s.ready++
		}
	}
	if s.status != "Completed" {
		return
	}
	switch { // one container being done is not the pod being done
	case running && ready(p):
		s.status = "Running"
	case failed != "":
		s.status = failed
	case running:
		s.status = "NotReady"
	}
}

func (s *podSummary) addRestarts(c corev1.ContainerStatus) {
	s.restarts += c.RestartCount
	if t := c.LastTerminationState.Terminated; t != nil && t.FinishedAt.After(s.lastRestart) {
		s.lastRestart = t.FinishedAt.Time
	}
}

func endReason(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.Signal != 0:
		return fmt.Sprintf("Signal:%d", t.Signal)
	}
	return fmt.Sprintf("ExitCode:%d", t.ExitCode)
}

func condition(p *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == kind {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

func podColumns() []column {
	return []column{
		named(),
		text("Ready", func(p *corev1.Pod) string {
			s := summarize(p)
			return fmt.Sprintf("%d/%d", s.ready, s.total)
		}),
		text("Status", func(p *corev1.Pod) string { return summarize(p).status }),
		timed("Restarts", func(now time.Time, p *corev1.Pod) string {
			s := summarize(p)
			if s.restarts == 0 || s.lastRestart.IsZero() {
				return strconv.Itoa(int(s.restarts))
			}
			return fmt.Sprintf("%d (%s ago)", s.restarts, since(now, s.lastRestart))
		}),
		aged(),
		wide(text("IP", func(p *corev1.Pod) string {
			if len(p.Status.PodIPs) > 0 {
				return or(p.Status.PodIPs[0].IP, none)
			}
			return or(p.Status.PodIP, none)
		})),
		wide(text("Node", func(p *corev1.Pod) string { return or(p.Spec.NodeName, none) })),
		wide(text("Nominated Node", func(p *corev1.Pod) string { return or(p.Status.NominatedNodeName, none) })),
		wide(text("Readiness Gates", func(p *corev1.Pod) string {
			if len(p.Spec.ReadinessGates) == 0 {
				return none
			}
			open := 0
			for _, g := range p.Spec.ReadinessGates {
				if c := condition(p, g.ConditionType); c != nil && c.Status == corev1.ConditionTrue {
					open++
				}
			}
			return fmt.Sprintf("%d/%d", open, len(p.Spec.ReadinessGates))
		})),
	}
}

// rowConditions mark pods that are over; kubectl leaves those out on request.
func rowConditions(o runtime.Object) []metav1.TableRowCondition {
	p, ok := o.(*corev1.Pod)
	if !ok || p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
		return nil
	}
	return []metav1.TableRowCondition{{
		Type: metav1.RowCompleted, Status: metav1.ConditionTrue, Reason: string(p.Status.Phase), Message: "The pod has ended.",
	}}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

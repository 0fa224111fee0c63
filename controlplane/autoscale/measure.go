package autoscale

import (
	"context"
	"fmt"
	"slices"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
)

// measure asks for the numbers of every metric of an autoscaler.
func (a *Autoscaler) measure(ctx context.Context, now time.Time, h *autoscalingv2.HorizontalPodAutoscaler, target *autoscalingv1.Scale) (proposals []Proposal, current []autoscalingv2.MetricStatus, missing []string, partial bool) {
	selector, err := labels.Parse(target.Status.Selector)
	if err != nil || target.Status.Selector == "" {
		return []Proposal{{Err: fmt.Errorf("selector %q of the target's scale cannot be used", target.Status.Selector)}}, nil, nil, false
	}
	pods, err := a.pods.Pods(h.Namespace).List(selector)
	if err != nil {
		return []Proposal{{Err: fmt.Errorf("list pods of %s: %w", h.Namespace, err)}}, nil, nil, false
	}
	tolerance := rulesOf(h.Spec.Behavior).tolerance(a.cfg.Tolerance)
	for _, spec := range h.Spec.Metrics {
		if spec.Type != autoscalingv2.ResourceMetricSourceType && spec.Type != autoscalingv2.ContainerResourceMetricSourceType {
			p, status, answer := a.measureCustom(ctx, now, spec, h.Namespace, target.Spec.Replicas, pods, tolerance)
			proposals = append(proposals, p)
			if p.Err == nil {
				current = append(current, status)
			}
			if answer.Partial {
				partial, missing = true, append(missing, answer.Missing...)
				a.metrics.partial.Inc()
			}
			continue
		}
		goal, err := goalOf(spec)
		if err != nil {
			proposals = append(proposals, Proposal{Err: err})
			continue
		}
		answer, err := a.ask(ctx, now, h.Namespace, goal, pods)
		if err != nil {
			proposals = append(proposals, Proposal{Err: err})
			continue
		}
		if answer.Partial {
			partial, missing = true, append(missing, answer.Missing...)
			a.metrics.partial.Inc()
		}
		p := Propose(now, goal, target.Spec.Replicas, podsOf(pods, goal), usageOf(answer), tolerance, a.cfg.Timing)
		proposals = append(proposals, p)
		if p.Err == nil {
			current = append(current, statusOf(spec, goal, p))
		}
	}
	slices.Sort(missing)
	return proposals, current, slices.Compact(missing), partial
}

func (a *Autoscaler) ask(ctx context.Context, now time.Time, namespace string, goal Goal, pods []*corev1.Pod) (Vector, error) {
	if len(pods) == 0 {
		return Vector{}, nil
	}
	names := make([]string, len(pods))
	for i, p := range pods {
		names[i] = p.Name
	}
	slices.Sort(names)
	expr, err := expression(goal, namespace, names, a.cfg.Timing.Window)
	if err != nil {
		return Vector{}, err
	}
	answer, err := a.query(ctx, expr, now)
	if err != nil {
		return Vector{}, fmt.Errorf("query %s of pods in %s: %w", goal.Resource, namespace, err)
	}
	return answer, nil
}

func goalOf(spec autoscalingv2.MetricSpec) (Goal, error) {
	var goal Goal
	var target autoscalingv2.MetricTarget
	switch {
	case spec.Type == autoscalingv2.ResourceMetricSourceType && spec.Resource != nil:
		goal.Resource, target = string(spec.Resource.Name), spec.Resource.Target
	case spec.Type == autoscalingv2.ContainerResourceMetricSourceType && spec.ContainerResource != nil:
		goal.Resource, goal.Container, target = string(spec.ContainerResource.Name), spec.ContainerResource.Container, spec.ContainerResource.Target
	default:
		return Goal{}, fmt.Errorf("metric type %s is %w", spec.Type, errUnsupported)
	}
	switch {
	case target.AverageUtilization != nil:
		goal.Utilization = *target.AverageUtilization
	case target.AverageValue != nil:
		goal.Average = target.AverageValue.MilliValue()
	case target.Value != nil:
		goal.Average = target.Value.MilliValue()
	}
	if goal.Utilization <= 0 && goal.Average <= 0 {
		return Goal{}, fmt.Errorf("metric %s has no target", goal.Resource)
	}
	return goal, nil
}

func podsOf(pods []*corev1.Pod, goal Goal) []Pod {
	var out []Pod
	for _, pod := range pods {
		p := Pod{
			Name: pod.Name, Pending: pod.Status.Phase == corev1.PodPending,
			Gone: pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded,
		}
		if pod.Status.StartTime != nil {
			p.Started = pod.Status.StartTime.Time
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady {
				p.ReadyKnown, p.Ready, p.ReadyChanged = true, c.Status == corev1.ConditionTrue, c.LastTransitionTime.Time
			}
		}
		p.Request, p.RequestError = requestOf(pod, goal)
		out = append(out, p)
	}
	return out
}

// requestOf sums the requests of the containers that stay: ordinary ones and sidecars.
func requestOf(pod *corev1.Pod, goal Goal) (int64, string) {
	containers := slices.Clone(pod.Spec.Containers)
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			containers = append(containers, c)
		}
	}
	var sum int64
	found := false
	for _, c := range containers {
		if goal.Container != "" && c.Name != goal.Container {
			continue
		}
		found = true
		request, ok := c.Resources.Requests[corev1.ResourceName(goal.Resource)]
		if !ok {
			return 0, fmt.Sprintf("missing request for %s in container %s of Pod %s", goal.Resource, c.Name, pod.Name)
		}
		sum += request.MilliValue()
	}
	if !found {
		return 0, fmt.Sprintf("container %s not present in Pod %s", goal.Container, pod.Name)
	}
	return sum, ""
}

func statusOf(spec autoscalingv2.MetricSpec, goal Goal, p Proposal) autoscalingv2.MetricStatus {
	value := autoscalingv2.MetricValueStatus{AverageValue: resource.NewMilliQuantity(p.Average, resource.DecimalSI)}
	if goal.Resource == "memory" {
		value.AverageValue = resource.NewQuantity(p.Average/1000, resource.BinarySI)
	}
	if goal.Utilization > 0 {
		value.AverageUtilization = pointer(p.Utilization)
	}
	out := autoscalingv2.MetricStatus{Type: spec.Type}
	if spec.ContainerResource != nil {
		out.ContainerResource = &autoscalingv2.ContainerResourceMetricStatus{Name: spec.ContainerResource.Name, Container: goal.Container, Current: value}
	} else {
		out.Resource = &autoscalingv2.ResourceMetricStatus{Name: spec.Resource.Name, Current: value}
	}
	return out
}

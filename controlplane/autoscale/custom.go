package autoscale

import (
	"context"
	"fmt"
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Custom answers a metric of an application: what custom.metrics.k8s.io and
// external.metrics.k8s.io serve. Nothing found is an error that says so.
type Custom func(ctx context.Context, want Metric, at time.Time) (Vector, error)

// Metric names what Custom is asked for.
type Metric struct {
	Namespace string
	Name      string
	Selector  *metav1.LabelSelector // of series; nil takes all
	Kind      string                // of the objects described, such as "Pod"; empty: the metric describes no object (External)
	Objects   []string              // their names; samples carry them in the label named like the kind, in small letters
}

// kindError says which kind of metric failed, for the condition's reason.
type kindError struct {
	kind autoscalingv2.MetricSourceType
	error
}

func (e kindError) Unwrap() error { return e.error }

// measureCustom proposes replicas from a metric of type Pods, Object or External.
func (a *Autoscaler) measureCustom(ctx context.Context, now time.Time, spec autoscalingv2.MetricSpec, namespace string, current int32, pods []*corev1.Pod, tolerance Tolerance) (Proposal, autoscalingv2.MetricStatus, Vector) {
	want, target, err := wantOf(spec, namespace, pods)
	if err != nil {
		return Proposal{Err: kindError{spec.Type, err}}, autoscalingv2.MetricStatus{}, Vector{}
	}
	if len(pods) == 0 {
		return Proposal{Err: kindError{spec.Type, fmt.Errorf("metric %s: the target has no pods", want.Name)}}, autoscalingv2.MetricStatus{}, Vector{}
	}
	answer, err := a.custom(ctx, want, now)
	if err != nil {
		return Proposal{Err: kindError{spec.Type, err}}, autoscalingv2.MetricStatus{}, Vector{}
	}
	var p Proposal
	if spec.Type == autoscalingv2.PodsMetricSourceType {
		goal := Goal{Resource: want.Name, Average: target.AverageValue.MilliValue()}
		p = Propose(now, goal, current, podsOf(pods, goal), usageOf(answer), tolerance, a.cfg.Timing)
	} else {
		sum := 0.0
		for _, s := range answer.Samples {
			sum += s.Value * 1000
		}
		p = proposeTotal(want.Name, sum, target, current, readyCount(pods), tolerance)
	}
	if p.Err != nil {
		p.Err = kindError{spec.Type, p.Err}
		return p, autoscalingv2.MetricStatus{}, answer
	}
	return p, customStatus(spec, p), answer
}

// wantOf reads what a metric asks for and what it is held to.
func wantOf(spec autoscalingv2.MetricSpec, namespace string, pods []*corev1.Pod) (Metric, autoscalingv2.MetricTarget, error) {
	want := Metric{Namespace: namespace}
	var target autoscalingv2.MetricTarget
	switch {
	case spec.Type == autoscalingv2.PodsMetricSourceType && spec.Pods != nil:
		want.Name, want.Selector, want.Kind, target = spec.Pods.Metric.Name, spec.Pods.Metric.Selector, "Pod", spec.Pods.Target
		for _, p := range pods {
			want.Objects = append(want.Objects, p.Name)
		}
		if target.AverageValue == nil {
			return want, target, fmt.Errorf("metric %s has no averageValue", want.Name)
		}
	case spec.Type == autoscalingv2.ObjectMetricSourceType && spec.Object != nil:
		want.Name, want.Selector, target = spec.Object.Metric.Name, spec.Object.Metric.Selector, spec.Object.Target
		want.Kind, want.Objects = spec.Object.DescribedObject.Kind, []string{spec.Object.DescribedObject.Name}
	case spec.Type == autoscalingv2.ExternalMetricSourceType && spec.External != nil:
		want.Name, want.Selector, target = spec.External.Metric.Name, spec.External.Metric.Selector, spec.External.Target
	default:
		return want, target, fmt.Errorf("metric type %s is %w", spec.Type, errUnsupported)
	}
	if (target.AverageValue == nil || target.AverageValue.Sign() <= 0) && (target.Value == nil || target.Value.Sign() <= 0) {
		return want, target, fmt.Errorf("metric %s has no target above 0", want.Name)
	}
	return want, target, nil
}

func readyCount(pods []*corev1.Pod) (n int32) {
	for _, p := range podsOf(pods, Goal{}) {
		if p.Ready && !p.Gone {
			n++
		}
	}
	return n
}

// proposeTotal holds a number for the whole target, in thousandths, to its goal:
// a value grows with the ready replicas, an average is shared by all.
func proposeTotal(name string, total float64, target autoscalingv2.MetricTarget, current, ready int32, tolerance Tolerance) Proposal {
	if target.AverageValue != nil && target.AverageValue.Sign() > 0 {
		goal := float64(target.AverageValue.MilliValue())
		share := total
		if current > 0 {
			share = total / float64(current)
		}
		ratio := share / goal
		out := Proposal{Replicas: current, Average: int64(share), IsAverage: true}
		out.Reason = fmt.Sprintf("%s %s for each of %d replicas %s target %s (%s in all)", name, milli(share), current, side(ratio), milli(goal), milli(total))
		if !tolerance.within(ratio) {
			out.Replicas = ceil(total / goal)
		}
		return out
	}
	goal := float64(target.Value.MilliValue())
	ratio := total / goal
	out := Proposal{Replicas: current, Average: int64(total)}
	out.Reason = fmt.Sprintf("%s %s %s target %s with %d replicas ready", name, milli(total), side(ratio), milli(goal), ready)
	if !tolerance.within(ratio) {
		out.Replicas = ceil(math.Max(float64(ready), 1) * ratio)
	}
	return out
}

// milli prints thousandths as a number.
func milli(v float64) string { return fmt.Sprintf("%.4g", v/1000) }

func customStatus(spec autoscalingv2.MetricSpec, p Proposal) autoscalingv2.MetricStatus {
	out := autoscalingv2.MetricStatus{Type: spec.Type}
	amount := resource.NewMilliQuantity(p.Average, resource.DecimalSI)
	value := autoscalingv2.MetricValueStatus{Value: amount}
	if p.IsAverage || spec.Pods != nil {
		value = autoscalingv2.MetricValueStatus{AverageValue: amount}
	}
	switch {
	case spec.Pods != nil:
		out.Pods = &autoscalingv2.PodsMetricStatus{Metric: spec.Pods.Metric, Current: value}
	case spec.Object != nil:
		out.Object = &autoscalingv2.ObjectMetricStatus{Metric: spec.Object.Metric, DescribedObject: spec.Object.DescribedObject, Current: value}
	case spec.External != nil:
		out.External = &autoscalingv2.ExternalMetricStatus{Metric: spec.External.Metric, Current: value}
	}
	return out
}

package autoscale

import (
	"errors"
	"fmt"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Input is everything one decision is made from.
type Input struct {
	Autoscaler *autoscalingv2.HorizontalPodAutoscaler
	Current    int32 // replicas the target asks for now
	Proposals  []Proposal
	Partial    []string // nodes whose numbers are missing; never scales in
	IsPartial  bool
	Memory     Memory
}

// Output is what to do and what to say.
type Output struct {
	Desired    int32
	Reason     string // with the numbers
	Memory     Memory // with this decision; the caller keeps it
	Conditions []autoscalingv2.HorizontalPodAutoscalerCondition
}

// Decide turns the proposals of all metrics into a number of replicas.
func Decide(now time.Time, in Input) Output {
	spec := in.Autoscaler.Spec
	rules := rulesOf(spec.Behavior)
	low := int32(1)
	if spec.MinReplicas != nil {
		low = *spec.MinReplicas
	}
	out := Output{Desired: in.Current, Memory: in.Memory.Forget(now, rules), Conditions: in.Autoscaler.DeepCopy().Status.Conditions}
	if len(out.Memory.Wanted) == 0 { // a new start must not scale in at once
		out.Memory.Wanted = []Wish{{now, in.Current}}
	}
	switch {
	case in.Current == 0 && low != 0:
		out.set(now, autoscalingv2.ScalingActive, corev1.ConditionFalse, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero")
		return out
	case in.Current > spec.MaxReplicas:
		out.Desired, out.Reason = spec.MaxReplicas, fmt.Sprintf("current number of replicas %d above spec.maxReplicas %d", in.Current, spec.MaxReplicas)
	case in.Current < low:
		out.Desired, out.Reason = low, fmt.Sprintf("current number of replicas %d below spec.minReplicas %d", in.Current, low)
	default:
		out.fromMetrics(now, in, rules, low)
	}
	if out.Desired != in.Current {
		out.Memory.Done = append(out.Memory.Done, Step{now, out.Desired - in.Current})
	}
	return out
}

func (o *Output) fromMetrics(now time.Time, in Input, rules Rules, low int32) {
	best, err := strongest(in.Proposals)
	if best == nil {
		o.set(now, autoscalingv2.ScalingActive, corev1.ConditionFalse, failureReason(err), "the HPA was unable to compute the replica count: "+err.Error())
		return
	}
	wanted, held := best.Replicas, ""
	if wanted < in.Current && err != nil {
		wanted, held = in.Current, "not scaled in, because a metric has no numbers: "+err.Error()
	}
	if wanted < in.Current && in.IsPartial {
		wanted, held = in.Current, "not scaled in, because numbers are missing from nodes "+strings.Join(in.Partial, ", ")
	}
	if held != "" {
		o.set(now, autoscalingv2.ScalingActive, corev1.ConditionTrue, "PartialMetrics", best.Reason+"; "+held)
	} else {
		o.set(now, autoscalingv2.ScalingActive, corev1.ConditionTrue, "ValidMetricFound", "the HPA was able to successfully calculate a replica count from "+best.Reason)
	}
	steady := Steady(now, rules, o.Memory, in.Current, wanted)
	o.Memory.Wanted = append(o.Memory.Wanted, Wish{now, wanted})
	switch {
	case steady > wanted && wanted < in.Current:
		o.set(now, autoscalingv2.AbleToScale, corev1.ConditionTrue, "ScaleDownStabilized", fmt.Sprintf("recent recommendations were higher than current one (%d), applying the highest recent recommendation (%d)", wanted, steady))
	case steady < wanted && wanted > in.Current:
		o.set(now, autoscalingv2.AbleToScale, corev1.ConditionTrue, "ScaleUpStabilized", fmt.Sprintf("recent recommendations were lower than current one (%d), applying the lowest recent recommendation (%d)", wanted, steady))
	default:
		o.set(now, autoscalingv2.AbleToScale, corev1.ConditionTrue, "ReadyForNewScale", "recommended size matches current size")
	}
	limited, why, message := Limited(now, rules, o.Memory, in.Current, steady, low, in.Autoscaler.Spec.MaxReplicas)
	if why == "" {
		o.set(now, autoscalingv2.ScalingLimited, corev1.ConditionFalse, "DesiredWithinRange", "the desired count is within the acceptable range")
	} else {
		o.set(now, autoscalingv2.ScalingLimited, corev1.ConditionTrue, why, message)
	}
	o.Desired, o.Reason = limited, best.Reason
}

// strongest picks the metric that asks for most; errors of the others are kept.
func strongest(proposals []Proposal) (*Proposal, error) {
	var best *Proposal
	var errs []error
	for i := range proposals {
		switch p := &proposals[i]; {
		case p.Err != nil:
			errs = append(errs, p.Err)
		case best == nil || p.Replicas > best.Replicas:
			best = p
		}
	}
	if len(proposals) == 0 {
		errs = append(errs, errors.New("spec.metrics is empty"))
	}
	return best, errors.Join(errs...)
}

// errUnsupported is a metric of a type nobody measures.
var errUnsupported = errors.New("not supported; use Resource or ContainerResource with cpu or memory, Pods, Object or External")

func failureReason(err error) string {
	if errors.Is(err, errUnsupported) {
		return "InvalidMetricSourceType"
	}
	var of kindError
	if errors.As(err, &of) {
		return "FailedGet" + string(of.kind) + "Metric"
	}
	return "FailedGetResourceMetric"
}

func (o *Output) set(now time.Time, kind autoscalingv2.HorizontalPodAutoscalerConditionType, status corev1.ConditionStatus, reason, message string) {
	o.Conditions = setCondition(now, o.Conditions, kind, status, reason, message)
}

func setCondition(now time.Time, have []autoscalingv2.HorizontalPodAutoscalerCondition, kind autoscalingv2.HorizontalPodAutoscalerConditionType, status corev1.ConditionStatus, reason, message string) []autoscalingv2.HorizontalPodAutoscalerCondition {
	fresh := autoscalingv2.HorizontalPodAutoscalerCondition{Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(now)}
	for i := range have {
		if have[i].Type == kind {
			if have[i].Status == status {
				fresh.LastTransitionTime = have[i].LastTransitionTime
			}
			have[i] = fresh
			return have
		}
	}
	return append(have, fresh)
}

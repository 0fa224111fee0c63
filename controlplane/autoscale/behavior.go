package autoscale

import (
	"fmt"
	"math"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

// Memory is what an autoscaler remembers of one target: what it wanted and what it did.
type Memory struct {
	Wanted []Wish
	Done   []Step
}

// Wish is a number of replicas wanted at a time, before limits of speed.
type Wish struct {
	At       time.Time
	Replicas int32
}

// Step is a change that was carried out; Change is negative when scaling in.
type Step struct {
	At     time.Time
	Change int32
}

// Rules are the spec's behavior with Kubernetes' defaults filled in.
type Rules struct{ Up, Down autoscalingv2.HPAScalingRules }

func rulesOf(b *autoscalingv2.HorizontalPodAutoscalerBehavior) Rules {
	out := Rules{
		Up: autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: pointer(int32(0)), SelectPolicy: pointer(autoscalingv2.MaxChangePolicySelect), Policies: []autoscalingv2.HPAScalingPolicy{
			{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15}, {Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15},
		}},
		Down: autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: pointer(int32(300)), SelectPolicy: pointer(autoscalingv2.MaxChangePolicySelect), Policies: []autoscalingv2.HPAScalingPolicy{
			{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15},
		}},
	}
	fill := func(rules *autoscalingv2.HPAScalingRules, given *autoscalingv2.HPAScalingRules) {
		if given == nil {
			return
		}
		if given.StabilizationWindowSeconds != nil {
			rules.StabilizationWindowSeconds = given.StabilizationWindowSeconds
		}
		if given.SelectPolicy != nil {
			rules.SelectPolicy = given.SelectPolicy
		}
		if len(given.Policies) > 0 {
			rules.Policies = given.Policies
		}
		rules.Tolerance = given.Tolerance
	}
	if b != nil {
		fill(&out.Up, b.ScaleUp)
		fill(&out.Down, b.ScaleDown)
	}
	return out
}

func pointer[T any](v T) *T { return &v }

func (r Rules) tolerance(common float64) Tolerance {
	t := Tolerance{common, common}
	if r.Up.Tolerance != nil {
		t.Up = r.Up.Tolerance.AsApproximateFloat64()
	}
	if r.Down.Tolerance != nil {
		t.Down = r.Down.Tolerance.AsApproximateFloat64()
	}
	return t
}

// Steady returns what to aim at after looking back over the stabilisation
// windows: scaling out waits for the lowest recent wish, scaling in for the highest.
func Steady(now time.Time, rules Rules, memory Memory, current, wanted int32) int32 {
	up, down := wanted, wanted
	for _, w := range memory.Wanted {
		age := now.Sub(w.At)
		if age < seconds(*rules.Up.StabilizationWindowSeconds) {
			up = min(up, w.Replicas)
		}
		if age < seconds(*rules.Down.StabilizationWindowSeconds) {
			down = max(down, w.Replicas)
		}
	}
	out := current
	if out < up {
		out = up
	}
	if out > down {
		out = down
	}
	return out
}

// Limited holds a wish to the speed limits and to min and max; why is a reason of
// condition ScalingLimited, empty when the wish is granted as it is.
func Limited(now time.Time, rules Rules, memory Memory, current, wanted, low, high int32) (replicas int32, why, message string) {
	if wanted > current {
		limit := max(current, speed(now, rules.Up, memory, current, 1))
		switch {
		case wanted > min(high, limit) && high <= limit:
			return high, "TooManyReplicas", "the desired replica count is more than the maximum replica count"
		case wanted > limit:
			return limit, "ScaleUpLimit", fmt.Sprintf("the desired replica count %d is increasing faster than the maximum scale rate", wanted)
		}
		return wanted, "", ""
	}
	if wanted < current {
		limit := min(current, speed(now, rules.Down, memory, current, -1))
		switch {
		case wanted < max(low, limit) && low >= limit:
			return low, "TooFewReplicas", "the desired replica count is less than the minimum replica count"
		case wanted < limit:
			return limit, "ScaleDownLimit", fmt.Sprintf("the desired replica count %d is decreasing faster than the maximum scale rate", wanted)
		}
	}
	return wanted, "", ""
}

// speed is how far the policies of one direction (1 out, -1 in) let the target go now.
func speed(now time.Time, rules autoscalingv2.HPAScalingRules, memory Memory, current int32, direction int32) int32 {
	choice := *rules.SelectPolicy
	if choice == autoscalingv2.DisabledPolicySelect {
		return current
	}
	var proposals []int32
	for _, policy := range rules.Policies {
		start := current // at the beginning of the period
		for _, step := range memory.Done {
			if now.Sub(step.At) < seconds(policy.PeriodSeconds) {
				start -= step.Change
			}
		}
		switch policy.Type {
		case autoscalingv2.PodsScalingPolicy:
			proposals = append(proposals, start+direction*policy.Value)
		case autoscalingv2.PercentScalingPolicy:
			far := float64(start) * (1 + float64(direction)*float64(policy.Value)/100)
			if direction > 0 {
				far = math.Ceil(far)
			}
			proposals = append(proposals, int32(far))
		}
	}
	if len(proposals) == 0 {
		return current
	}
	if (choice == autoscalingv2.MinChangePolicySelect) == (direction > 0) {
		return slices.Min(proposals)
	}
	return slices.Max(proposals)
}

// Forget drops what no rule can look back at any more.
func (m Memory) Forget(now time.Time, rules Rules) Memory {
	window := seconds(max(*rules.Up.StabilizationWindowSeconds, *rules.Down.StabilizationWindowSeconds))
	var period time.Duration
	for _, policy := range append(slices.Clone(rules.Up.Policies), rules.Down.Policies...) {
		period = max(period, seconds(policy.PeriodSeconds))
	}
	return Memory{
		Wanted: slices.DeleteFunc(slices.Clone(m.Wanted), func(w Wish) bool { return now.Sub(w.At) >= window }),
		Done:   slices.DeleteFunc(slices.Clone(m.Done), func(s Step) bool { return now.Sub(s.At) >= period }),
	}
}

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }

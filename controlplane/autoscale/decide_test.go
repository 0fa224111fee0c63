package autoscale

import (
	"errors"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func steady(name string) Pod {
	return Pod{Name: name, Started: start.Add(-time.Hour), ReadyKnown: true, Ready: true, ReadyChanged: start.Add(-time.Hour), Request: 500}
}

func starting(name string) Pod {
	p := steady(name)
	p.Started, p.Ready, p.ReadyChanged = start.Add(-10*time.Second), false, start.Add(-10*time.Second)
	return p
}

func TestPropose(t *testing.T) {
	half := Goal{Resource: "cpu", Utilization: 50}
	average := Goal{Resource: "memory", Average: 100 << 20 * 1000}
	noRequest := steady("a")
	noRequest.RequestError = "missing request for cpu in container c of Pod a"
	fresh := steady("b")
	fresh.Started, fresh.ReadyChanged = start.Add(-time.Minute), start.Add(-5*time.Second)
	tests := []struct {
		name    string
		goal    Goal
		current int32
		pods    []Pod
		usage   map[string]float64 // thousandths
		want    int32
		say     string // part of the reason or of the error
	}{
		{"far over target scales out by the ratio", half, 2, []Pod{steady("a"), steady("b")}, map[string]float64{"a": 915, "b": 915}, 8, "cpu 183% of request over target 50% from 2 pods over 15s (1.83 of 1 cores)"},
		{"within a tenth of the target nothing happens", half, 2, []Pod{steady("a"), steady("b")}, map[string]float64{"a": 270, "b": 270}, 2, "54%"},
		{"just outside the tenth it does", half, 2, []Pod{steady("a"), steady("b")}, map[string]float64{"a": 280, "b": 285}, 3, "56%"},
		{"idle pods scale in", half, 4, []Pod{steady("a"), steady("b"), steady("c"), steady("d")}, map[string]float64{"a": 100, "b": 50, "c": 50, "d": 40}, 1, "12%"},
		{"a pod without numbers counts as idle when scaling out", half, 3, []Pod{steady("a"), steady("b"), steady("c")}, map[string]float64{"a": 450, "b": 450}, 4, "90%"},
		{"a pod without numbers counts as full when scaling in", half, 3, []Pod{steady("a"), steady("b"), steady("c")}, map[string]float64{"a": 50, "b": 50}, 3, "10%"},
		{"missing numbers may not turn the direction round", half, 2, []Pod{steady("a"), steady("b")}, map[string]float64{"a": 300}, 2, "60%"},
		{"starting pods count as idle when scaling out", half, 3, []Pod{steady("a"), starting("b"), starting("c")}, map[string]float64{"a": 500, "b": 900, "c": 900}, 3, "100%"},
		{"starting pods do not hold back scaling in", half, 3, []Pod{steady("a"), steady("b"), starting("c")}, map[string]float64{"a": 50, "b": 50, "c": 900}, 1, "10%"},
		{"a pod ready for less than the window is starting", half, 2, []Pod{steady("a"), fresh}, map[string]float64{"a": 250, "b": 2000}, 2, "50% of request at target"},
		{"memory counts from the first moment", average, 2, []Pod{steady("a"), starting("b")}, map[string]float64{"a": 200 << 20 * 1000, "b": 200 << 20 * 1000}, 4, "memory 200Mi per pod over target 100Mi"},
		{"a pending pod counts as idle when scaling out", average, 2, []Pod{steady("a"), {Name: "b", Pending: true}}, map[string]float64{"a": 400 << 20 * 1000}, 4, ""},
		{"pods that are going do not count", half, 1, []Pod{steady("a"), {Name: "b", Gone: true}}, map[string]float64{"a": 250, "b": 5000}, 1, ""},
		{"no request is said by pod and container", half, 1, []Pod{noRequest}, map[string]float64{"a": 1}, 0, "missing request for cpu in container c of Pod a"},
		{"no numbers at all is an error", half, 2, []Pod{steady("a"), starting("b")}, nil, 0, "no cpu numbers of ready pods (0 pods starting, 2 without numbers)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := Propose(start, test.goal, test.current, test.pods, test.usage, Tolerance{0.1, 0.1}, Default().Timing)
			said := got.Reason
			if got.Err != nil {
				said = got.Err.Error()
			}
			if got.Replicas != test.want || !strings.Contains(said, test.say) {
				t.Errorf("%d replicas (%s), want %d (%s)", got.Replicas, said, test.want, test.say)
			}
		})
	}
}

func hpa(low, high int32, behavior *autoscalingv2.HorizontalPodAutoscalerBehavior) *autoscalingv2.HorizontalPodAutoscaler {
	return &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{MinReplicas: &low, MaxReplicas: high, Behavior: behavior}}
}

func reasonOf(out Output, kind autoscalingv2.HorizontalPodAutoscalerConditionType) string {
	for _, c := range out.Conditions {
		if c.Type == kind {
			return c.Reason
		}
	}
	return ""
}

func TestDecide(t *testing.T) {
	asks := func(n ...int32) (out []Proposal) {
		for _, r := range n {
			out = append(out, Proposal{Replicas: r, Reason: "cpu"})
		}
		return out
	}
	failed := Proposal{Err: errors.New("no numbers")}
	tests := []struct {
		name    string
		in      Input
		want    int32
		active  string
		limited string
	}{
		{"the greediest metric wins", Input{Autoscaler: hpa(1, 10, nil), Current: 3, Proposals: asks(2, 5, 4)}, 5, "ValidMetricFound", "DesiredWithinRange"},
		{"the maximum holds", Input{Autoscaler: hpa(1, 4, nil), Current: 3, Proposals: asks(9)}, 4, "ValidMetricFound", "TooManyReplicas"},
		{"out at most by four pods or double in fifteen seconds", Input{Autoscaler: hpa(1, 100, nil), Current: 3, Proposals: asks(50)}, 7, "ValidMetricFound", "ScaleUpLimit"},
		{"a target above the maximum comes down at once", Input{Autoscaler: hpa(1, 4, nil), Current: 9}, 4, "", ""},
		{"a target below the minimum goes up at once", Input{Autoscaler: hpa(3, 4, nil), Current: 1}, 3, "", ""},
		{"a target at zero is left alone", Input{Autoscaler: hpa(1, 4, nil), Current: 0, Proposals: asks(3)}, 0, "ScalingDisabled", ""},
		{"right after a start nothing is scaled in", Input{Autoscaler: hpa(1, 10, nil), Current: 5, Proposals: asks(1)}, 5, "ValidMetricFound", "DesiredWithinRange"},
		{"after five quiet minutes it is", Input{Autoscaler: hpa(1, 10, nil), Current: 5, Proposals: asks(2), Memory: Memory{Wanted: []Wish{{start.Add(-299 * time.Second), 2}}}}, 2, "ValidMetricFound", "DesiredWithinRange"},
		{"a partial answer never scales in", Input{Autoscaler: hpa(1, 10, nil), Current: 5, Proposals: asks(2), IsPartial: true, Partial: []string{"n2"}, Memory: Memory{Wanted: []Wish{{start.Add(-299 * time.Second), 2}}}}, 5, "PartialMetrics", "DesiredWithinRange"},
		{"a partial answer may scale out", Input{Autoscaler: hpa(1, 10, nil), Current: 2, Proposals: asks(4), IsPartial: true}, 4, "ValidMetricFound", "DesiredWithinRange"},
		{"a failed metric keeps the others from scaling in", Input{Autoscaler: hpa(1, 10, nil), Current: 5, Proposals: append(asks(2), failed), Memory: Memory{Wanted: []Wish{{start.Add(-299 * time.Second), 2}}}}, 5, "PartialMetrics", "DesiredWithinRange"},
		{"without any numbers nothing moves", Input{Autoscaler: hpa(1, 10, nil), Current: 5, Proposals: []Proposal{failed}}, 5, "FailedGetResourceMetric", ""},
		{"an unsupported metric is named", Input{Autoscaler: hpa(1, 10, nil), Current: 5, Proposals: []Proposal{{Err: errUnsupported}}}, 5, "InvalidMetricSourceType", ""},
		{
			"one pod a minute inwards, if the policy says so",
			Input{Autoscaler: hpa(1, 10, &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleDown: &autoscalingv2.HPAScalingRules{
				StabilizationWindowSeconds: pointer(int32(0)), Policies: []autoscalingv2.HPAScalingPolicy{{Type: autoscalingv2.PodsScalingPolicy, Value: 1, PeriodSeconds: 60}},
			}}), Current: 5, Proposals: asks(1), Memory: Memory{Wanted: []Wish{{start, 1}}}},
			4, "ValidMetricFound", "ScaleDownLimit",
		},
		{
			"and not twice in that minute",
			Input{Autoscaler: hpa(1, 10, &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleDown: &autoscalingv2.HPAScalingRules{
				StabilizationWindowSeconds: pointer(int32(0)), Policies: []autoscalingv2.HPAScalingPolicy{{Type: autoscalingv2.PodsScalingPolicy, Value: 1, PeriodSeconds: 60}},
			}}), Current: 4, Proposals: asks(1), Memory: Memory{Wanted: []Wish{{start, 1}}, Done: []Step{{start.Add(-30 * time.Second), -1}}}},
			4, "ValidMetricFound", "ScaleDownLimit",
		},
		{
			"a disabled direction stays",
			Input{Autoscaler: hpa(1, 10, &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: &autoscalingv2.HPAScalingRules{SelectPolicy: pointer(autoscalingv2.DisabledPolicySelect)}}), Current: 4, Proposals: asks(8)},
			4, "ValidMetricFound", "ScaleUpLimit",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out := Decide(start, test.in)
			if out.Desired != test.want {
				t.Errorf("desired %d, want %d", out.Desired, test.want)
			}
			if got := reasonOf(out, autoscalingv2.ScalingActive); got != test.active {
				t.Errorf("ScalingActive because %q, want %q", got, test.active)
			}
			if got := reasonOf(out, autoscalingv2.ScalingLimited); got != test.limited {
				t.Errorf("ScalingLimited because %q, want %q", got, test.limited)
			}
		})
	}
}

// Load comes and goes: out within seconds, in five minutes after the last peak.
func TestAnHourOfLoad(t *testing.T) {
	h := hpa(1, 20, nil)
	current, memory := int32(2), Memory{}
	var lastPeak, scaledIn time.Time
	for now := start; now.Before(start.Add(time.Hour)); now = now.Add(5 * time.Second) {
		wanted := int32(2)
		if minute := now.Sub(start) / time.Minute; minute >= 5 && minute < 15 {
			wanted, lastPeak = 12, now
		}
		out := Decide(now, Input{Autoscaler: h, Current: current, Proposals: []Proposal{{Replicas: wanted, Reason: "cpu"}}, Memory: memory})
		memory = out.Memory
		if out.Desired < current && scaledIn.IsZero() {
			scaledIn = now
		}
		if age := now.Sub(start); age == 6*time.Minute && out.Desired != 12 {
			t.Errorf("a minute after the load came there are %d replicas", out.Desired)
		}
		if len(memory.Wanted) > 61 || len(memory.Done) > 20 {
			t.Fatalf("remembers %d wishes and %d steps", len(memory.Wanted), len(memory.Done))
		}
		current = out.Desired
	}
	if wait := scaledIn.Sub(lastPeak); wait < 300*time.Second || wait > 310*time.Second || current != 2 {
		t.Errorf("scaled in %s after the load went, to %d", wait, current)
	}
}

func TestToleranceByBehavior(t *testing.T) {
	zero := resource.MustParse("0")
	got := rulesOf(&autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: &autoscalingv2.HPAScalingRules{Tolerance: &zero}}).tolerance(0.1)
	if got.Up != 0 || got.Down != 0.1 {
		t.Errorf("tolerance %+v", got)
	}
}

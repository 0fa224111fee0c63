package autoscale

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestMetricsOfApplicationsBecomeReplicas(t *testing.T) {
	old := metav1.NewTime(start.Add(-time.Hour))
	pod := func(name string, ready corev1.ConditionStatus) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &old,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, LastTransitionTime: old}}}}
	}
	three := []*corev1.Pod{pod("a", corev1.ConditionTrue), pod("b", corev1.ConditionTrue), pod("c", corev1.ConditionTrue)}
	id := autoscalingv2.MetricIdentifier{Name: "orders_per_second"}
	average := func(v string) autoscalingv2.MetricTarget {
		q := resource.MustParse(v)
		return autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: &q}
	}
	value := func(v string) autoscalingv2.MetricTarget {
		q := resource.MustParse(v)
		return autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: &q}
	}
	pods := func(t autoscalingv2.MetricTarget) autoscalingv2.MetricSpec {
		return autoscalingv2.MetricSpec{Type: "Pods", Pods: &autoscalingv2.PodsMetricSource{Metric: id, Target: t}}
	}
	object := func(t autoscalingv2.MetricTarget) autoscalingv2.MetricSpec {
		return autoscalingv2.MetricSpec{Type: "Object", Object: &autoscalingv2.ObjectMetricSource{Metric: id, Target: t, DescribedObject: autoscalingv2.CrossVersionObjectReference{Kind: "Service", Name: "web"}}}
	}
	external := func(t autoscalingv2.MetricTarget) autoscalingv2.MetricSpec {
		return autoscalingv2.MetricSpec{Type: "External", External: &autoscalingv2.ExternalMetricSource{Metric: id, Target: t}}
	}
	each := func(values ...float64) (out []Sample) {
		for i, v := range values {
			out = append(out, Sample{Labels: map[string]string{"pod": string(rune('a' + i))}, Value: v})
		}
		return out
	}
	for _, test := range []struct {
		name   string
		spec   autoscalingv2.MetricSpec
		pods   []*corev1.Pod
		answer []Sample
		err    error
		want   int32
		say    string // part of the reason or of the error
	}{
		{"pods over their average scale out by the ratio", pods(average("10")), three, each(20, 20, 20), nil, 6, "orders_per_second 20 per pod over target 10 from 3 pods"},
		{"pods at their average stay", pods(average("10")), three, each(10, 11, 9), nil, 3, "at target 10"},
		{"idle pods scale in", pods(average("10")), three, each(1, 1, 1), nil, 1, "under target 10"},
		{"a pod without numbers counts as idle when scaling out", pods(average("10")), three, each(20, 20), nil, 4, ""},
		{"a value of an object grows with the replicas that are ready", object(value("50")), three, []Sample{{Value: 150}}, nil, 9, "orders_per_second 150 over target 50 with 3 replicas ready"},
		{"pods that are not ready do not multiply it", object(value("50")), []*corev1.Pod{three[0], pod("b", corev1.ConditionFalse), pod("c", corev1.ConditionFalse)}, []Sample{{Value: 150}}, nil, 3, "1 replicas ready"},
		{"an average of an object is shared by all replicas", object(average("50")), three, []Sample{{Value: 400}}, nil, 8, "133.3 for each of 3 replicas over target 50 (400 in all)"},
		{"series of an external metric are added up", external(average("10")), three, []Sample{{Value: 25}, {Value: 24.5}}, nil, 5, "(49.5 in all)"},
		{"an external queue that is empty scales in to nothing wanted", external(value("30")), three, []Sample{{Value: 0}}, nil, 0, "under target 30"},
		{"what is a little off is left", external(average("10")), three, []Sample{{Value: 32}}, nil, 3, "over target 10"},
		{"a small target in thousandths", external(average("100m")), three, []Sample{{Value: 1}}, nil, 10, "target 0.1"},
		{"an error is told with the kind of metric", external(value("1")), three, nil, errors.New("no series"), 0, "no series"},
		{"no target", external(autoscalingv2.MetricTarget{}), three, nil, nil, 0, "has no target above 0"},
		{"no pods", pods(average("1")), nil, nil, nil, 0, "the target has no pods"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var asked Metric
			a := &Autoscaler{cfg: Default(), custom: func(_ context.Context, m Metric, _ time.Time) (Vector, error) {
				asked = m
				return Vector{Samples: test.answer}, test.err
			}}
			got, status, _ := a.measureCustom(t.Context(), start, test.spec, "shop", 3, test.pods, Tolerance{0.1, 0.1})
			said := got.Reason
			if got.Err != nil {
				said = got.Err.Error()
				if reason := failureReason(got.Err); reason != "FailedGet"+string(test.spec.Type)+"Metric" {
					t.Errorf("reason %s", reason)
				}
			} else if asked.Namespace != "shop" || asked.Name != "orders_per_second" || status.Type != test.spec.Type {
				t.Errorf("asked %+v, status %+v", asked, status)
			}
			if got.Replicas != test.want || !strings.Contains(said, test.say) {
				t.Errorf("%d replicas (%s), want %d (%s)", got.Replicas, said, test.want, test.say)
			}
		})
	}
}

package autoscale

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	scalefake "k8s.io/client-go/scale/fake"
	clienttesting "k8s.io/client-go/testing"

	"perch/controlplane/event"
)

func TestALoadedDeploymentIsScaledAndTheEventTellsTheNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := metav1.NewTime(time.Now().Add(-time.Hour))
		pod := func(name string) *corev1.Pod {
			return &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{"app": "web"}},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("500m")}}}}},
				Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &old, Conditions: []corev1.PodCondition{
					{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: old},
				}},
			}
		}
		h := hpa(1, 10, nil)
		h.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"}
		h.Spec.Metrics = []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
			Name: "cpu", Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: pointer(int32(50))},
		}}}
		client := fake.NewClientset(h, pod("a.1"), pod("b"))
		var mu sync.Mutex
		replicas := int32(2)
		scales := &scalefake.FakeScaleClient{}
		scales.AddReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
			mu.Lock()
			defer mu.Unlock()
			if update, ok := action.(clienttesting.UpdateAction); ok {
				replicas = update.GetObject().(*autoscalingv1.Scale).Spec.Replicas
			}
			return true, &autoscalingv1.Scale{
				ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: autoscalingv1.ScaleSpec{Replicas: replicas},
				Status: autoscalingv1.ScaleStatus{Replicas: replicas, Selector: "app=web"},
			}, nil
		})
		mapper := meta.NewDefaultRESTMapper(nil)
		mapper.Add(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}, meta.RESTScopeNamespace)
		var asked string
		query := func(_ context.Context, expr string, at time.Time) (Vector, error) {
			mu.Lock()
			defer mu.Unlock()
			asked = expr
			return Vector{Samples: []Sample{{Labels: map[string]string{"pod": "a.1"}, Time: at, Value: 0.915}, {Labels: map[string]string{"pod": "b"}, Time: at, Value: 0.915}}}, nil
		}
		var told []event.Record
		factory := informers.NewSharedInformerFactory(client, 0)
		a, err := New(Default(), client, scales, mapper, factory, query, nil, func(r event.Record) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, r)
		}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		factory.Start(ctx.Done())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		<-time.After(time.Second / 2)
		synctest.Wait()
		mu.Lock()
		if replicas != 6 { // 8 are wanted; two may grow by four in fifteen seconds
			t.Errorf("%d replicas, want 6", replicas)
		}
		if want := `sum by (pod) (rate(container_cpu_usage_seconds_total{job="kubelet",namespace="shop",pod=~"a\\.1|b",container!="",container!="POD"}[15s]))`; asked != want {
			t.Errorf("asked %s\nwant  %s", asked, want)
		}
		if len(told) == 0 || told[0].Reason != "SuccessfulRescale" || !strings.Contains(told[0].Message, "cpu 183% of request over target 50% from 2 pods over 15s (1.83 of 1 cores) → 6") {
			t.Errorf("told %+v", told)
		}
		mu.Unlock()
		have, err := client.AutoscalingV2().HorizontalPodAutoscalers("shop").Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if s := have.Status; s.DesiredReplicas != 6 || s.LastScaleTime == nil || len(s.CurrentMetrics) != 1 || *s.CurrentMetrics[0].Resource.Current.AverageUtilization != 183 || len(s.Conditions) != 3 {
			t.Errorf("status %+v", s)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		factory.Shutdown()
	})
}

package legal

import (
	"context"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"perch/controlplane/api"
)

func rules(t *testing.T) *Rules {
	t.Helper()
	r, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEveryKindOfTheTableHasTypesAndChecks(t *testing.T) {
	r := rules(t)
	for _, k := range api.Kinds() {
		for _, name := range []string{k.Kind, k.Kind + "List"} {
			if _, err := r.Scheme.New(k.WithKind(name)); err != nil {
				t.Error(err)
			}
		}
		group := k.Group
		if group == "events.k8s.io" {
			group = "" // both are stored and checked as core/v1
		}
		if c, ok := r.checks[schema.GroupKind{Group: group, Kind: k.Kind}]; !ok || c.create == nil || c.update == nil {
			t.Errorf("%s has no validation", k.GVK())
		}
	}
}

func pod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "nginx"}}},
	}
}

func TestPodsAreDefaultedAndCheckedLikeKubernetesDoes(t *testing.T) {
	r, ctx := rules(t), context.Background()
	p := pod()
	r.Scheme.Default(p)
	if p.Spec.RestartPolicy != corev1.RestartPolicyAlways || p.Spec.Containers[0].ImagePullPolicy != corev1.PullAlways {
		t.Errorf("defaults missing: %+v", p.Spec)
	}
	if errs := r.Create(ctx, p); len(errs) != 0 {
		t.Errorf("valid pod refused: %v", errs)
	}
	privileged := p.DeepCopy()
	yes := true
	privileged.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: &yes}
	if errs := r.Create(ctx, privileged); len(errs) != 0 {
		t.Errorf("privileged pod refused: %v", errs)
	}
	bad := p.DeepCopy()
	bad.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 70000, Protocol: corev1.ProtocolTCP}}
	if errs := r.Create(ctx, bad); !strings.Contains(errs.ToAggregate().Error(), "spec.containers[0].ports[0].containerPort") {
		t.Errorf("have %v", errs)
	}
	moved := p.DeepCopy()
	moved.ResourceVersion, p.ResourceVersion = "1", "1"
	moved.Spec.Containers[0].Name = "other"
	if errs := r.Update(ctx, moved, p); !strings.Contains(errs.ToAggregate().Error(), "pod updates may not change fields other than") {
		t.Errorf("have %v", errs)
	}
	if moved.Spec.Containers[0].Name != "other" || p.Spec.Containers[0].Name != "c" {
		t.Error("validation changed its arguments")
	}
}

func TestSelectorsOfDeploymentsCannotChange(t *testing.T) {
	r := rules(t)
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default", ResourceVersion: "1"}}
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}
	d.Spec.Template.Labels = map[string]string{"app": "a", "tier": "x"}
	d.Spec.Template.Spec = pod().Spec
	r.Scheme.Default(d)
	if errs := r.Create(context.Background(), d); len(errs) != 0 {
		t.Fatal(errs)
	}
	n := d.DeepCopy()
	n.Spec.Selector.MatchLabels["tier"] = "x"
	if errs := r.Update(context.Background(), n, d); !strings.Contains(errs.ToAggregate().Error(), "field is immutable") {
		t.Errorf("have %v", errs)
	}
}

func TestAutoscalersConvertBetweenVersions(t *testing.T) {
	r := rules(t)
	cpu := int32(70)
	v1 := &autoscalingv1.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default"}}
	v1.Spec.MaxReplicas, v1.Spec.TargetCPUUtilizationPercentage = 3, &cpu
	out, err := r.Scheme.ConvertToVersion(v1, schema.GroupVersion{Group: "autoscaling", Version: runtime.APIVersionInternal})
	if err != nil {
		t.Fatal(err)
	}
	v2 := out.(*autoscalingv2.HorizontalPodAutoscaler)
	if len(v2.Spec.Metrics) != 1 || *v2.Spec.Metrics[0].Resource.Target.AverageUtilization != 70 {
		t.Errorf("have %+v", v2.Spec)
	}
	back, err := r.Scheme.ConvertToVersion(v2, autoscalingv1.SchemeGroupVersion)
	if err != nil {
		t.Fatal(err)
	}
	if have := back.(*autoscalingv1.HorizontalPodAutoscaler).Spec.TargetCPUUtilizationPercentage; have == nil || *have != 70 {
		t.Errorf("have %v back", have)
	}
}

func TestEventsOfBothGroupsAreOne(t *testing.T) {
	r := rules(t)
	e := &eventsv1.Event{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default"}, Note: "hello", Regarding: corev1.ObjectReference{Name: "p"}}
	out, err := r.Scheme.ConvertToVersion(e, schema.GroupVersion{Group: "events.k8s.io", Version: runtime.APIVersionInternal})
	if err != nil {
		t.Fatal(err)
	}
	if have := out.(*corev1.Event); have.Message != "hello" || have.InvolvedObject.Name != "p" {
		t.Errorf("have %+v", have)
	}
	back, err := r.Scheme.ConvertToVersion(out, eventsv1.SchemeGroupVersion)
	if err != nil || back.(*eventsv1.Event).Note != "hello" {
		t.Errorf("have %+v, %v back", back, err)
	}
}

func TestCanonicalFormsFillAliases(t *testing.T) {
	r := rules(t)
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "a"}, StringData: map[string]string{"k": "v"}}
	if err := r.Canonicalize(s); err != nil || string(s.Data["k"]) != "v" || s.StringData != nil {
		t.Errorf("have %+v, %v", s, err)
	}
	p := pod()
	p.Spec.ServiceAccountName = "robot"
	if err := r.Canonicalize(p); err != nil || p.Spec.DeprecatedServiceAccount != "robot" {
		t.Errorf("have %q, %v", p.Spec.DeprecatedServiceAccount, err)
	}
}

func BenchmarkCheckPod(b *testing.B) {
	r, err := New()
	if err != nil {
		b.Fatal(err)
	}
	p := pod()
	r.Scheme.Default(p)
	b.ReportAllocs()
	for b.Loop() {
		if errs := r.Create(context.Background(), p); len(errs) != 0 {
			b.Fatal(errs)
		}
	}
}

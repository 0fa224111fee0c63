package resource

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

var (
	_ rest.Getter               = &Pods{}
	_ rest.Lister               = &Pods{}
	_ rest.Scoper               = &Pods{}
	_ rest.KindProvider         = &Pods{}
	_ rest.SingularNameProvider = &Pods{}
	_ rest.Getter               = &Nodes{}
	_ rest.Lister               = &Nodes{}
)

func source(asked *[]string) Source {
	pod := func(ns, name string, phase corev1.PodPhase) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{"app": name}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}, Status: corev1.PodStatus{Phase: phase},
		}
	}
	all := []*corev1.Pod{pod("red", "a", corev1.PodRunning), pod("red", "done", corev1.PodSucceeded), pod("red", "new", corev1.PodRunning), pod("blue", "b", corev1.PodRunning)}
	return Source{
		Query: func(_ context.Context, expr string, _ time.Time) ([]Value, error) {
			*asked = append(*asked, expr)
			v := 0.25
			if strings.Contains(expr, "memory") {
				v = 64 << 20
			}
			if strings.Contains(expr, `id="/"`) {
				return []Value{{map[string]string{"node": "n1"}, v}}, nil
			}
			return []Value{
				{map[string]string{"namespace": "red", "pod": "a", "container": "c"}, v},
				{map[string]string{"namespace": "red", "pod": "done", "container": "c"}, v},
				{map[string]string{"namespace": "blue", "pod": "b", "container": "c"}, v},
			}, nil
		},
		Pods: func(ns string, sel labels.Selector) ([]*corev1.Pod, error) {
			var out []*corev1.Pod
			for _, p := range all {
				if (ns == "" || p.Namespace == ns) && sel.Matches(labels.Set(p.Labels)) {
					out = append(out, p)
				}
			}
			return out, nil
		},
		Nodes: func(labels.Selector) ([]*corev1.Node, error) {
			return []*corev1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, {ObjectMeta: metav1.ObjectMeta{Name: "n2"}}}, nil
		},
	}
}

func TestPodsHaveTheirUse(t *testing.T) {
	var asked []string
	p := NewPods(source(&asked))
	for _, c := range []struct {
		name, namespace, selector, want string
	}{
		{"one namespace leaves out ended pods and those without numbers", "red", "", "a"},
		{"all namespaces", "", "", "a b"},
		{"by label", "", "app=b", "b"},
		{"none", "green", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			sel, err := labels.Parse(c.selector)
			if err != nil {
				t.Fatal(err)
			}
			o, err := p.List(request.WithNamespace(t.Context(), c.namespace), &internalversion.ListOptions{LabelSelector: sel})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range o.(*v1beta1.PodMetricsList).Items {
				got = append(got, m.Name)
				u := m.Containers[0].Usage
				if u.Cpu().MilliValue() != 250 || u.Memory().String() != "64Mi" {
					t.Errorf("use of %s: %v", m.Name, u)
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
	if _, err := p.Get(request.WithNamespace(t.Context(), "red"), "new", nil); !apierrors.IsNotFound(err) {
		t.Errorf("a pod without numbers: %v", err)
	}
	asked = nil
	if o, err := p.Get(request.WithNamespace(t.Context(), "red"), "a", nil); err != nil || o.(*v1beta1.PodMetrics).Name != "a" {
		t.Error(o, err)
	}
	want := `sum by (namespace,pod,container) (rate(container_cpu_usage_seconds_total{job="kubelet",namespace="red",pod="a",container!=""}[30s]))`
	if len(asked) != 2 || asked[0] != want {
		t.Errorf("asked %q", asked)
	}
}

func TestNodesHaveTheirUse(t *testing.T) {
	var asked []string
	n := NewNodes(source(&asked))
	o, err := n.List(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	tab, err := n.ConvertToTable(t.Context(), o, nil)
	if err != nil || len(tab.Rows) != 1 || tab.Rows[0].Cells[0] != "n1" || tab.Rows[0].Cells[1] != "250m" {
		t.Error(tab, err)
	}
	if _, err := n.Get(t.Context(), "n2", nil); !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

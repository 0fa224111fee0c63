package resource

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// Pods is the storage of PodMetrics.
type Pods struct{ src Source }

// NewPods makes the storage of resource pods.
func NewPods(src Source) *Pods { return &Pods{src} }

// New, NewList, Destroy, Kind, NamespaceScoped and GetSingularName describe
// the resource to the API server.
func (*Pods) New() runtime.Object { return &v1beta1.PodMetrics{} }

// NewList is an empty list.
func (*Pods) NewList() runtime.Object { return &v1beta1.PodMetricsList{} }

// Destroy has nothing to free.
func (*Pods) Destroy() {}

// Kind names the kind.
func (*Pods) Kind() string { return "PodMetrics" }

// NamespaceScoped is true.
func (*Pods) NamespaceScoped() bool { return true }

// GetSingularName is the singular of the resource.
func (*Pods) GetSingularName() string { return "pod" }

// Get gives one pod; NotFound when it does not exist or has no numbers yet.
func (p *Pods) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	namespace := request.NamespaceValue(ctx)
	pods, err := p.src.Pods(namespace, labels.Everything())
	if err != nil {
		return nil, err
	}
	for _, pod := range pods {
		if pod.Name == name {
			found, err := p.metrics(ctx, []*corev1.Pod{pod}, equal("namespace", namespace)+","+equal("pod", name))
			if err != nil {
				return nil, apierrors.NewInternalError(err)
			}
			if len(found) == 1 {
				return &found[0], nil
			}
		}
	}
	return nil, apierrors.NewNotFound(v1beta1.Resource("pods"), name)
}

// List gives the running pods that have numbers.
func (p *Pods) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	selector := labels.Everything()
	if options != nil && options.LabelSelector != nil {
		selector = options.LabelSelector
	}
	namespace := request.NamespaceValue(ctx)
	pods, err := p.src.Pods(namespace, selector)
	if err != nil {
		return nil, err
	}
	if options != nil && options.FieldSelector != nil {
		var some []*corev1.Pod
		for _, pod := range pods {
			if options.FieldSelector.Matches(podFields(pod)) {
				some = append(some, pod)
			}
		}
		pods = some
	}
	matchers := `namespace!=""`
	if namespace != "" {
		matchers = equal("namespace", namespace)
	}
	items, err := p.metrics(ctx, pods, matchers)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return &v1beta1.PodMetricsList{Items: items}, nil
}

// podFields are the fields a selector may name.
func podFields(pod *corev1.Pod) fields.Set {
	return fields.Set{"metadata.name": pod.Name, "metadata.namespace": pod.Namespace, "spec.nodeName": pod.Spec.NodeName}
}

func (p *Pods) metrics(ctx context.Context, pods []*corev1.Pod, matchers string) ([]v1beta1.PodMetrics, error) {
	items := []v1beta1.PodMetrics{}
	if len(pods) == 0 {
		return items, nil
	}
	now := time.Now()
	uses, err := p.src.uses(ctx, now, matchers+`,container!=""`, "namespace", "pod", "container")
	if err != nil {
		return nil, err
	}
	for _, pod := range pods {
		if pod.Status.Phase != corev1.PodRunning {
			continue
		}
		m := v1beta1.PodMetrics{
			ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace, Labels: pod.Labels, CreationTimestamp: metav1.NewTime(now)},
			Timestamp:  metav1.NewTime(now), Window: metav1.Duration{Duration: Window},
		}
		for _, c := range containers(pod) {
			if u, ok := uses[pod.Namespace+"/"+pod.Name+"/"+c]; ok && u.known() {
				m.Containers = append(m.Containers, v1beta1.ContainerMetrics{Name: c, Usage: u.list()})
			}
		}
		if len(m.Containers) > 0 {
			items = append(items, m)
		}
	}
	return items, nil
}

// containers are those that run beside each other: sidecars are init
// containers that restart.
func containers(pod *corev1.Pod) []string {
	var out []string
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			out = append(out, c.Name)
		}
	}
	for _, c := range pod.Spec.Containers {
		out = append(out, c.Name)
	}
	return out
}

// ConvertToTable shows name, cpu, memory and window.
func (*Pods) ConvertToTable(_ context.Context, o runtime.Object, _ runtime.Object) (*metav1.Table, error) {
	var rows []row
	one := func(m *v1beta1.PodMetrics) {
		total := corev1.ResourceList{}
		for _, c := range m.Containers {
			for k, v := range c.Usage {
				sum := total[k]
				sum.Add(v)
				total[k] = sum
			}
		}
		rows = append(rows, row{m, m.Name, total, m.Window})
	}
	switch t := o.(type) {
	case *v1beta1.PodMetrics:
		one(t)
	case *v1beta1.PodMetricsList:
		for i := range t.Items {
			one(&t.Items[i])
		}
	default:
		return nil, fmt.Errorf("show %T as a table of pods: not known", o)
	}
	return table(rows), nil
}

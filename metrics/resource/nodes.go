package resource

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// Nodes is the storage of NodeMetrics.
type Nodes struct{ src Source }

// NewNodes makes the storage of resource nodes.
func NewNodes(src Source) *Nodes { return &Nodes{src} }

// New, NewList, Destroy, Kind, NamespaceScoped and GetSingularName describe
// the resource to the API server.
func (*Nodes) New() runtime.Object { return &v1beta1.NodeMetrics{} }

// NewList is an empty list.
func (*Nodes) NewList() runtime.Object { return &v1beta1.NodeMetricsList{} }

// Destroy has nothing to free.
func (*Nodes) Destroy() {}

// Kind names the kind.
func (*Nodes) Kind() string { return "NodeMetrics" }

// NamespaceScoped is false.
func (*Nodes) NamespaceScoped() bool { return false }

// GetSingularName is the singular of the resource.
func (*Nodes) GetSingularName() string { return "node" }

// Get gives one node; NotFound when it does not exist or has no numbers yet.
func (n *Nodes) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	nodes, err := n.src.Nodes(labels.Everything())
	if err != nil {
		return nil, err
	}
	for _, node := range nodes {
		if node.Name == name {
			found, err := n.metrics(ctx, []*corev1.Node{node}, ","+equal("node", name))
			if err != nil {
				return nil, apierrors.NewInternalError(err)
			}
			if len(found) == 1 {
				return &found[0], nil
			}
		}
	}
	return nil, apierrors.NewNotFound(v1beta1.Resource("nodes"), name)
}

// List gives the nodes that have numbers.
func (n *Nodes) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	selector := labels.Everything()
	if options != nil && options.LabelSelector != nil {
		selector = options.LabelSelector
	}
	nodes, err := n.src.Nodes(selector)
	if err != nil {
		return nil, err
	}
	items, err := n.metrics(ctx, nodes, "")
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return &v1beta1.NodeMetricsList{Items: items}, nil
}

func (n *Nodes) metrics(ctx context.Context, nodes []*corev1.Node, matchers string) ([]v1beta1.NodeMetrics, error) {
	items := []v1beta1.NodeMetrics{}
	now := time.Now()
	// The root cgroup is the whole machine. What a namespace's pods say has its label.
	uses, err := n.src.uses(ctx, now, `id="/",namespace=""`+matchers, "node")
	if err != nil {
		return nil, err
	}
	for _, node := range nodes {
		if u, ok := uses[node.Name]; ok && u.known() {
			items = append(items, v1beta1.NodeMetrics{
				ObjectMeta: metav1.ObjectMeta{Name: node.Name, Labels: node.Labels, CreationTimestamp: metav1.NewTime(now)},
				Timestamp:  metav1.NewTime(now), Window: metav1.Duration{Duration: Window}, Usage: u.list(),
			})
		}
	}
	return items, nil
}

// ConvertToTable shows name, cpu, memory and window.
func (*Nodes) ConvertToTable(_ context.Context, o runtime.Object, _ runtime.Object) (*metav1.Table, error) {
	var rows []row
	switch t := o.(type) {
	case *v1beta1.NodeMetrics:
		rows = append(rows, row{t, t.Name, t.Usage, t.Window})
	case *v1beta1.NodeMetricsList:
		for i := range t.Items {
			m := &t.Items[i]
			rows = append(rows, row{m, m.Name, m.Usage, m.Window})
		}
	default:
		return nil, fmt.Errorf("show %T as a table of nodes: not known", o)
	}
	return table(rows), nil
}

type row struct {
	object runtime.Object
	name   string
	usage  corev1.ResourceList
	window metav1.Duration
}

func table(rows []row) *metav1.Table {
	out := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name"}, {Name: "CPU", Type: "string"},
		{Name: "Memory", Type: "string"}, {Name: "Window", Type: "string"},
	}}
	for _, r := range rows {
		cpu, memory := r.usage[corev1.ResourceCPU], r.usage[corev1.ResourceMemory]
		out.Rows = append(out.Rows, metav1.TableRow{
			Cells: []any{r.name, cpu.String(), memory.String(), r.window.Duration.String()}, Object: runtime.RawExtension{Object: r.object},
		})
	}
	return out
}

package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"perch/controlplane/apiserver"
	"perch/controlplane/autoscale"
	"perch/metrics/custom"
)

var metricQueries = schema.GroupVersionResource{Group: "perch.dev", Version: "v1alpha1", Resource: "metricqueries"}

// customMetrics are metrics of applications for autoscalers. They can be asked
// once the API server is built.
type customMetrics struct{ source custom.Source }

// groups are the groups of the API that serve them.
func (m *customMetrics) groups(r role) []apiserver.Group {
	var out []apiserver.Group
	for _, gv := range custom.Versions() {
		out = append(out, apiserver.Group{GroupVersion: gv, Handler: func(p apiserver.Parts) (http.Handler, error) {
			if m.source.Query == nil {
				m.source = r.customSource(p)
			}
			return m.source.Handler(gv), nil
		}})
	}
	return out
}

func (r role) customSource(p apiserver.Parts) custom.Source {
	ask := r.asker()
	pods := p.Informers.Core().V1().Pods().Lister()
	queries := watchObjects(p.Dynamic, metricQueries, r.part("metricqueries"))
	r.group.Go("metricqueries", queries.Run)
	return custom.Source{
		Query: func(ctx context.Context, namespace, expr string, at time.Time) ([]custom.Value, []string, error) {
			got, warnings, err := ask.queryIn(ctx, namespace, expr, at)
			out := make([]custom.Value, len(got))
			for i, s := range got {
				out[i] = custom.Value{Labels: s.labels, At: s.at, Value: s.value}
			}
			return out, warnings, err
		},
		Stored: func(namespace, metric string) (string, bool, error) {
			if !queries.informer.HasSynced() { // else a series of the name would be taken for it
				return "", false, errUnread
			}
			text, found := storedQuery(queries.informer.GetStore().List(), namespace, metric)
			return text, found, nil
		},
		Names: func(namespace string) (out []string, _ error) {
			for _, o := range queries.informer.GetStore().List() {
				if u, ok := o.(*unstructured.Unstructured); ok && (namespace == "" || namespace == u.GetNamespace()) {
					out = append(out, metricName(u))
				}
			}
			slices.Sort(out)
			return slices.Compact(out), nil
		},
		Pods: func(namespace string, selector labels.Selector) (out []string, _ error) {
			found, err := pods.Pods(namespace).List(selector)
			for _, p := range found {
				out = append(out, p.Name)
			}
			return out, err
		},
	}
}

// errUnread lasts for the first moments of a server.
var errUnread = errors.New("objects are not read yet")

// metricName is what autoscalers call the metric of a MetricQuery.
func metricName(u *unstructured.Unstructured) string {
	name, _, _ := unstructured.NestedString(u.Object, "spec", "metric") // the schema holds it to a string
	return cmp.Or(name, u.GetName())
}

// storedQuery is the PromQL of a metric of a namespace.
func storedQuery(objects []any, namespace, metric string) (string, bool) {
	var first *unstructured.Unstructured
	for _, o := range objects {
		u, ok := o.(*unstructured.Unstructured)
		if ok && u.GetNamespace() == namespace && metricName(u) == metric && (first == nil || u.GetName() < first.GetName()) {
			first = u
		}
	}
	if first == nil {
		return "", false
	}
	return queryText(first), true
}

// queryText is the PromQL of a MetricQuery.
func queryText(u *unstructured.Unstructured) string {
	text, _, _ := unstructured.NestedString(u.Object, "spec", "query") // the schema holds it to a string
	return text
}

// forAutoscaler is the autoscaler's way to ask.
func (m *customMetrics) forAutoscaler(ctx context.Context, want autoscale.Metric, at time.Time) (autoscale.Vector, error) {
	selector := labels.Everything()
	if want.Selector != nil {
		var err error
		if selector, err = metav1.LabelSelectorAsSelector(want.Selector); err != nil {
			return autoscale.Vector{}, fmt.Errorf("selector of metric %s: %w", want.Name, err)
		}
	}
	ask := custom.Want{Namespace: want.Namespace, Metric: want.Name, Selector: selector, Objects: want.Objects}
	if want.Kind != "" {
		ask.By = custom.LabelOf(want.Kind)
	}
	values, warnings, err := m.source.Values(ctx, ask, at)
	out := autoscale.Vector{Partial: len(warnings) > 0, Missing: warnings}
	for _, v := range values {
		out.Samples = append(out.Samples, autoscale.Sample{Labels: v.Labels, Time: v.At, Value: v.Value})
	}
	return out, err
}

package daemon

import (
	"cmp"
	"context"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"perch/cmd/perch/daemon/config"
	"perch/metrics/target"
)

// watchMonitors keeps ServiceMonitor and PodMonitor objects of all namespaces. A
// worker may not read them: its pods are scraped by their annotations only.
func (r role) watchMonitors(client dynamic.Interface) func() []target.Monitor {
	if r.cfg.Kind != config.Server {
		return nil
	}
	stores := map[string]cache.Store{}
	for kind, resource := range map[string]string{target.ServiceMonitor: "servicemonitors", target.PodMonitor: "podmonitors"} {
		source := client.Resource(schema.GroupVersionResource{Group: "monitoring.coreos.com", Version: "v1", Resource: resource})
		informer := cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return source.List(ctx, o) },
			WatchFuncWithContext: source.Watch,
		}, client), &unstructured.Unstructured{}, 0, nil)
		stores[kind] = informer.GetStore()
		r.group.Go(resource, func(ctx context.Context) error {
			untilAnswered(ctx, startLimit, r.part("monitors"), func(ctx context.Context) error {
				_, err := source.List(ctx, metav1.ListOptions{Limit: 1})
				return err
			})
			informer.RunWithContext(ctx)
			return nil
		})
	}
	return func() []target.Monitor {
		var out []target.Monitor
		for kind, store := range stores {
			for _, o := range store.List() {
				if u, ok := o.(*unstructured.Unstructured); ok {
					out = append(out, monitorOf(kind, u))
				}
			}
		}
		slices.SortFunc(out, func(a, b target.Monitor) int {
			return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Metadata.Namespace, b.Metadata.Namespace), cmp.Compare(a.Metadata.Name, b.Metadata.Name))
		})
		return out
	}
}

// monitorOf reads an object; one of another shape names no endpoint, which is
// what the listing of targets then says of it.
func monitorOf(kind string, u *unstructured.Unstructured) target.Monitor {
	m := target.Monitor{Kind: kind, Metadata: metav1.ObjectMeta{Namespace: u.GetNamespace(), Name: u.GetName()}}
	if spec, ok, err := unstructured.NestedMap(u.Object, "spec"); ok && err == nil {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(spec, &m.Spec); err != nil {
			m.Spec = target.MonitorSpec{}
		}
	}
	return m
}

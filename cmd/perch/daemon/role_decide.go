package daemon

import (
	"context"
	"fmt"
	"time"

	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"

	"perch/controlplane/autoscale"
	"perch/controlplane/event"
	"perch/controlplane/nodelife"
)

// deciders are the parts of the control plane that act on numbers, heartbeats and
// objects of monitoring: the autoscaler, the watch over nodes, and the rights to
// read the secrets that monitoring objects name.
func (r role) deciders(loop clients, apps *customMetrics, f informers.SharedInformerFactory, tell event.Tell) ([]namedRun, error) {
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(loop.kube.Discovery()))
	scales, err := scale.NewForConfig(loop.rest, mapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(loop.kube.Discovery()))
	if err != nil {
		return nil, fmt.Errorf("make scale client: %w", err)
	}
	ask := r.asker()
	scaler, err := autoscale.New(autoscale.Default(), loop.kube, scales, mapper, f, func(ctx context.Context, expr string, at time.Time) (autoscale.Vector, error) {
		got, warnings, err := ask.query(ctx, expr, at)
		v := autoscale.Vector{Partial: len(warnings) > 0, Missing: warnings}
		for _, s := range got {
			v.Samples = append(v.Samples, autoscale.Sample{Labels: s.labels, Time: s.at, Value: s.value})
		}
		return v, err
	}, apps.forAutoscaler, tell, r.part("autoscale"), r.reg)
	if err != nil {
		return nil, err
	}
	nodes, err := nodelife.New(nodelife.Default(), loop.kube, f, tell, r.part("nodelife"), r.reg)
	if err != nil {
		return nil, err
	}
	secrets, err := r.openNamedSecrets(loop, f.Rbac().V1().Roles())
	if err != nil {
		return nil, err
	}
	return []namedRun{{"autoscale", scaler.Run}, {"nodelife", nodes.Run}, {"named secrets", secrets.Run}}, nil
}

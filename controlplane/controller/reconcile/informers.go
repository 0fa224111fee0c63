package reconcile

import (
	"context"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
)

// NewInformers makes the shared snapshot of one term. Field ownership records are
// dropped from it: no loop reads them, and they are half of an object's bytes.
func NewInformers(client kubernetes.Interface) informers.SharedInformerFactory {
	return informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(func(object any) (any, error) {
		if o, err := meta.Accessor(object); err == nil {
			o.SetManagedFields(nil)
		}
		return object, nil
	}))
}

// RunInformers returns a part that keeps the snapshot current until ctx ends.
// Start it after all users were built and before they run.
func RunInformers(factory informers.SharedInformerFactory) func(context.Context) error {
	return func(ctx context.Context) error {
		factory.Start(ctx.Done())
		<-ctx.Done()
		factory.Shutdown()
		return nil
	}
}

package apiserver

import (
	"context"
	"fmt"
	"reflect"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"perch/controlplane/api"
	"perch/controlplane/api/legal"
)

// scaleREST shows spec.replicas of a workload as a Scale and writes it back.
type scaleREST struct {
	store *genericregistry.Store
	kind  api.Kind
	rules *legal.Rules
	paths managedfields.ResourcePathMappings
	table rest.TableConvertor
}

var (
	_ rest.Patcher                  = (*scaleREST)(nil)
	_ rest.GroupVersionKindProvider = (*scaleREST)(nil)
)

func newScale(store *genericregistry.Store, k api.Kind, rules *legal.Rules) *scaleREST {
	return &scaleREST{
		store: store, kind: k, rules: rules, table: rest.NewDefaultTableConvertor(autoscalingv1.Resource("scales")),
		paths: managedfields.ResourcePathMappings{k.GroupVersion.String(): fieldpath.MakePathOrDie("spec", "replicas")},
	}
}

// New is an empty Scale.
func (s *scaleREST) New() runtime.Object { return &autoscalingv1.Scale{} }

// Destroy leaves the shared storage alone.
func (s *scaleREST) Destroy() {}

// GroupVersionKind differs from that of the parent resource.
func (s *scaleREST) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return autoscalingv1.SchemeGroupVersion.WithKind("Scale")
}

// ConvertToTable prints name and age.
func (s *scaleREST) ConvertToTable(ctx context.Context, o, options runtime.Object) (*metav1.Table, error) {
	return s.table.ConvertToTable(ctx, o, options)
}

// Get reads the scale of a workload.
func (s *scaleREST) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	o, err := s.store.Get(ctx, name, options)
	if err != nil {
		return nil, err
	}
	return s.scaleOf(o)
}

// Update writes spec.replicas of a workload.
func (s *scaleREST) Update(ctx context.Context, name string, want rest.UpdatedObjectInfo, create rest.ValidateObjectFunc, update rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	info := &scaleInfo{scaleREST: s, name: name, want: want}
	o, _, err := s.store.Update(ctx, name, info, toScale(s, create), toScaleUpdate(s, update), false, options)
	if err != nil {
		return nil, false, err
	}
	scale, err := s.scaleOf(o)
	return scale, false, err
}

// toScale lets admission see the Scale, not the workload.
func toScale(s *scaleREST, f rest.ValidateObjectFunc) rest.ValidateObjectFunc {
	return func(ctx context.Context, o runtime.Object) error {
		scale, err := s.scaleOf(o)
		if err != nil || f == nil {
			return err
		}
		return f(ctx, scale)
	}
}

func toScaleUpdate(s *scaleREST, f rest.ValidateObjectUpdateFunc) rest.ValidateObjectUpdateFunc {
	return func(ctx context.Context, o, old runtime.Object) error {
		scale, err := s.scaleOf(o)
		if err != nil || f == nil {
			return err
		}
		was, err := s.scaleOf(old)
		if err != nil {
			return err
		}
		return f(ctx, scale, was)
	}
}

func (s *scaleREST) scaleOf(o runtime.Object) (*autoscalingv1.Scale, error) {
	m := accessor(o)
	entries, err := managedfields.NewScaleHandler(m.GetManagedFields(), s.kind.GroupVersion, s.paths).ToSubresource()
	if err != nil {
		return nil, fmt.Errorf("read scale of %s: %w", m.GetName(), err)
	}
	out := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{
		Name: m.GetName(), Namespace: m.GetNamespace(), UID: m.GetUID(), ResourceVersion: m.GetResourceVersion(),
		CreationTimestamp: m.GetCreationTimestamp(), ManagedFields: entries,
	}}
	v := reflect.ValueOf(o).Elem()
	if n := v.FieldByName("Spec").FieldByName("Replicas").Interface().(*int32); n != nil {
		out.Spec.Replicas = *n
	}
	out.Status.Replicas = int32(v.FieldByName("Status").FieldByName("Replicas").Int())
	if out.Status.Selector, err = selectorOf(o); err != nil {
		return nil, fmt.Errorf("read scale of %s: %w", m.GetName(), err)
	}
	return out, nil
}

func selectorOf(o runtime.Object) (string, error) {
	if rc, ok := o.(*corev1.ReplicationController); ok {
		return labels.SelectorFromSet(rc.Spec.Selector).String(), nil
	}
	want := reflect.ValueOf(o).Elem().FieldByName("Spec").FieldByName("Selector").Interface().(*metav1.LabelSelector)
	selector, err := metav1.LabelSelectorAsSelector(want)
	if err != nil {
		return "", err
	}
	return selector.String(), nil
}

// scaleInfo turns a wanted Scale into a wanted workload.
type scaleInfo struct {
	*scaleREST
	name string
	want rest.UpdatedObjectInfo
}

// Preconditions are those of the Scale.
func (i *scaleInfo) Preconditions() *metav1.Preconditions { return i.want.Preconditions() }

// UpdatedObject is the workload with the wanted number of replicas.
func (i *scaleInfo) UpdatedObject(ctx context.Context, old runtime.Object) (runtime.Object, error) {
	o := old.DeepCopyObject()
	m := accessor(o)
	if m.GetResourceVersion() == "" {
		return nil, apierrors.NewNotFound(i.kind.GVR().GroupResource(), i.name)
	}
	was, err := i.scaleOf(o)
	if err != nil {
		return nil, err
	}
	wanted, err := i.want.UpdatedObject(ctx, was)
	if err != nil {
		return nil, err
	}
	scale, ok := wanted.(*autoscalingv1.Scale)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("expected a Scale, got %T", wanted))
	}
	if errs := i.rules.Create(ctx, scale); len(errs) > 0 {
		return nil, apierrors.NewInvalid(autoscalingv1.SchemeGroupVersion.WithKind("Scale").GroupKind(), i.name, errs)
	}
	if scale.UID != "" && scale.UID != m.GetUID() {
		return nil, apierrors.NewConflict(i.kind.GVR().GroupResource(), i.name, fmt.Errorf("precondition failed: UID in precondition: %v, UID in object meta: %v", scale.UID, m.GetUID()))
	}
	reflect.ValueOf(o).Elem().FieldByName("Spec").FieldByName("Replicas").Set(reflect.ValueOf(&scale.Spec.Replicas))
	if scale.ResourceVersion != "" {
		m.SetResourceVersion(scale.ResourceVersion)
	}
	entries, err := managedfields.NewScaleHandler(m.GetManagedFields(), i.kind.GroupVersion, i.paths).ToParent(scale.ManagedFields)
	if err != nil {
		return nil, fmt.Errorf("write scale of %s: %w", i.name, err)
	}
	m.SetManagedFields(entries)
	return o, nil
}

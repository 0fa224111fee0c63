package legal

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// check holds the validation of one kind, on internal types. A nil entry means
// that Kubernetes has no check of its own there.
type check struct {
	create func(o runtime.Object) field.ErrorList
	update func(o, old runtime.Object) field.ErrorList
	status func(o, old runtime.Object) field.ErrorList
	parts  map[string]func(o, old runtime.Object) field.ErrorList // other subresources, by name
	warn   func(ctx context.Context, o, old runtime.Object) []string
}

// one, two and both adapt typed validation functions.
func one[T runtime.Object](f func(T) field.ErrorList) func(runtime.Object) field.ErrorList {
	return func(o runtime.Object) field.ErrorList { return f(o.(T)) }
}

func two[T runtime.Object](f func(o, old T) field.ErrorList) func(o, old runtime.Object) field.ErrorList {
	return func(o, old runtime.Object) field.ErrorList { return f(o.(T), old.(T)) }
}

func both[T runtime.Object](f func(T) field.ErrorList, g func(o, old T) field.ErrorList) func(o, old runtime.Object) field.ErrorList {
	return func(o, old runtime.Object) field.ErrorList { return append(f(o.(T)), g(o.(T), old.(T))...) }
}

// Create returns what is wrong with a new object. Hand-written validation is
// authoritative for all our kinds; Kubernetes' generated one only shadows it.
func (r *Rules) Create(_ context.Context, obj runtime.Object) field.ErrorList {
	c, in, _, errs := r.prepare(obj, nil)
	if errs != nil {
		return errs
	}
	if c.create != nil {
		errs = c.create(in)
	}
	return errs
}

// Update returns what is wrong with obj as the successor of old.
func (r *Rules) Update(_ context.Context, obj, old runtime.Object) field.ErrorList {
	c, in, was, errs := r.prepare(obj, old)
	if errs != nil {
		return errs
	}
	if c.update != nil {
		errs = c.update(in, was)
	}
	return errs
}

// Part returns what is wrong with obj after a write to a subresource, such as
// "status", "finalize", "approval", "ephemeralcontainers" or "resize".
func (r *Rules) Part(_ context.Context, subresource string, obj, old runtime.Object) field.ErrorList {
	c, in, was, errs := r.prepare(obj, old)
	if errs != nil {
		return errs
	}
	f := c.parts[subresource]
	if subresource == "status" {
		f = c.status
	}
	if f != nil {
		errs = f(in, was)
	}
	return errs
}

// Warnings returns Kubernetes' own hints about an object; old is nil on create.
func (r *Rules) Warnings(ctx context.Context, obj, old runtime.Object) []string {
	c, in, was, errs := r.prepare(obj, old)
	if errs != nil || c.warn == nil {
		return nil
	}
	return c.warn(ctx, in, was)
}

func (r *Rules) prepare(obj, old runtime.Object) (c check, in, was runtime.Object, errs field.ErrorList) {
	in, gv, err := r.internal(obj)
	if err != nil {
		return check{}, nil, nil, field.ErrorList{field.InternalError(nil, err)}
	}
	if old != nil {
		if was, _, err = r.internal(old); err != nil {
			return check{}, nil, nil, field.ErrorList{field.InternalError(nil, err)}
		}
	}
	kinds, _, err := r.hub.ObjectKinds(obj)
	if err != nil {
		return check{}, nil, nil, field.ErrorList{field.InternalError(nil, err)}
	}
	return r.checks[schema.GroupKind{Group: gv.Group, Kind: kinds[0].Kind}], in, was, nil
}

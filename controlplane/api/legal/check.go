package legal

import (
	"context"

	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
)

// check holds the validation of one kind, on internal types. A nil entry means
// that Kubernetes has no check of its own there.
type check struct {
	create func(o runtime.Object) field.ErrorList
	update func(o, old runtime.Object) field.ErrorList
	status func(o, old runtime.Object) field.ErrorList
	parts  map[string]func(o, old runtime.Object) field.ErrorList // other subresources, by name
	warn   func(ctx context.Context, o, old runtime.Object) []string

	// declared says that Kubernetes validates this kind by generated code too,
	// and deletes the hand-written counterpart over time.
	declared bool
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

// Create returns what is wrong with a new object.
func (r *Rules) Create(ctx context.Context, obj runtime.Object) field.ErrorList {
	c, in, _, errs := r.prepare(obj, nil)
	if errs != nil {
		return errs
	}
	if c.create != nil {
		errs = c.create(in)
	}
	return r.declared(ctx, c, in, nil, errs, operation.Create)
}

// Update returns what is wrong with obj as the successor of old.
func (r *Rules) Update(ctx context.Context, obj, old runtime.Object) field.ErrorList {
	c, in, was, errs := r.prepare(obj, old)
	if errs != nil {
		return errs
	}
	if c.update != nil {
		errs = c.update(in, was)
	}
	return r.declared(ctx, c, in, was, errs, operation.Update)
}

// Part returns what is wrong with obj after a write to a subresource, such as
// "status", "finalize", "approval", "ephemeralcontainers" or "resize".
func (r *Rules) Part(ctx context.Context, subresource string, obj, old runtime.Object) field.ErrorList {
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
	return r.declared(ctx, c, in, was, errs, operation.Update)
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

// declared adds generated validation. It needs to know the request's version,
// so it is silent outside of a request.
func (r *Rules) declared(ctx context.Context, c check, in, was runtime.Object, errs field.ErrorList, op operation.Type) field.ErrorList {
	if _, ok := genericapirequest.RequestInfoFrom(ctx); !ok || !c.declared {
		return errs
	}
	if op == operation.Create {
		return rest.ValidateDeclarativelyWithMigrationChecks(ctx, r.hub, in, nil, errs, op)
	}
	return rest.ValidateDeclarativelyWithMigrationChecks(ctx, r.hub, in, was, errs, op)
}

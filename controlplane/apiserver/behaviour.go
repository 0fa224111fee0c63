package apiserver

import (
	"context"
	"reflect"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/names"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"perch/controlplane/api"
	"perch/controlplane/api/legal"
)

// behaviour is what a kind does beyond the common strategy. The zero value is a
// plain object.
type behaviour struct {
	create func(ctx context.Context, o runtime.Object)      // after status was cleared, before validation
	update func(ctx context.Context, o, old runtime.Object) // after status was copied from old
	status func(ctx context.Context, o, old runtime.Object) // after everything but status was copied from old
	fields func(o runtime.Object) fields.Set
	index  []string // field selectors answered from an index of the watch cache

	graceful func(o runtime.Object, options *metav1.DeleteOptions) bool
	ttl      uint64 // seconds an object lives, 0 for ever

	generation     bool // metadata.generation counts changes of the content
	keepStatus     bool // the creator may set status
	createOnUpdate bool // PUT may create
	conditional    bool // an update must carry the resource version
	canonical      bool // goes through Kubernetes' internal type before it is stored

	extra func(*installer, *genericregistry.Store, map[string]rest.Storage)
	wrap  func(*kindStore) rest.Storage
}

// on adapts a typed function.
func on[T runtime.Object](f func(ctx context.Context, o T)) func(context.Context, runtime.Object) {
	return func(ctx context.Context, o runtime.Object) { f(ctx, o.(T)) }
}

func onChange[T runtime.Object](f func(ctx context.Context, o, old T)) func(context.Context, runtime.Object, runtime.Object) {
	return func(ctx context.Context, o, old runtime.Object) { f(ctx, o.(T), old.(T)) }
}

func selectable[T runtime.Object](f func(o T) fields.Set) func(runtime.Object) fields.Set {
	return func(o runtime.Object) fields.Set { return f(o.(T)) }
}

// strategy is the one strategy of all kinds.
type strategy struct {
	names.NameGenerator
	runtime.ObjectTyper
	kind  api.Kind
	does  behaviour
	rules *legal.Rules
	part  string // subresource this strategy serves, "" for the object itself
	reset map[fieldpath.APIVersion]*fieldpath.Set
}

var (
	_ rest.RESTCreateStrategy              = strategy{}
	_ rest.RESTUpdateStrategy              = strategy{}
	_ rest.RESTGracefulDeleteStrategy      = strategy{}
	_ rest.GarbageCollectionDeleteStrategy = strategy{}
	_ rest.ResetFieldsStrategy             = strategy{}
)

func newStrategy(k api.Kind, does behaviour, rules *legal.Rules, served []schema.GroupVersion) strategy {
	s := strategy{NameGenerator: names.SimpleNameGenerator, ObjectTyper: rules.Scheme, kind: k, does: does, rules: rules}
	return s.forPart("", served)
}

// forPart is the strategy of a subresource. Served versions say where its reset
// fields apply.
func (s strategy) forPart(part string, served []schema.GroupVersion) strategy {
	s.part, s.reset = part, map[fieldpath.APIVersion]*fieldpath.Set{}
	set := fieldpath.NewSet()
	switch {
	case part == "status":
		set.Insert(fieldpath.MakePathOrDie("spec"))
	case part == "" && s.kind.Status && !s.does.keepStatus:
		set.Insert(fieldpath.MakePathOrDie("status"))
	}
	for _, gv := range served {
		s.reset[fieldpath.APIVersion(gv.String())] = set
	}
	return s
}

func (s strategy) NamespaceScoped() bool          { return s.kind.Namespaced }
func (s strategy) AllowCreateOnUpdate() bool      { return s.does.createOnUpdate && s.part == "" }
func (s strategy) AllowUnconditionalUpdate() bool { return !s.does.conditional }
func (s strategy) Canonicalize(runtime.Object)    {}

// GetResetFields names what a server-side apply does not own.
func (s strategy) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set { return s.reset }

// PrepareForCreate clears what a client may not set.
func (s strategy) PrepareForCreate(ctx context.Context, o runtime.Object) {
	if s.kind.Status && !s.does.keepStatus {
		clearField(o, "Status")
	}
	if s.does.generation {
		accessor(o).SetGeneration(1)
	}
	if s.does.create != nil {
		s.does.create(ctx, o)
	}
	s.canonicalize(o)
}

// PrepareForUpdate keeps the halves of an object apart: the object's own
// endpoint cannot write status, the status endpoint nothing else.
func (s strategy) PrepareForUpdate(ctx context.Context, o, old runtime.Object) {
	if s.part == "status" {
		keepContent(o, old)
		if s.does.status != nil {
			s.does.status(ctx, o, old)
		}
		return
	}
	if s.kind.Status {
		copyField(o, old, "Status")
	}
	if s.does.update != nil {
		s.does.update(ctx, o, old)
	}
	s.canonicalize(o)
	if s.does.generation {
		m, was := accessor(o), accessor(old)
		m.SetGeneration(was.GetGeneration())
		if !sameContent(o, old) {
			m.SetGeneration(was.GetGeneration() + 1)
		}
	}
}

func (s strategy) canonicalize(o runtime.Object) {
	if !s.does.canonical {
		return
	}
	if err := s.rules.Canonicalize(o); err != nil {
		panic("BUG: " + err.Error())
	}
}

// Validate asks Kubernetes' own rules.
func (s strategy) Validate(ctx context.Context, o runtime.Object) field.ErrorList {
	return s.rules.Create(ctx, o)
}

// ValidateUpdate asks Kubernetes' own rules.
func (s strategy) ValidateUpdate(ctx context.Context, o, old runtime.Object) field.ErrorList {
	if s.part != "" {
		return s.rules.Part(ctx, s.part, o, old)
	}
	return s.rules.Update(ctx, o, old)
}

// WarningsOnCreate tells, too, that nothing acts on the kind yet.
func (s strategy) WarningsOnCreate(ctx context.Context, o runtime.Object) []string {
	return append(s.idleWarning(o), s.rules.Warnings(ctx, o, nil)...)
}

// WarningsOnUpdate tells, too, that nothing acts on the kind yet.
func (s strategy) WarningsOnUpdate(ctx context.Context, o, old runtime.Object) []string {
	if s.part != "" {
		return nil
	}
	return append(s.idleWarning(o), s.rules.Warnings(ctx, o, old)...)
}

// CheckGracefulDelete lets a kind set the grace period.
func (s strategy) CheckGracefulDelete(_ context.Context, o runtime.Object, options *metav1.DeleteOptions) bool {
	return s.does.graceful != nil && s.does.graceful(o, options)
}

// accessor is the metadata of an object; all our types have it.
func accessor(o runtime.Object) metav1.Object {
	m, err := meta.Accessor(o)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return m
}

func clearField(o runtime.Object, name string) {
	if f := reflect.ValueOf(o).Elem().FieldByName(name); f.IsValid() {
		f.SetZero()
	}
}

func copyField(to, from runtime.Object, name string) {
	if f := reflect.ValueOf(to).Elem().FieldByName(name); f.IsValid() {
		f.Set(reflect.ValueOf(from).Elem().FieldByName(name))
	}
}

// apart are the fields of an object that are not its content.
func apart(name string) bool { return name == "TypeMeta" || name == "ObjectMeta" || name == "Status" }

// keepContent copies everything but metadata and status.
func keepContent(to, from runtime.Object) {
	t, f := reflect.ValueOf(to).Elem(), reflect.ValueOf(from).Elem()
	for i := range t.NumField() {
		if !apart(t.Type().Field(i).Name) {
			t.Field(i).Set(f.Field(i))
		}
	}
}

// sameContent compares everything but metadata and status.
func sameContent(a, b runtime.Object) bool {
	x, y := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	for i := range x.NumField() {
		if !apart(x.Type().Field(i).Name) && !equality.Semantic.DeepEqual(x.Field(i).Interface(), y.Field(i).Interface()) {
			return false
		}
	}
	return true
}

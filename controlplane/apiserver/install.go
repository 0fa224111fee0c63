package apiserver

import (
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"perch/controlplane/api"
	"perch/controlplane/api/legal"
)

// installer turns the table of kinds into REST storage.
type installer struct {
	rules    *legal.Rules
	options  generic.RESTOptionsGetter
	agents   *agents
	services *allocator
	tokens   rest.Storage // serviceaccounts/token, may be nil

	stores map[schema.GroupResource]*genericregistry.Store
	served map[schema.GroupVersion]map[string]rest.Storage
	order  []schema.GroupVersion
}

// home is where a kind is stored when it is served in two places.
func home(gr schema.GroupResource) schema.GroupResource {
	if gr.Group == "events.k8s.io" {
		return schema.GroupResource{Resource: gr.Resource}
	}
	return gr
}

// install serves every kind of the table.
func (i *installer) install(kinds []api.Kind) error {
	does := behaviours()
	for _, k := range kinds {
		if i.served[k.GroupVersion] == nil {
			i.served[k.GroupVersion] = map[string]rest.Storage{}
			i.order = append(i.order, k.GroupVersion)
		}
		gr := k.GVR().GroupResource()
		if first, ok := i.stores[home(gr)]; ok {
			i.share(k, first)
			continue
		}
		var versions []schema.GroupVersion
		for _, other := range kinds {
			if home(other.GVR().GroupResource()) == gr {
				versions = append(versions, other.GroupVersion)
			}
		}
		if err := i.add(k, does[k.GVK().GroupKind()], versions); err != nil {
			return fmt.Errorf("install %s: %w", gr, err)
		}
	}
	return nil
}

// share serves a kind a second time under another group or version.
func (i *installer) share(k api.Kind, store *genericregistry.Store) {
	parts := i.served[k.GroupVersion]
	parts[k.Plural] = &kindStore{Store: store, kind: k}
	if k.Status {
		parts[k.Plural+"/status"] = i.statusOf(store, i.versionsOf(store))
	}
}

func (i *installer) versionsOf(store *genericregistry.Store) []schema.GroupVersion {
	var out []schema.GroupVersion
	for v := range i.strategyOf(store).reset {
		gv, err := schema.ParseGroupVersion(string(v))
		if err == nil {
			out = append(out, gv)
		}
	}
	return out
}

// strategyOf is the strategy a store was built with.
func (i *installer) strategyOf(store *genericregistry.Store) strategy {
	return store.CreateStrategy.(strategy)
}

func (i *installer) add(k api.Kind, does behaviour, versions []schema.GroupVersion) error {
	make := func(kind string) func() runtime.Object {
		return func() runtime.Object {
			o, err := i.rules.Scheme.New(k.WithKind(kind))
			if err != nil {
				panic("BUG: " + err.Error())
			}
			return o
		}
	}
	attributes := func(o runtime.Object) (labels.Set, fields.Set, error) {
		m := accessor(o)
		set := fields.Set{"metadata.name": m.GetName()}
		if k.Namespaced {
			set["metadata.namespace"] = m.GetNamespace()
		}
		if does.fields != nil {
			for name, v := range does.fields(o) {
				set[name] = v
			}
		}
		return labels.Set(m.GetLabels()), set, nil
	}
	s := newStrategy(k, does, i.rules, versions)
	store := &genericregistry.Store{
		NewFunc: make(k.Kind), NewListFunc: make(k.Kind + "List"),
		DefaultQualifiedResource:  k.GVR().GroupResource(),
		SingularQualifiedResource: schema.GroupResource{Group: k.Group, Resource: k.Singular()},
		CreateStrategy:            s, UpdateStrategy: s, DeleteStrategy: s, ResetFieldsStrategy: s,
		TableConvertor:      newTable(k),
		ReturnDeletedObject: k.Kind == "Pod" || k.Kind == "Service" || k.Kind == "Namespace" || k.Kind == "ServiceAccount" || k.Kind == "PersistentVolumeClaim" || k.Kind == "PersistentVolume" || k.Kind == "ResourceQuota" || k.Kind == "PodTemplate",
		PredicateFunc: func(l labels.Selector, f fields.Selector) storage.SelectionPredicate {
			return storage.SelectionPredicate{Label: l, Field: f, GetAttrs: attributes, IndexFields: does.index}
		},
	}
	if does.ttl > 0 {
		store.TTLFunc = func(_ runtime.Object, existing uint64, _ bool) (uint64, error) {
			if existing > 0 {
				return existing, nil
			}
			return does.ttl, nil
		}
	}
	opts := &generic.StoreOptions{RESTOptions: i.options, AttrFunc: attributes}
	for _, name := range does.index {
		if opts.TriggerFunc == nil {
			opts.TriggerFunc = map[string]storage.IndexerFunc{}
		}
		opts.TriggerFunc[name] = func(o runtime.Object) string { return does.fields(o)[name] }
	}
	if err := store.CompleteWithOptions(opts); err != nil {
		return err
	}
	i.stores[k.GVR().GroupResource()] = store
	parts := i.served[k.GroupVersion]
	main := &kindStore{Store: store, kind: k}
	parts[k.Plural] = main
	if does.wrap != nil {
		parts[k.Plural] = does.wrap(main)
	}
	if k.Status {
		parts[k.Plural+"/status"] = i.statusOf(store, versions)
	}
	if k.Scale {
		parts[k.Plural+"/scale"] = newScale(store, k, i.rules)
	}
	if does.extra != nil {
		does.extra(i, store, parts)
	}
	return nil
}

func (i *installer) statusOf(store *genericregistry.Store, versions []schema.GroupVersion) rest.Storage {
	status := *store
	s := i.strategyOf(store).forPart("status", versions)
	status.UpdateStrategy, status.ResetFieldsStrategy = s, s
	status.BeginUpdate, status.AfterUpdate = nil, nil
	return &partStore{store: &status}
}

// kindStore adds what discovery says about a kind.
type kindStore struct {
	*genericregistry.Store
	kind api.Kind
}

var (
	_ rest.StandardStorage      = (*kindStore)(nil)
	_ rest.ShortNamesProvider   = (*kindStore)(nil)
	_ rest.CategoriesProvider   = (*kindStore)(nil)
	_ rest.SingularNameProvider = (*kindStore)(nil)
)

// ShortNames are what a user may type.
func (k *kindStore) ShortNames() []string { return slices.Clone(k.kind.Short) }

// Categories are groups such as "all".
func (k *kindStore) Categories() []string { return slices.Clone(k.kind.Categories) }

// GetSingularName is what a user may type, too.
func (k *kindStore) GetSingularName() string { return k.kind.Singular() }

// NamespaceScoped tells where the kind lives.
func (k *kindStore) NamespaceScoped() bool { return k.kind.Namespaced }

// partStore serves get, update and patch of a subresource; it shares the storage
// of its parent and differs in strategy.
type partStore struct{ store *genericregistry.Store }

var (
	_ rest.Patcher             = (*partStore)(nil)
	_ rest.ResetFieldsStrategy = (*partStore)(nil)
)

// New is an empty object of the parent kind.
func (p *partStore) New() runtime.Object { return p.store.New() }

// Destroy leaves the shared storage alone.
func (p *partStore) Destroy() {}

// Get reads the whole object.
func (p *partStore) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return p.store.Get(ctx, name, options)
}

// Update writes the part; it never creates.
func (p *partStore) Update(ctx context.Context, name string, want rest.UpdatedObjectInfo, create rest.ValidateObjectFunc, update rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return p.store.Update(ctx, name, want, create, update, false, options)
}

// GetResetFields names what a server-side apply of this part does not own.
func (p *partStore) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return p.store.GetResetFields()
}

// ConvertToTable prints the parent's columns.
func (p *partStore) ConvertToTable(ctx context.Context, o, options runtime.Object) (*metav1.Table, error) {
	return p.store.ConvertToTable(ctx, o, options)
}

package apiserver

import (
	"fmt"
	"maps"
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	extensioninformers "k8s.io/apiextensions-apiserver/pkg/client/informers/externalversions"
	openapiv2 "k8s.io/apiextensions-apiserver/pkg/controller/openapi"
	"k8s.io/apiextensions-apiserver/pkg/controller/openapiv3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	kubeversion "k8s.io/apimachinery/pkg/version"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// newExtensions is the server of CustomResourceDefinitions. It answers whatever
// path our own groups do not.
func newExtensions(cfg genericapiserver.Config, f informers.SharedInformerFactory, options *storageOptions) (*apiextensionsapiserver.CustomResourceDefinitions, error) {
	cfg.PostStartHooks = map[string]genericapiserver.PostStartHookConfigEntry{} // ours run once, in the front server
	cfg.MergedResourceConfig = apiextensionsapiserver.DefaultAPIResourceConfigSource()
	cfg.RESTOptionsGetter = definitionOptions{options}
	cfg.Serializer = apiextensionsapiserver.Codecs
	services, err := newServiceResolver(f)
	if err != nil {
		return nil, err
	}
	// Post-start hooks of the front server wait for the shared informers, too.
	c := &apiextensionsapiserver.Config{
		GenericConfig: &genericapiserver.RecommendedConfig{Config: cfg, SharedInformerFactory: f},
		ExtraConfig: apiextensionsapiserver.ExtraConfig{
			CRDRESTOptionsGetter: customOptions{options}, MasterCount: 1,
			AuthResolverWrapper: webhook.NewDefaultAuthenticationInfoResolverWrapper(nil, nil, cfg.LoopbackClientConfig, nil),
			ServiceResolver:     services,
		},
	}
	s, err := c.Complete().New(genericapiserver.NewEmptyDelegate())
	if err != nil {
		return nil, fmt.Errorf("build extension server: %w", err)
	}
	return s, nil
}

// serveSchemas merges the schemas of custom resources into the front server's
// OpenAPI v3, where kubectl explain looks. It returns when stop closes.
func serveSchemas(front *genericapiserver.GenericAPIServer, f extensioninformers.SharedInformerFactory, stop <-chan struct{}) {
	c := openapiv3.NewController(f.Apiextensions().V1().CustomResourceDefinitions())
	c.Run(front.OpenAPIV3VersionedService, stop)
}

// serveOldSchemas does the same for OpenAPI v2, which clients before 1.24 read.
func serveOldSchemas(front *genericapiserver.GenericAPIServer, f extensioninformers.SharedInformerFactory, stop <-chan struct{}) {
	c := openapiv2.NewController(f.Apiextensions().V1().CustomResourceDefinitions())
	c.Run(front.StaticOpenAPISpec, front.OpenAPIVersionedService, stop)
}

// extensionGroups lists the groups of established definitions in the front
// server's /apis, where clients look that do not know aggregated discovery.
type extensionGroups struct {
	front    *genericapiserver.GenericAPIServer
	informer cache.SharedIndexInformer
	list     func() ([]*apiextensionsv1.CustomResourceDefinition, error)
	own      map[string]bool // groups that the table serves
	known    map[string]bool // what this loop added
	changed  chan struct{}
}

func newExtensionGroups(front *genericapiserver.GenericAPIServer, f extensioninformers.SharedInformerFactory, own map[string]bool) (*extensionGroups, error) {
	crds := f.Apiextensions().V1().CustomResourceDefinitions()
	e := &extensionGroups{
		front: front, informer: crds.Informer(), own: own, known: map[string]bool{}, changed: make(chan struct{}, 1),
		list: func() ([]*apiextensionsv1.CustomResourceDefinition, error) {
			return crds.Lister().List(labels.Everything())
		},
	}
	// The definitions' own group comes from the server behind the front one.
	v := metav1.GroupVersionForDiscovery{GroupVersion: apiextensionsv1.SchemeGroupVersion.String(), Version: apiextensionsv1.SchemeGroupVersion.Version}
	front.DiscoveryGroupManager.AddGroup(metav1.APIGroup{Name: apiextensionsv1.GroupName, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v})
	wake := func(any) {
		select {
		case e.changed <- struct{}{}:
		default: // a pass is already due
		}
	}
	_, err := e.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: wake, UpdateFunc: func(_, o any) { wake(o) }, DeleteFunc: wake,
	})
	if err != nil {
		return nil, fmt.Errorf("watch definitions: %w", err)
	}
	return e, nil
}

// run follows the definitions until stop closes.
func (e *extensionGroups) run(stop <-chan struct{}) {
	if !cache.WaitForCacheSync(stop, e.informer.HasSynced) {
		return
	}
	for {
		e.pass()
		select {
		case <-stop:
			return
		case <-e.changed:
		}
	}
}

func (e *extensionGroups) pass() {
	crds, err := e.list()
	if err != nil {
		return // a lister's only error is a wrong selector
	}
	want := discoveredGroups(crds)
	for name := range e.known {
		if _, ok := want[name]; !ok {
			e.front.DiscoveryGroupManager.RemoveGroup(name)
			delete(e.known, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if e.own[name] {
			continue
		}
		e.front.DiscoveryGroupManager.AddGroup(want[name])
		e.known[name] = true
	}
}

// discoveredGroups is what /apis says about established definitions.
func discoveredGroups(crds []*apiextensionsv1.CustomResourceDefinition) map[string]metav1.APIGroup {
	versions := map[string]map[string]bool{}
	for _, crd := range crds {
		established := slices.ContainsFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
			return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
		})
		if !established {
			continue
		}
		for _, v := range crd.Spec.Versions {
			if !v.Served {
				continue
			}
			if versions[crd.Spec.Group] == nil {
				versions[crd.Spec.Group] = map[string]bool{}
			}
			versions[crd.Spec.Group][v.Name] = true
		}
	}
	out := map[string]metav1.APIGroup{}
	for name, served := range versions {
		g := metav1.APIGroup{Name: name}
		for _, v := range slices.SortedFunc(maps.Keys(served), func(a, b string) int { return -kubeversion.CompareKubeAwareVersionStrings(a, b) }) {
			g.Versions = append(g.Versions, metav1.GroupVersionForDiscovery{GroupVersion: name + "/" + v, Version: v})
		}
		g.PreferredVersion = g.Versions[0]
		out[name] = g
	}
	return out
}

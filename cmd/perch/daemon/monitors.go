package daemon

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"perch/metrics/target"
)

// scrapeKinds are the kinds of objects that ask for scrapes.
func scrapeKinds() map[string]schema.GroupVersionResource {
	kind := func(version, resource string) schema.GroupVersionResource {
		return schema.GroupVersionResource{Group: "monitoring.coreos.com", Version: version, Resource: resource}
	}
	return map[string]schema.GroupVersionResource{
		target.ServiceMonitor: kind("v1", "servicemonitors"), target.PodMonitor: kind("v1", "podmonitors"),
		target.Probe: kind("v1", "probes"), target.ScrapeConfig: kind("v1alpha1", "scrapeconfigs"),
	}
}

// scrapeObjects keeps the objects of all namespaces that ask for scrapes.
type scrapeObjects struct {
	watched map[string]*watchedObjects // by kind

	mu   sync.Mutex
	read map[string]readObject // by kind, namespace and name
}

type readObject struct {
	version string
	object  target.Object
}

// watchScrapeObjects is for servers: a worker may not read these objects and is
// told its own part of them, see metrics/assign.
func (r role) watchScrapeObjects(client dynamic.Interface, changed func()) (*scrapeObjects, error) {
	s := &scrapeObjects{watched: map[string]*watchedObjects{}, read: map[string]readObject{}}
	for kind, resource := range scrapeKinds() {
		w := watchObjects(client, resource, r.part("objects"))
		if err := onChange(w.informer, changed); err != nil {
			return nil, err
		}
		s.watched[kind] = w
		r.group.Go(resource.Resource, w.Run)
	}
	return s, nil
}

func onChange(i cache.SharedIndexInformer, changed func()) error {
	_, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) { changed() }, UpdateFunc: func(any, any) { changed() }, DeleteFunc: func(any) { changed() }})
	return err
}

// known answers whether all objects were read once.
func (s *scrapeObjects) known() bool {
	for _, w := range s.watched {
		if !w.informer.HasSynced() {
			return false
		}
	}
	return true
}

// list are the objects as they are now, sorted.
func (s *scrapeObjects) list() []target.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []target.Object
	now := map[string]readObject{}
	for kind, w := range s.watched {
		for _, o := range w.informer.GetStore().List() {
			u, ok := o.(*unstructured.Unstructured)
			if !ok {
				continue
			}
			key := kind + "/" + u.GetNamespace() + "/" + u.GetName()
			have, known := s.read[key]
			if !known || have.version != u.GetResourceVersion() {
				have = readObject{u.GetResourceVersion(), scrapeObject(kind, u)}
			}
			now[key] = have
			out = append(out, have.object)
		}
	}
	s.read = now
	slices.SortFunc(out, func(a, b target.Object) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return out
}

func scrapeObject(kind string, u *unstructured.Unstructured) target.Object {
	text, err := json.Marshal(u.Object["spec"])
	if err != nil {
		text = []byte(err.Error()) // no JSON: the object is listed as broken
	}
	return target.Read(kind, u.GetNamespace(), u.GetName(), text)
}

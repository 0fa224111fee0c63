package agent

import (
	"context"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// mirror is a copy of some objects of the API, kept by list and watch. Unlike
// client-go's informers it comes back within seconds after the API was away.
type mirror[T metav1.Object] struct {
	// changed is told of each object that came, changed (gone false) or went, one
	// at a time and in order.
	changed func(object T, gone bool)
	from    *cache.Reflector
	synced  chan struct{}
	once    sync.Once

	mu   sync.Mutex // guards have
	have map[string]T
}

// comeback is how often an API that is away is asked.
var comeback = wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 6, Cap: 3 * time.Second}

// source lists and watches; the options carry what it must add its selector to.
type source struct {
	list  func(ctx context.Context, opts metav1.ListOptions) (kruntime.Object, error)
	watch func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
}

func newMirror[T interface {
	metav1.Object
	kruntime.Object
}](api kubernetes.Interface, name, fieldSelector string, example T, src source, changed func(T, bool)) *mirror[T] {
	m := &mirror[T]{changed: changed, synced: make(chan struct{}), have: map[string]T{}}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (kruntime.Object, error) {
			opts.FieldSelector = fieldSelector
			return src.list(ctx, opts)
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			opts.FieldSelector = fieldSelector
			return src.watch(ctx, opts)
		},
	}
	backoff := comeback
	m.from = cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(lw, api), example, mirrorStore[T]{m}, cache.ReflectorOptions{Name: name, Backoff: &backoff})
	return m
}

// run keeps the mirror until ctx ends.
func (m *mirror[T]) run(ctx context.Context) { m.from.RunWithContext(ctx) }

// wait waits for the first complete list, and says whether there was one.
func (m *mirror[T]) wait(ctx context.Context) bool {
	select {
	case <-m.synced:
		return true
	default:
	}
	select {
	case <-m.synced:
		return true
	case <-ctx.Done():
		return false
	}
}

// get returns one object by namespace and name.
func (m *mirror[T]) get(namespace, name string) (T, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.have[namespace+"/"+name]
	return t, ok
}

// all returns the objects in no order.
func (m *mirror[T]) all() []T {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]T, 0, len(m.have))
	for _, t := range m.have {
		out = append(out, t)
	}
	return out
}

// mirrorStore is what the reflector writes to. It calls in one goroutine.
type mirrorStore[T metav1.Object] struct{ m *mirror[T] }

func (s mirrorStore[T]) set(t T, gone bool) {
	key := t.GetNamespace() + "/" + t.GetName()
	s.m.mu.Lock()
	old, had := s.m.have[key]
	if gone {
		delete(s.m.have, key)
	} else {
		s.m.have[key] = t
	}
	s.m.mu.Unlock()
	if had && old.GetUID() != t.GetUID() {
		s.m.changed(old, true) // another object of the same name
	}
	s.m.changed(t, gone)
}

// Add implements cache.ReflectorStore.
func (s mirrorStore[T]) Add(obj any) error { s.set(obj.(T), false); return nil }

// Update implements cache.ReflectorStore.
func (s mirrorStore[T]) Update(obj any) error { s.set(obj.(T), false); return nil }

// Delete implements cache.ReflectorStore.
func (s mirrorStore[T]) Delete(obj any) error { s.set(obj.(T), true); return nil }

// Replace implements cache.ReflectorStore.
func (s mirrorStore[T]) Replace(list []any, _ string) error {
	now := map[string]bool{}
	for _, obj := range list {
		t := obj.(T)
		key := t.GetNamespace() + "/" + t.GetName()
		now[key] = true
		s.m.mu.Lock()
		old, had := s.m.have[key]
		s.m.mu.Unlock()
		if !had || old.GetResourceVersion() != t.GetResourceVersion() || old.GetUID() != t.GetUID() {
			s.set(t, false)
		}
	}
	for _, t := range s.m.all() {
		if !now[t.GetNamespace()+"/"+t.GetName()] {
			s.set(t, true)
		}
	}
	s.m.once.Do(func() { close(s.m.synced) })
	return nil
}

// Resync implements cache.ReflectorStore.
func (s mirrorStore[T]) Resync() error { return nil }

package main

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
)

// newAPI is client-go's fake, but for pods' watchers: the fake's own panic when
// a hundred events wait.
func newAPI() *fake.Clientset {
	api := fake.NewSimpleClientset() // the other keeps managed fields, at half of all CPU time
	var watchers []*queue
	answer := k8stesting.ObjectReaction(api.Tracker())
	api.PrependReactor("*", "pods", func(a k8stesting.Action) (bool, kruntime.Object, error) { // one at a time
		kind := map[string]watch.EventType{"create": watch.Added, "update": watch.Modified, "patch": watch.Modified, "delete": watch.Deleted}[a.GetVerb()]
		var obj kruntime.Object
		if d, ok := a.(k8stesting.DeleteAction); ok {
			obj, _ = api.Tracker().Get(a.GetResource(), a.GetNamespace(), d.GetName(), metav1.GetOptions{}) // if it is not there, answer says so
		}
		handled, out, err := answer(a)
		if err == nil && kind != "" {
			if kind != watch.Deleted {
				obj = out
			}
			for _, w := range watchers {
				w.put(watch.Event{Type: kind, Object: obj.DeepCopyObject()})
			}
		}
		return handled, out, err
	})
	api.PrependWatchReactor("pods", func(a k8stesting.Action) (bool, watch.Interface, error) {
		w := &queue{out: make(chan watch.Event), stopped: make(chan struct{}), more: make(chan struct{}, 1)}
		list, err := api.Tracker().List(a.GetResource(), corev1.SchemeGroupVersion.WithKind("Pod"), a.GetNamespace())
		if err != nil {
			return true, nil, err
		}
		for _, p := range list.(*corev1.PodList).Items { // made since the watcher listed them
			w.put(watch.Event{Type: watch.Added, Object: &p})
		}
		watchers = append(watchers, w)
		go w.run()
		return true, w, nil
	})
	return api
}

// queue is a watch that takes any number of events.
type queue struct {
	out     chan watch.Event
	stopped chan struct{}
	more    chan struct{}
	once    sync.Once

	mu   sync.Mutex // guards what follows
	wait []watch.Event
}

func (q *queue) ResultChan() <-chan watch.Event { return q.out }
func (q *queue) Stop()                          { q.once.Do(func() { close(q.stopped) }) }

func (q *queue) put(e watch.Event) {
	select {
	case <-q.stopped:
		return
	default:
	}
	q.mu.Lock()
	q.wait = append(q.wait, e)
	q.mu.Unlock()
	select {
	case q.more <- struct{}{}:
	default:
	}
}

func (q *queue) run() {
	defer close(q.out)
	for {
		q.mu.Lock()
		batch := q.wait
		q.wait = nil
		q.mu.Unlock()
		for _, e := range batch {
			select {
			case q.out <- e:
			case <-q.stopped:
				return
			}
		}
		select {
		case <-q.more:
		case <-q.stopped:
			return
		}
	}
}

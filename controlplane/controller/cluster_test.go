package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"perch/controlplane/controller/reconcile"
	"perch/controlplane/event"
)

// world is a fake API server with some controllers, and a kubelet that runs every
// pod it sees. It lives inside a synctest bubble.
type world struct {
	t      *testing.T
	client *fake.Clientset
	ctx    context.Context

	mu     sync.Mutex
	told   []event.Record
	number int
	behave func(pod *corev1.Pod) *corev1.PodStatus
	hooks  []clienttesting.ReactionFunc
}

// behaves decides what the kubelet makes of a pod; nil leaves it as it is.
func (w *world) behaves(how func(pod *corev1.Pod) *corev1.PodStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.behave = how
}

// intercept lets f see, and refuse, a verb on a resource while the world runs.
func (w *world) intercept(verb, resource string, f clienttesting.ReactionFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hooks = append(w.hooks, func(action clienttesting.Action) (bool, runtime.Object, error) {
		if action.GetVerb() != verb || action.GetResource().Resource != resource {
			return false, nil, nil
		}
		return f(action)
	})
}

// newWorld names and stamps created objects as the API server does, with
// optimistic locking for everything the fake tracker stores.
func newWorld(t *testing.T, build func(deps) []*reconcile.Controller, objects ...runtime.Object) *world {
	t.Helper()
	w := &world{t: t, client: fake.NewClientset(), behave: running}
	w.client.PrependReactor("create", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		create, ok := action.(clienttesting.CreateAction)
		if !ok || action.GetSubresource() != "" {
			return false, nil, nil
		}
		if o, err := meta.Accessor(create.GetObject()); err == nil {
			w.stamp(o)
		}
		return false, nil, nil
	})
	w.client.PrependReactor("update", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		o, err := meta.Accessor(action.(clienttesting.UpdateAction).GetObject())
		if err != nil {
			return false, nil, nil
		}
		have, err := w.client.Tracker().Get(action.GetResource(), action.GetNamespace(), o.GetName())
		if err != nil {
			return true, nil, err
		}
		old, err := meta.Accessor(have)
		if err != nil || old.GetResourceVersion() != o.GetResourceVersion() {
			return true, nil, apierrors.NewConflict(action.GetResource().GroupResource(), o.GetName(), errors.New("the object has been modified"))
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.number++
		o.SetResourceVersion(fmt.Sprint(w.number))
		return false, nil, nil
	})
	w.client.PrependReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		w.mu.Lock()
		hooks := w.hooks
		w.mu.Unlock()
		for _, hook := range hooks {
			if handled, object, err := hook(action); handled {
				return true, object, err
			}
		}
		return false, nil, nil
	})
	for _, object := range objects {
		o, err := meta.Accessor(object)
		if err != nil {
			t.Fatal(err)
		}
		w.stamp(o)
		if err := w.client.Tracker().Add(object); err != nil {
			t.Fatal(err)
		}
	}
	factory := reconcile.NewInformers(w.client)
	d := deps{cfg: Default(), kube: w.client, informers: factory, tell: w.tell, log: slog.New(slog.DiscardHandler)}
	set := &Set{loops: build(d), log: d.log, metrics: reconcile.NewMetrics(prometheus.NewRegistry())}
	ctx, cancel := context.WithCancel(context.Background())
	w.ctx = ctx
	w.kubelet(factory)
	snapshot, loops := make(chan error, 1), make(chan error, 1)
	go func() { snapshot <- reconcile.RunInformers(factory)(ctx) }()
	go func() { loops <- set.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-loops; err != nil {
			t.Error(err)
		}
		<-snapshot
	})
	return w
}

func (w *world) stamp(o metav1.Object) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.number++
	if o.GetName() == "" {
		o.SetName(fmt.Sprintf("%s%04d", o.GetGenerateName(), w.number))
	}
	if o.GetUID() == "" {
		o.SetUID(types.UID(fmt.Sprint("uid-", w.number)))
	}
	o.SetResourceVersion(fmt.Sprint(w.number))
	if t := o.GetCreationTimestamp(); t.IsZero() {
		o.SetCreationTimestamp(metav1.Now())
	}
}

func (w *world) tell(r event.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, r)
}

func (w *world) heard(reason, part string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.told {
		if r.Reason == reason && strings.Contains(r.Message, part) {
			return true
		}
	}
	return false
}

// kubelet gives pods a status one bubble second after they were created.
func (w *world) kubelet(factory informers.SharedInformerFactory) {
	pods := reconcile.Controller{
		Name:    "kubelet",
		Sources: []reconcile.Source{{Informer: factory.Core().V1().Pods().Informer()}},
		Reconcile: func(ctx context.Context, key reconcile.Key) (time.Duration, error) {
			pod, err := w.client.CoreV1().Pods(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
			if err != nil || podFinished(pod) {
				return 0, nil
			}
			if wait := time.Until(pod.CreationTimestamp.Add(time.Second)); wait > 0 {
				return wait, nil
			}
			w.mu.Lock()
			behave := w.behave
			w.mu.Unlock()
			status := behave(pod)
			if status == nil || status.Phase == pod.Status.Phase && podReady(&corev1.Pod{Status: *status}) == podReady(pod) {
				return 0, nil
			}
			pod.Status = *status
			_, err = w.client.CoreV1().Pods(key.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
			return 0, err
		},
	}
	done := make(chan error, 1)
	go func() { done <- pods.Run(w.ctx, slog.New(slog.DiscardHandler), reconcile.NewMetrics(nil)) }()
	w.t.Cleanup(func() { <-done })
}

func running(pod *corev1.Pod) *corev1.PodStatus {
	return &corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: fmt.Sprintf("10.42.0.%d", len(pod.UID)),
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}},
	}
}

func stuck(*corev1.Pod) *corev1.PodStatus { return &corev1.PodStatus{Phase: corev1.PodPending} }

func (w *world) pods(selector string) []corev1.Pod {
	w.t.Helper()
	s, err := labels.Parse(selector)
	if err != nil {
		w.t.Fatal(err)
	}
	// Straight from the tracker: reactors, which call this, hold the client's lock.
	list, err := w.client.Tracker().List(corev1.SchemeGroupVersion.WithResource("pods"), corev1.SchemeGroupVersion.WithKind("Pod"), "shop")
	if err != nil {
		w.t.Fatal(err)
	}
	var out []corev1.Pod
	for _, p := range list.(*corev1.PodList).Items {
		if s.Matches(labels.Set(p.Labels)) {
			out = append(out, p)
		}
	}
	return out
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func ref[T any](v T) *T { return &v }

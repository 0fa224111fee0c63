package scheduler

import (
	"context"
	"errors"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	toolscache "k8s.io/client-go/tools/cache"
)

// sources are the informers a scheduler follows.
type sources struct {
	pods, nodes, namespaces, claims, volumes toolscache.SharedIndexInformer
}

// follow feeds cache and queue until stop is called.
func (f sources) follow(s *Scheduler) (stop func(), synced []toolscache.InformerSynced, err error) {
	var stops []func()
	stop = func() {
		for _, fn := range stops {
			fn()
		}
	}
	add := func(informer toolscache.SharedIndexInformer, handler toolscache.ResourceEventHandler) {
		handle, addErr := informer.AddEventHandler(handler)
		if addErr != nil {
			err = errors.Join(err, addErr)
			return
		}
		stops = append(stops, func() { _ = informer.RemoveEventHandler(handle) }) // fails only when the informer has ended
		synced = append(synced, handle.HasSynced)
	}
	add(f.pods, toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { s.sawPod(nil, as[*corev1.Pod](o)) },
		UpdateFunc: func(old, o any) { s.sawPod(as[*corev1.Pod](old), as[*corev1.Pod](o)) },
		DeleteFunc: func(o any) { s.lostPod(as[*corev1.Pod](o)) },
	})
	add(f.nodes, toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { s.sawNode(nil, as[*corev1.Node](o)) },
		UpdateFunc: func(old, o any) { s.sawNode(as[*corev1.Node](old), as[*corev1.Node](o)) },
		DeleteFunc: func(o any) {
			if node := as[*corev1.Node](o); node != nil {
				s.cache.dropNode(node.Name)
			}
		},
	})
	wake := toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { s.queue.wake() },
		UpdateFunc: func(any, any) { s.queue.wake() },
	}
	add(f.namespaces, toolscache.ResourceEventHandlerFuncs{})
	add(f.claims, wake)
	add(f.volumes, wake)
	return stop, synced, err
}

func as[T any](object any) T {
	if gone, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
		object = gone.Obj
	}
	out, _ := object.(T) // nil for what the informer cannot tell
	return out
}

func waitFor(ctx context.Context, synced []toolscache.InformerSynced) bool {
	return toolscache.WaitForCacheSync(ctx.Done(), synced...)
}

func (s *Scheduler) sawPod(old, pod *corev1.Pod) {
	switch {
	case pod == nil:
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		if s.cache.drop(pod.UID) { // its room is free again
			s.queue.wake()
		}
		s.queue.remove(pod.UID)
	case pod.Spec.NodeName != "":
		s.queue.remove(pod.UID)
		s.cache.put(pod, pod.Spec.NodeName)
		// Its labels may satisfy the affinity of a waiting pod; its resized requests may free room.
		if old == nil || old.Spec.NodeName == "" || !maps.Equal(old.Labels, pod.Labels) || !maps.Equal(Requests(old), Requests(pod)) {
			s.queue.wake()
		}
	case s.waits(pod):
		// Our own write of the condition must not shorten the wait.
		if old == nil || !s.waits(old) || !apiequality.Semantic.DeepEqual(old.Spec, pod.Spec) || !maps.Equal(old.Labels, pod.Labels) {
			s.queue.add(time.Now(), pod.UID, pod.Namespace, pod.Name, priorityOf(pod))
		}
	default:
		s.queue.remove(pod.UID)
	}
}

func (s *Scheduler) lostPod(pod *corev1.Pod) {
	if pod == nil {
		return
	}
	s.queue.remove(pod.UID)
	if s.cache.drop(pod.UID) {
		s.queue.wake()
	}
}

func (s *Scheduler) sawNode(old, node *corev1.Node) {
	if node == nil {
		return
	}
	s.cache.setNode(node)
	// Heartbeats change conditions only and help nobody.
	if old == nil || !maps.Equal(old.Labels, node.Labels) || !apiequality.Semantic.DeepEqual(old.Spec, node.Spec) ||
		!apiequality.Semantic.DeepEqual(old.Status.Allocatable, node.Status.Allocatable) {
		s.queue.wake()
	}
}

func priorityOf(pod *corev1.Pod) int32 {
	if pod.Spec.Priority == nil {
		return 0
	}
	return *pod.Spec.Priority
}

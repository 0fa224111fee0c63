package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"perch/agent/pod"
	"perch/agent/runtime"
)

// Run keeps the pods of this node until ctx ends. Containers go on running
// after that. It returns an error only if it cannot read what earlier agents
// left.
func (a *Agent) Run(ctx context.Context) error {
	known, err := a.manifests()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var parts, pods sync.WaitGroup
	a.mu.Lock()
	a.spawn = func(w *worker) { pods.Go(func() { a.keep(ctx, w) }) }
	a.mu.Unlock()
	defer func() {
		cancel()
		a.mu.Lock()
		a.spawn = nil
		a.mu.Unlock()
		pods.Wait()
		parts.Wait()
	}()
	for _, run := range []func(context.Context) error{a.objects.run, a.probes.Run, a.register, a.heartbeat, a.follow, a.sweepLogs} {
		parts.Go(func() { _ = run(ctx) }) // these end only with ctx
	}
	for _, p := range known {
		a.want(p)
	}
	informer := a.podInformer()
	parts.Go(func() { informer.RunWithContext(ctx) })
	parts.Go(func() { a.compare(ctx, informer) })
	<-ctx.Done()
	return nil
}

// keep runs a worker and forgets it once its pod is gone.
func (a *Agent) keep(ctx context.Context, w *worker) {
	w.run(ctx)
	if ctx.Err() != nil {
		return
	}
	a.probes.Keep(w.uid, nil)
	a.mu.Lock()
	delete(a.workers, w.uid)
	a.mu.Unlock()
	w.log.Debug("pod gone")
}

// want takes a pod from the API, or from what is left of it here.
func (a *Agent) want(p *corev1.Pod) {
	a.mu.Lock()
	w := a.workers[p.UID]
	if w == nil && a.spawn != nil {
		w = newWorker(a, p)
		a.workers[p.UID] = w
		a.spawn(w)
	}
	a.mu.Unlock()
	if w != nil {
		w.tell(func(in *inbox) { in.want, in.removed = p, false })
	}
}

// lost says that the API no longer has a pod.
func (a *Agent) lost(uid types.UID) {
	a.mu.Lock()
	w := a.workers[uid]
	a.mu.Unlock()
	if w != nil {
		w.tell(func(in *inbox) { in.removed = true })
	}
}

// podInformer watches the pods bound to this node.
func (a *Agent) podInformer() cache.SharedInformer {
	mine := fields.OneTermEqualSelector("spec.nodeName", a.cfg.Node).String()
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (kruntime.Object, error) {
			opts.FieldSelector = mine
			return a.parts.API.CoreV1().Pods("").List(ctx, opts)
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			opts.FieldSelector = mine
			return a.parts.API.CoreV1().Pods("").Watch(ctx, opts)
		},
	}
	informer := cache.NewSharedInformer(cache.ToListWatcherWithWatchListSemantics(lw, a.parts.API), &corev1.Pod{}, 0)
	take := func(obj any) {
		if p := obj.(*corev1.Pod); p.Spec.NodeName == a.cfg.Node {
			a.want(p)
		}
	}
	// The handler of a fresh informer cannot be refused.
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: take,
		UpdateFunc: func(old, obj any) {
			if was, is := old.(*corev1.Pod), obj.(*corev1.Pod); was.UID != is.UID {
				a.lost(was.UID)
			}
			take(obj)
		},
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			if p, ok := obj.(*corev1.Pod); ok {
				a.lost(p.UID)
			}
		},
	})
	return informer
}

// compare looks, once the API has told which pods there are, for what belongs
// to none of them: manifests, directories and sandboxes.
func (a *Agent) compare(ctx context.Context, informer cache.SharedInformer) {
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return
	}
	tick := time.NewTicker(a.cfg.Refresh)
	defer tick.Stop()
	for {
		wanted := map[types.UID]bool{}
		for _, obj := range informer.GetStore().List() {
			wanted[obj.(*corev1.Pod).UID] = true
		}
		if err := a.adoptSandboxes(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("sandboxes not compared", "err", err)
		}
		a.mu.Lock()
		var orphans []*worker
		for uid, w := range a.workers {
			if !wanted[uid] {
				orphans = append(orphans, w)
			}
		}
		a.mu.Unlock()
		for _, w := range orphans {
			w.tell(func(in *inbox) {
				in.removed = in.removed || len(in.want.Spec.Containers) == 0 || !a.appeared(informer, in.want)
			})
		}
		a.listed.Store(true)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// appeared says whether the API has the pod now: it may have come while the
// rest was compared.
func (a *Agent) appeared(informer cache.SharedInformer, p *corev1.Pod) bool {
	obj, ok, err := informer.GetStore().GetByKey(p.Namespace + "/" + p.Name)
	return err == nil && ok && obj.(*corev1.Pod).UID == p.UID
}

// adoptSandboxes gives every sandbox of the runtime a worker.
func (a *Agent) adoptSandboxes(ctx context.Context) error {
	list, err := a.parts.Runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return err
	}
	for _, s := range list {
		uid := types.UID(s.GetLabels()[pod.LabelUID])
		a.mu.Lock()
		_, known := a.workers[uid]
		a.mu.Unlock()
		if uid != "" && !known {
			a.log.Info("sandbox of an unknown pod found", "namespace", s.GetMetadata().GetNamespace(), "pod", s.GetMetadata().GetName(), "uid", uid)
			a.want(stub(uid, s.GetMetadata().GetNamespace(), s.GetMetadata().GetName()))
		}
	}
	return nil
}

// follow wakes workers when something of theirs changes in the runtime: by its
// events, and by comparing lists in case events were missed.
func (a *Agent) follow(ctx context.Context) error {
	var events sync.WaitGroup
	defer events.Wait()
	events.Go(func() {
		for ctx.Err() == nil {
			err := a.parts.Runtime.Events(ctx, func(e *cri.ContainerEventResponse) {
				if uid := e.GetPodSandboxStatus().GetMetadata().GetUid(); uid != "" {
					a.wake(types.UID(uid))
				}
			})
			if err != nil && !errors.Is(err, runtime.ErrUnavailable) {
				a.log.Debug("events of runtime ended", "err", err)
			}
			pause(ctx, a.cfg.Relist)
		}
	})
	tick := time.NewTicker(a.cfg.Relist)
	defer tick.Stop()
	old := map[string]listed{}
	for n := 0; ; n++ {
		start := time.Now()
		now, err := a.list(ctx)
		a.metrics.relist.Observe(time.Since(start).Seconds())
		if err != nil && ctx.Err() == nil {
			a.metrics.relistErrors.Inc()
		}
		if err == nil {
			for id, s := range now {
				if old[id] != s {
					a.wake(s.uid)
				}
			}
			for id, s := range old {
				if _, still := now[id]; !still {
					a.wake(s.uid)
				}
			}
			old = now
		}
		a.runtimeStatus(ctx, n)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// listed is the part of a container or sandbox whose change matters.
type listed struct {
	uid   types.UID
	state int32
}

func (a *Agent) list(ctx context.Context) (map[string]listed, error) {
	out := map[string]listed{}
	sandboxes, err := a.parts.Runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	for _, s := range sandboxes {
		out[s.GetId()] = listed{types.UID(s.GetLabels()[pod.LabelUID]), int32(s.GetState())}
	}
	containers, err := a.parts.Runtime.ListContainers(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	for _, c := range containers {
		out[c.GetId()] = listed{types.UID(c.GetLabels()[pod.LabelUID]), int32(c.GetState())}
	}
	return out, nil
}

// pause waits for a time or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

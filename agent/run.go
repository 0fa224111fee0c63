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
	wanted := a.podMirror()
	a.mu.Lock()
	a.wanted = wanted
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
		a.want(p, false)
	}
	parts.Go(func() { wanted.run(ctx) })
	parts.Go(func() { a.compare(ctx, wanted) })
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
	if p, there := a.wanted.get(w.want.Namespace, w.want.Name); there && p.UID == w.uid {
		a.ended[w.uid] = struct{}{}
	}
	a.mu.Unlock()
	w.log.Debug("pod gone")
}

// want takes a pod from the API (told), or from what is left of it here.
func (a *Agent) want(p *corev1.Pod, told bool) {
	a.mu.Lock()
	w := a.workers[p.UID]
	if _, ended := a.ended[p.UID]; w == nil && a.spawn != nil && !ended {
		w = newWorker(a, p)
		a.workers[p.UID] = w
		a.spawn(w)
	}
	a.mu.Unlock()
	if w != nil {
		w.tell(func(in *inbox) { in.want, in.told, in.removed = p, told, false })
	}
}

// lost says that the API no longer has a pod.
func (a *Agent) lost(uid types.UID) {
	a.mu.Lock()
	delete(a.ended, uid)
	w := a.workers[uid]
	a.mu.Unlock()
	if w != nil {
		w.tell(func(in *inbox) { in.removed = true })
	}
}

// podMirror watches the pods bound to this node.
func (a *Agent) podMirror() *mirror[*corev1.Pod] {
	pods := a.parts.API.CoreV1().Pods("")
	src := source{
		list:  func(ctx context.Context, o metav1.ListOptions) (kruntime.Object, error) { return pods.List(ctx, o) },
		watch: pods.Watch,
	}
	mine := fields.OneTermEqualSelector("spec.nodeName", a.cfg.Node).String()
	return newMirror(a.parts.API, "pods", mine, &corev1.Pod{}, src, func(p *corev1.Pod, gone bool) {
		switch {
		case gone:
			a.lost(p.UID)
		case p.Spec.NodeName == a.cfg.Node:
			a.want(p, true)
		}
	})
}

// compare looks, once the API has told which pods there are, for what belongs
// to none of them: manifests, directories and sandboxes.
func (a *Agent) compare(ctx context.Context, pods *mirror[*corev1.Pod]) {
	if !pods.wait(ctx) {
		return
	}
	tick := time.NewTicker(a.cfg.Refresh)
	defer tick.Stop()
	for {
		wanted := map[types.UID]bool{}
		for _, p := range pods.all() {
			wanted[p.UID] = true
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
				// It may have come while the rest was compared.
				now, there := pods.get(in.want.Namespace, in.want.Name)
				in.removed = in.removed || !there || now.UID != in.want.UID
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
			a.want(stub(uid, s.GetMetadata().GetNamespace(), s.GetMetadata().GetName()), false)
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
	old := map[string]listed{}
	for n := 0; ctx.Err() == nil; n++ {
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
		wait := a.cfg.Relist
		if rt := a.ready.Load(); rt == nil || !rt.ready || !rt.network {
			wait = min(wait, impatience)
		}
		pause(ctx, wait)
	}
	return nil
}

// listed is the part of a container or sandbox whose change matters.
type listed struct {
	uid   types.UID
	state int32
}

func (a *Agent) list(ctx context.Context) (map[string]listed, error) {
	out, start := map[string]listed{}, time.Now()
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
	a.metrics.kubelet.listed(start, sandboxes, containers)
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

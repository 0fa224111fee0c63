package agent

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"perch/agent/pod"
	"perch/agent/probe"
)

// worker keeps one pod. Its loop observes, decides, starts operations and looks
// again when one ends, when the runtime or the API says something, or in time.
type worker struct {
	agent *Agent
	uid   types.UID
	log   *slog.Logger
	wakeC chan struct{}
	done  chan outcome
	shown atomic.Pointer[corev1.Pod] // with its newest status
	box   atomic.Pointer[string]     // id of the sandbox that runs, nil before the first

	mounted atomic.Bool // its volumes are
	birth   birth

	mu sync.Mutex // guards in
	in inbox

	// Below is owned by run.
	want      *corev1.Pod
	told      bool
	removed   bool
	stop      *pod.Stop
	stopSince time.Time
	started   time.Time
	prepared  bool
	held      bool
	gone      bool
	busy      map[string]running
	failures  map[string]pod.Failure
	waits     map[string]time.Time // ends of back-offs that were told, by container
	seen      seen
	sent      *corev1.PodStatus // the API has this
	refresh   time.Time         // when volumes are looked at again
	seq       int
	ops       sync.WaitGroup
	quit      chan struct{}
}

// inbox is what others tell a worker.
type inbox struct {
	want    *corev1.Pod
	told    bool // by the API, not only left by an earlier agent
	removed bool
	stop    *pod.Stop
	objects bool // a config map or secret of the pod changed
}

// running is an operation under way.
type running struct {
	pod.Operation
	cancel context.CancelFunc
	seq    int
}

// outcome is how an operation ended.
type outcome struct {
	step   pod.Step
	seq    int
	err    error
	status *corev1.PodStatus // of a status sent: what the API has now, as far as it is ours
}

// Keys of operations that Next does not know.
const (
	keyStatus  = "(status)"  // sends the status
	keyRefresh = "(refresh)" // brings volumes up to date
)

func newWorker(a *Agent, want *corev1.Pod) *worker {
	return &worker{
		agent: a, uid: want.UID, log: a.log.With("namespace", want.Namespace, "pod", want.Name, "uid", want.UID),
		wakeC: make(chan struct{}, 1), done: make(chan outcome), quit: make(chan struct{}),
		birth: birth{seen: time.Now(), old: want.Status.Phase != corev1.PodPending && want.Status.Phase != ""},
		in:    inbox{want: want}, busy: map[string]running{}, failures: map[string]pod.Failure{}, waits: map[string]time.Time{}, seen: newSeen(),
		held: true, // until shown otherwise: the agent before this one may have left something
	}
}

// tell changes the inbox and wakes the worker.
func (w *worker) tell(change func(*inbox)) {
	w.mu.Lock()
	change(&w.in)
	w.mu.Unlock()
	w.poke()
}

func (w *worker) poke() {
	select {
	case w.wakeC <- struct{}{}:
	default: // it will look anyway
	}
}

// run keeps the pod until it is gone or ctx ends. Containers outlive it.
func (w *worker) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer w.ops.Wait()
	defer close(w.quit)
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wakeC:
		case <-timer.C:
		case o := <-w.done:
			w.finish(o)
		}
		for more := true; more; {
			select {
			case o := <-w.done:
				w.finish(o)
			default:
				more = false
			}
		}
		if w.gone {
			return
		}
		timer.Reset(w.look(ctx))
	}
}

// maxIdle is how long a worker goes without looking.
const maxIdle = time.Minute

// look does one round and says how long the worker may sleep.
func (w *worker) look(ctx context.Context) time.Duration {
	start := time.Now()
	w.take()
	if !w.removed && len(w.want.Spec.Containers) == 0 {
		return maxIdle // known only from the runtime; the API will say
	}
	have, err := w.observe(ctx)
	if err != nil {
		if ctx.Err() == nil {
			w.agent.metrics.observeErrors.Inc()
			w.log.Debug("pod not observed", "err", err)
		}
		return time.Second
	}
	now := time.Now()
	if t := w.want.Status.StartTime; t != nil {
		w.started = t.Time
	} else if w.started.IsZero() {
		w.started = now
	}
	w.fill(&have)
	softer := w.soften(now)
	want := w.base()
	plan := pod.Next(want, have, now)
	status := pod.Status(want, have, plan.Waits, pod.Host{IPs: w.agent.cfg.IPs}, now)
	w.show(want, status)
	w.agent.metrics.kubelet.look(&w.birth, want, &status, start, now)
	if w.ending(want, &have, now) && w.stopSince.IsZero() {
		w.stopSince = now
		have.StopSince = now
	}
	have.Published = w.publish(ctx, want, status, now)
	if have.Published {
		plan = pod.Next(want, have, now)
	}
	for _, key := range plan.Cancel {
		w.busy[key].cancel()
	}
	for _, step := range plan.Steps {
		w.begin(ctx, step, want, have, now)
	}
	w.tellWaits(want, plan.Waits)
	w.watchHealth(want, &have)
	again := min(softer, w.refreshVolumes(ctx, want, have, now))
	if !plan.Again.IsZero() {
		again = min(again, plan.Again.Sub(now))
	}
	if f, ok := w.failures[keyStatus]; ok {
		again = min(again, f.Retry.Sub(now))
	}
	return max(again, 10*time.Millisecond)
}

// take empties the inbox.
func (w *worker) take() {
	w.mu.Lock()
	in := w.in
	w.in.objects = false
	w.mu.Unlock()
	w.told, w.removed, w.stop = in.told, in.removed, in.stop
	if in.want != w.want {
		changed := w.want == nil || !equality.Semantic.DeepEqual(w.want.Spec, in.want.Spec) ||
			(w.want.DeletionTimestamp == nil) != (in.want.DeletionTimestamp == nil)
		if w.want != nil && !equality.Semantic.DeepEqual([]map[string]string{w.want.Labels, w.want.Annotations}, []map[string]string{in.want.Labels, in.want.Annotations}) {
			changed, in.objects = true, true // the downward API shows them
		}
		w.want = in.want
		if changed && len(w.want.Spec.Containers) > 0 && !w.removed {
			if err := w.agent.saveManifest(w.want); err != nil {
				w.log.Warn("manifest not saved", "err", err)
			}
			w.agent.objects.watch(w.want)
		}
	}
	if in.objects {
		w.refresh = time.Time{}
		for key, f := range w.failures {
			if f.Reason == "CreateContainerConfigError" || key == pod.KeyPod {
				delete(w.failures, key)
			}
		}
	}
}

// base is the wanted pod with the status this agent sent last: the informer may
// be behind. Conditions of others come from the API.
func (w *worker) base() *corev1.Pod {
	if w.sent == nil || w.want.Status.Phase == corev1.PodFailed || w.want.Status.Phase == corev1.PodSucceeded {
		return w.want
	}
	p := *w.want
	p.Status = *w.sent.DeepCopy()
	for _, c := range w.want.Status.Conditions {
		if !ownCondition(c.Type) {
			mergeCondition(&p.Status, c)
		}
	}
	return &p
}

// fill adds to what the runtime knows what the worker knows.
func (w *worker) fill(have *pod.Observed) {
	have.Busy = map[string]pod.Operation{}
	for key, r := range w.busy {
		have.Busy[key] = r.Operation
	}
	have.Failures = w.failures
	have.Health = w.agent.probes.Health(w.uid)
	have.Prepared, have.Held = w.prepared, w.held
	have.Removed, have.Stop = w.removed, w.stop
	have.StopSince, have.Started = w.stopSince, w.started
}

func (w *worker) ending(want *corev1.Pod, have *pod.Observed, now time.Time) bool {
	return have.Removed || want.DeletionTimestamp != nil || have.Stop != nil || pod.Deadline(want, have, now) != nil || pod.Finished(want, have)
}

// show makes the newest status visible to the door.
func (w *worker) show(want *corev1.Pod, status corev1.PodStatus) {
	if old := w.shown.Load(); old != nil && old.ResourceVersion == want.ResourceVersion && equality.Semantic.DeepEqual(old.Status, status) {
		return
	}
	p := *want
	p.Status = status
	w.shown.Store(&p)
}

// begin starts an operation, in place of the one under the same key if there is
// one.
func (w *worker) begin(ctx context.Context, step pod.Step, want *corev1.Pod, have pod.Observed, now time.Time) {
	if old, busy := w.busy[step.Key]; busy {
		old.cancel()
	}
	ctx, cancel := context.WithCancel(ctx)
	w.seq++
	seq := w.seq
	op := pod.Operation{Verb: step.Verb}
	if step.Verb == pod.StopContainer {
		op.Until = now.Add(step.Grace)
	}
	w.busy[step.Key] = running{Operation: op, cancel: cancel, seq: seq}
	// What was true when the step was decided is true for the whole operation.
	have.Busy, have.Failures = nil, nil
	w.ops.Go(func() {
		start := time.Now()
		err := w.act(ctx, step, want, have)
		if err != nil && ctx.Err() != nil {
			err = context.Canceled // whatever the runtime made of it
		}
		w.agent.metrics.step(string(step.Verb), time.Since(start), err)
		cancel()
		select {
		case w.done <- outcome{step: step, seq: seq, err: err}:
		case <-w.quit:
		}
	})
}

// finish takes the outcome of an operation.
func (w *worker) finish(o outcome) {
	key := o.step.Key
	if w.busy[key].seq != o.seq {
		return // replaced by a newer one
	}
	delete(w.busy, key)
	if o.err != nil {
		w.fail(o)
		return
	}
	delete(w.failures, key)
	switch o.step.Verb {
	case verbStatus:
		w.sent = o.status
		// With its status, so that the next agent knows it before it sees the API.
		if w.removed {
			break
		}
		if err := w.agent.saveManifest(w.base()); err != nil {
			w.log.Warn("manifest not saved", "err", err)
		}
	case pod.Prepare:
		w.prepared, w.held = true, true
		w.mounted.Store(true)
		w.refresh = time.Now().Add(w.agent.cfg.Refresh)
	case pod.Release:
		w.prepared, w.held = false, false
		w.mounted.Store(false)
	case pod.Clean:
		w.gone = true
	}
}

const verbRefresh pod.Verb = "refresh volumes"

// refreshVolumes brings what objects say into the volumes, and says when to look
// again.
func (w *worker) refreshVolumes(ctx context.Context, want *corev1.Pod, have pod.Observed, now time.Time) time.Duration {
	if !w.prepared || w.ending(want, &have, now) {
		return maxIdle
	}
	_, busy := w.busy[keyRefresh]
	if wait := w.refresh.Sub(now); wait > 0 || busy {
		return min(max(wait, time.Second), maxIdle)
	}
	w.refresh = now.Add(w.agent.cfg.Refresh)
	w.begin(ctx, pod.Step{Verb: verbRefresh, Key: keyRefresh}, want, have, now)
	return min(w.agent.cfg.Refresh, maxIdle)
}

// watchHealth tells the probes which containers run.
func (w *worker) watchHealth(want *corev1.Pod, have *pod.Observed) {
	var targets []probe.Target
	ip := ""
	if s := have.Sandbox(); s != nil && len(s.IPs) > 0 {
		ip = s.IPs[0]
	}
	if want.Spec.HostNetwork {
		ip = w.agent.cfg.IPs[0]
	}
	ending := want.DeletionTimestamp != nil || w.removed
	for _, list := range [][]corev1.Container{want.Spec.InitContainers, want.Spec.Containers} {
		for i := range list {
			c := &list[i]
			last := have.Newest(c.Name)
			if last == nil || last.State != pod.Running {
				continue
			}
			t := probe.Target{Pod: want, Container: c, ContainerID: last.ID, IP: ip, StartedAt: last.StartedAt, Ending: ending}
			t.Started, t.Ready = lastHealth(want, c.Name, last.ID)
			targets = append(targets, t)
		}
	}
	w.agent.probes.Keep(w.uid, targets)
}

// lastHealth is what the status said about this very instance: a restart of the
// agent does not make it unready.
func lastHealth(want *corev1.Pod, name, id string) (started, ready bool) {
	for _, list := range [][]corev1.ContainerStatus{want.Status.ContainerStatuses, want.Status.InitContainerStatuses} {
		for _, s := range list {
			if s.Name == name && s.ContainerID == pod.ContainerID(id) {
				return s.Started != nil && *s.Started, s.Ready
			}
		}
	}
	return false, false
}

package pod

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// made returns a pod with containers of the given names; "init:x" and
// "side:x" are init containers and sidecars.
func made(policy corev1.RestartPolicy, names ...string) *corev1.Pod {
	always := corev1.ContainerRestartPolicyAlways
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}, Spec: corev1.PodSpec{RestartPolicy: policy}}
	for _, n := range names {
		kind, name, found := strings.Cut(n, ":")
		switch {
		case !found:
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: n, Image: "img"})
		case kind == "init":
			p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: name, Image: "img"})
		default:
			p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: name, Image: "img", RestartPolicy: &always})
		}
	}
	return p
}

func deleted(p *corev1.Pod, grace int64) *corev1.Pod {
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: t0}, &grace
	return p
}

func running(name string) Container {
	return Container{ID: name + "-0", Name: name, SandboxID: "s0", State: Running, CreatedAt: t0.Add(-time.Minute), StartedAt: t0.Add(-time.Minute)}
}

func exited(name string, code int32, ago time.Duration) Container {
	c := running(name)
	c.State, c.ExitCode, c.FinishedAt = Exited, code, t0.Add(-ago)
	return c
}

func ready(cs ...Container) Observed {
	o := Observed{Prepared: true, Held: true, Started: t0.Add(-time.Hour), Sandboxes: []Sandbox{{ID: "s0", Ready: true, IPs: []string{"10.0.0.1"}}}, Containers: cs}
	o.Sort()
	return o
}

func (o Observed) with(fn func(*Observed)) Observed { fn(&o); return o }

func told(p Plan) string {
	var out []string
	for _, s := range p.Steps {
		text := string(s.Verb)
		if s.ID != "" {
			text += " " + s.ID
		} else if s.Key != KeyPod && s.Key != KeySandbox {
			text += " " + s.Key
		}
		if s.Attempt > 0 {
			text += fmt.Sprintf(" #%d", s.Attempt)
		}
		if s.Verb == StopContainer {
			text += fmt.Sprintf(" %s", s.Grace)
		}
		out = append(out, text)
	}
	for _, k := range p.Cancel {
		out = append(out, "cancel "+k)
	}
	if !p.Again.IsZero() {
		out = append(out, "again "+p.Again.Sub(t0).String())
	}
	return strings.Join(out, ", ")
}

func TestNext(t *testing.T) {
	always, onFailure, never := corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever
	cases := []struct {
		name string
		want *corev1.Pod
		have Observed
		plan string
	}{
		{"a new pod is prepared first", made(always, "a"), Observed{}, "prepare"},
		{"a prepared pod gets a sandbox", made(always, "a"), Observed{Prepared: true}, "start sandbox"},
		{"nothing is asked twice while it is under way", made(always, "a"), Observed{Prepared: true, Busy: map[string]Operation{KeySandbox: {Verb: StartSandbox}}}, ""},
		{"containers start in the order of their list", made(always, "a", "b"), ready(), "start container a"},
		{"the second container starts once the first one has", made(always, "a", "b"), ready(running("a")), "start container b"},
		{"a container whose postStart hook runs holds back the next", made(always, "a", "b"),
			ready(running("a")).with(func(o *Observed) { o.Busy = map[string]Operation{"a": {Verb: StartContainer}} }), ""},
		{"a container that cannot start does not hold back the next", made(always, "a", "b"),
			ready().with(func(o *Observed) {
				o.Failures = map[string]Failure{"a": {Verb: StartContainer, Reason: "ErrImagePull", Retry: t0.Add(10 * time.Second)}}
			}), "start container b, again 10s"},
		{"an init container comes before containers", made(always, "init:i", "a"), ready(), "start container i"},
		{"containers wait for the init container", made(always, "init:i", "a"), ready(running("i")), ""},
		{"the next init container follows the success of the one before", made(always, "init:i", "init:j", "a"), ready(exited("i", 0, 0)), "start container j"},
		{"containers follow the last init container", made(always, "init:i", "a"), ready(exited("i", 0, 0)), "start container a"},
		{"a failed init container runs again", made(always, "init:i", "a"), ready(exited("i", 1, 0)), "start container i #1"},
		{"init containers do not run again once containers have", made(always, "init:i", "a"), ready(exited("a", 1, 0)), "start container a #1"},
		{"a sidecar that runs lets containers start", made(always, "side:s", "a"), ready(running("s")), "start container a"},
		{"a sidecar that has not passed its startup probe holds containers back",
			func() *corev1.Pod {
				p := made(always, "side:s", "a")
				p.Spec.InitContainers[0].StartupProbe = &corev1.Probe{}
				return p
			}(), ready(running("s")), ""},
		{"a sidecar is restarted even in a pod that never restarts", made(never, "side:s", "a"), ready(exited("s", 1, 0), running("a")), "start container s #1"},
		{"a container that ends the first time restarts at once", made(always, "a"), ready(exited("a", 1, 0)), "start container a #1"},
		{"a container that ends again waits for its back-off", made(always, "a"),
			ready(func() Container { c := exited("a", 1, time.Second); c.Attempt, c.Backoff = 1, 10*time.Second; return c }()), "again 9s"},
		{"a container that lived for long restarts at once", made(always, "a"),
			ready(func() Container {
				c := exited("a", 1, time.Second)
				c.Attempt, c.Backoff, c.CreatedAt = 5, 5*time.Minute, t0.Add(-11*time.Minute)
				return c
			}()), "start container a #6"},
		{"success ends an on-failure container", made(onFailure, "a", "b"), ready(exited("a", 0, 0), running("b")), ""},
		{"failure restarts an on-failure container", made(onFailure, "a"), ready(exited("a", 3, 0)), "start container a #1"},
		{"a pod whose containers are done gives back its sandbox", made(never, "a"), ready(exited("a", 3, 0)), "stop sandbox s0"},
		{"sidecars of a pod that is done end before its sandbox", made(never, "side:s", "a"), ready(exited("a", 0, 0), running("s")), "stop container s-0 30s"},
		{"a pod that is down gives back what it holds", made(never, "a"),
			ready(exited("a", 0, 0)).with(func(o *Observed) { o.Sandboxes[0].Ready = false }), "release"},
		{"a pod that ended stays as it is", made(never, "a"),
			ready(exited("a", 0, 0)).with(func(o *Observed) { o.Sandboxes[0].Ready, o.Held = false, false }), ""},
		{"a dead sandbox with live containers is stopped", made(always, "a"), ready(running("a")).with(func(o *Observed) { o.Sandboxes[0].Ready = false }), "stop sandbox s0"},
		{"a dead sandbox is replaced", made(always, "a"), ready(exited("a", 255, 0)).with(func(o *Observed) { o.Sandboxes[0].Ready = false }), "start sandbox #1"},
		{"in a new sandbox init containers run again", made(always, "init:i", "a"),
			ready(exited("a", 255, 0), exited("i", 0, time.Minute)).with(func(o *Observed) {
				o.Sandboxes = []Sandbox{{ID: "s1", Attempt: 1, Ready: true}, {ID: "s0"}}
			}), "start container i #1"},
		{"a pod that never restarts does not get a second sandbox", made(never, "a"), ready(exited("a", 255, 0)).with(func(o *Observed) { o.Sandboxes[0].Ready = false }), "release"},
		{"a container that was created but not started is started", made(always, "a"), ready(Container{ID: "a-0", Name: "a", SandboxID: "s0", State: Created}), "start container a-0"},
		{"another image replaces the container", made(always, "a"), ready(func() Container { c := running("a"); c.Hash = "other"; return c }()), "stop container a-0 30s"},
		{"and starts at once, however often the old one crashed", made(always, "a"),
			ready(func() Container {
				c := exited("a", 1, time.Second)
				c.Hash, c.Attempt, c.Backoff = "other", 4, 80*time.Second
				return c
			}()), "start container a #5"},
		{"a pod whose volumes were missing can be released at once", deleted(made(always, "a"), 5), Observed{Held: true, Failures: map[string]Failure{KeyPod: {Verb: Prepare, Retry: t0.Add(time.Minute)}}}, "release"},
		{"an unhealthy container is stopped", made(always, "a"), ready(running("a")).with(func(o *Observed) {
			o.Health = map[string]Health{"a": {ContainerID: "a-0", Started: true, Unhealthy: "liveness probe"}}
		}), "stop container a-0 30s"},
		{"what a probe said of the instance before does not count", made(always, "a"), ready(running("a")).with(func(o *Observed) {
			o.Health = map[string]Health{"a": {ContainerID: "other", Unhealthy: "liveness probe"}}
		}), ""},
		{"a third attempt removes the first", made(always, "a"), ready(
			func() Container { c := running("a"); c.ID, c.Attempt = "a-2", 2; return c }(),
			func() Container { c := exited("a", 1, 0); c.ID, c.Attempt = "a-1", 1; return c }(),
			exited("a", 1, time.Minute)), "remove container a-0"},
		{"a deleted pod stops its containers together", deleted(made(always, "a", "b"), 5), ready(running("a"), running("b")), "stop container a-0 5s, stop container b-0 5s"},
		{"sidecars wait for the containers of a deleted pod", deleted(made(always, "side:s", "side:t", "a"), 5), ready(running("s"), running("t"), running("a")), "stop container a-0 5s"},
		{"sidecars end in reverse order", deleted(made(always, "side:s", "side:t", "a"), 5), ready(running("s"), running("t"), exited("a", 0, 0)), "stop container t-0 5s"},
		{"what is left of the grace period counts", deleted(made(always, "side:s", "a"), 30),
			ready(running("s"), exited("a", 0, 0)).with(func(o *Observed) { o.StopSince = t0.Add(-20 * time.Second) }), "stop container s-0 10s"},
		{"a shorter grace period replaces the one under way", deleted(made(always, "a"), 1), ready(running("a")).with(func(o *Observed) {
			o.Busy = map[string]Operation{"a": {Verb: StopContainer, Until: t0.Add(30 * time.Second)}}
		}), "stop container a-0 1s"},
		{"a stop under way is not repeated", deleted(made(always, "a"), 30), ready(running("a")).with(func(o *Observed) {
			o.Busy = map[string]Operation{"a": {Verb: StopContainer, Until: t0.Add(30 * time.Second)}}
		}), ""},
		{"a pod deleted while it starts stops starting", deleted(made(always, "a"), 30), ready().with(func(o *Observed) {
			o.Busy = map[string]Operation{"a": {Verb: StartContainer}}
		}), "cancel a"},
		{"a deleted pod that is down waits for its status to be known", deleted(made(always, "a"), 5), Observed{}, ""},
		{"then the object is deleted", deleted(made(always, "a"), 5), Observed{Published: true}, "delete"},
		{"a pod the API forgot is killed", made(always, "a"), ready(running("a")).with(func(o *Observed) { o.Removed = true }), "stop container a-0 30s"},
		{"and its sandbox removed", made(always, "a"), Observed{Removed: true, Sandboxes: []Sandbox{{ID: "s0"}}}, "remove sandbox s0"},
		{"and its directories last", made(always, "a"), Observed{Removed: true}, "clean"},
		{"an evicted pod ends", made(always, "a"), ready(running("a")).with(func(o *Observed) { o.Stop = &Stop{Reason: "Evicted", Grace: 0} }), "stop container a-0 1s"},
		{"a pod past its deadline ends", func() *corev1.Pod {
			p := made(always, "a")
			d := int64(60)
			p.Spec.ActiveDeadlineSeconds = &d
			return p
		}(), ready(running("a")), "stop container a-0 30s"},
		{"a finished pod never starts again", func() *corev1.Pod { p := made(always, "a"); p.Status.Phase = corev1.PodFailed; return p }(), Observed{}, ""},
		{"a lost container continues its restart count", func() *corev1.Pod {
			p := made(always, "a")
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "a", ContainerID: "containerd://x", RestartCount: 3}}
			return p
		}(), ready(), "start container a #4"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := told(Next(c.want, c.have, t0)); got != c.plan {
				t.Errorf("got  %q\nwant %q", got, c.plan)
			}
		})
	}
}

func TestBackoffDoublesToFiveMinutes(t *testing.T) {
	c := exited("a", 1, 0)
	var waits []time.Duration
	for range 8 {
		at, next := restart(&c)
		waits = append(waits, at.Sub(c.FinishedAt))
		c.Backoff = next
	}
	want := []time.Duration{0, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 300 * time.Second, 300 * time.Second}
	if !slices.Equal(waits, want) {
		t.Errorf("waits %v, want %v", waits, want)
	}
}

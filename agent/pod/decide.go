package pod

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Verb is what a step does.
type Verb string

// The verbs. Each is safe to repeat.
const (
	Prepare         Verb = "prepare"          // cgroup, directories, volumes
	StartSandbox    Verb = "start sandbox"    // with Attempt
	StopSandbox     Verb = "stop sandbox"     // ID
	RemoveSandbox   Verb = "remove sandbox"   // ID, with its containers
	StartContainer  Verb = "start container"  // ensure image, create (unless ID), start, postStart
	StopContainer   Verb = "stop container"   // ID: preStop, stop signal, Grace, kill
	RemoveContainer Verb = "remove container" // ID
	Release         Verb = "release"          // give back volumes and cgroup
	Delete          Verb = "delete"           // the object from the API, the pod being down
	Clean           Verb = "clean"            // the pod's directories; the pod is forgotten after it
)

// Step is one thing to do now.
type Step struct {
	Verb    Verb
	Key     string // what is Busy while it runs
	ID      string // of the sandbox or container
	Attempt uint32
	Grace   time.Duration
	Backoff time.Duration // to remember on the new container
	Reason  string        // one word
	Message string        // a sentence for the event
}

// Plan is what to do now and when to ask again at the latest.
type Plan struct {
	Steps  []Step
	Cancel []string           // keys of operations that have lost their point
	Again  time.Time          // zero: only when something changes
	Waits  map[string]Failure // containers that wait for their back-off to end
}

// keepDead is how many attempts of a container are kept: the current one and
// the one whose state and log are still shown.
const keepDead = 2

// Next says what to do for a pod now. It is a function of its arguments only.
func Next(want *corev1.Pod, have Observed, now time.Time) Plan {
	p := planner{want: want, have: &have, now: now}
	switch {
	case have.Removed, want.DeletionTimestamp != nil, have.Stop != nil, Deadline(want, &have, now) != nil, Finished(want, &have):
		p.end()
	default:
		p.live()
	}
	return p.plan
}

type planner struct {
	want *corev1.Pod
	have *Observed
	now  time.Time
	plan Plan
}

// do adds a step unless its key is busy or waits after a failure.
func (p *planner) do(s Step) {
	if _, busy := p.have.Busy[s.Key]; busy {
		return
	}
	if f, failed := p.have.Failures[s.Key]; failed && f.Verb == s.Verb && f.Retry.After(p.now) {
		p.again(f.Retry)
		return
	}
	p.plan.Steps = append(p.plan.Steps, s)
}

func (p *planner) again(at time.Time) {
	if p.plan.Again.IsZero() || at.Before(p.plan.Again) {
		p.plan.Again = at
	}
}

// live brings a pod up and keeps it up.
func (p *planner) live() {
	if d := p.want.Spec.ActiveDeadlineSeconds; d != nil && !p.have.Started.IsZero() {
		p.again(p.have.Started.Add(time.Duration(*d) * time.Second))
	}
	if !p.have.Prepared {
		p.do(Step{Verb: Prepare, Key: KeyPod})
		return
	}
	sandbox := p.have.Sandbox()
	if sandbox == nil {
		p.sandbox()
		return
	}
	if p.inits(sandbox.ID) {
		for i := range p.want.Spec.Containers {
			c := &p.want.Spec.Containers[i]
			if !p.keep(c, sandbox.ID, policyOf(p.want, c)) {
				break
			}
		}
	}
	p.sweep()
}

// sandbox replaces a dead sandbox, or makes the first one.
func (p *planner) sandbox() {
	attempt := uint32(0)
	if len(p.have.Sandboxes) > 0 {
		last := p.have.Sandboxes[0]
		attempt = last.Attempt + 1
		if p.have.Alive() {
			p.do(Step{Verb: StopSandbox, Key: KeySandbox, ID: last.ID, Reason: "SandboxChanged", Message: "Pod sandbox changed, it will be killed and re-created."})
			return
		}
	}
	p.do(Step{Verb: StartSandbox, Key: KeySandbox, Attempt: attempt})
}

// inits runs init containers one after the other and keeps sidecars running. It
// says whether the containers may run.
func (p *planner) inits(sandbox string) bool {
	begun := slices.ContainsFunc(p.want.Spec.Containers, func(c corev1.Container) bool {
		return p.have.inSandbox(c.Name, sandbox) != nil
	})
	for i := range p.want.Spec.InitContainers {
		c := &p.want.Spec.InitContainers[i]
		last := p.have.inSandbox(c.Name, sandbox)
		switch {
		case IsSidecar(c):
			p.keep(c, sandbox, corev1.RestartPolicyAlways)
			if !begun && !p.have.health(c, last).Started {
				return false
			}
		case begun:
		case last != nil && last.State == Exited && last.ExitCode == 0:
		default:
			policy := corev1.RestartPolicyOnFailure
			if p.want.Spec.RestartPolicy == corev1.RestartPolicyNever {
				policy = corev1.RestartPolicyNever
			}
			p.keep(c, sandbox, policy)
			return false
		}
	}
	return true
}

// keep holds one container in the state its policy asks for. It says whether the
// containers listed after it may be looked at: a container's first start, its
// postStart hook included, comes before that of the next.
func (p *planner) keep(c *corev1.Container, sandbox string, policy corev1.RestartPolicy) bool {
	last := p.have.Newest(c.Name)
	here := p.have.inSandbox(c.Name, sandbox)
	switch {
	case here != nil && here.State == Running:
		p.watch(c, here)
		return p.have.Busy[c.Name].Verb != StartContainer
	case here != nil && here.State == Unknown:
		p.do(Step{Verb: StopContainer, Key: c.Name, ID: here.ID, Grace: p.grace(c, false), Reason: "ContainerStatusUnknown",
			Message: fmt.Sprintf("Container %s is in an unknown state, trying to kill it before restart", c.Name)})
		return true
	case here != nil && here.State == Created:
		p.do(Step{Verb: StartContainer, Key: c.Name, ID: here.ID, Attempt: here.Attempt, Backoff: here.Backoff})
		return p.have.Failures[c.Name].Reason != ""
	case last == nil:
		p.do(Step{Verb: StartContainer, Key: c.Name, Attempt: p.firstAttempt(c.Name)})
		return p.have.Failures[c.Name].Reason != ""
	case here != nil && !again(policy, here):
		return true
	case here == nil && policy == corev1.RestartPolicyOnFailure && last.State == Exited && last.ExitCode == 0 && !isInit(p.want, c.Name):
		return true // done in an earlier sandbox
	}
	at, next := last.FinishedAt, backoffFirst
	if here != nil && here.Hash == Hash(c) || here != nil && here.Hash == "" {
		at, next = restart(here) // another definition has a clean record
	}
	if at.After(p.now) {
		p.again(at)
		if p.plan.Waits == nil {
			p.plan.Waits = map[string]Failure{}
		}
		p.plan.Waits[c.Name] = crashLoop(p.want, c.Name, at, here.Backoff)
		return true
	}
	p.do(Step{Verb: StartContainer, Key: c.Name, Attempt: last.Attempt + 1, Backoff: next})
	return true
}

func crashLoop(pod *corev1.Pod, name string, at time.Time, delay time.Duration) Failure {
	return Failure{Reason: "CrashLoopBackOff", Retry: at, Delay: delay, Message: fmt.Sprintf(
		"back-off %s restarting failed container=%s pod=%s_%s(%s)", delay, name, pod.Name, pod.Namespace, pod.UID)}
}

// watch ends a running container whose definition changed or whose probes want
// it restarted.
func (p *planner) watch(c *corev1.Container, here *Container) {
	if here.Hash != "" && here.Hash != Hash(c) {
		p.do(Step{Verb: StopContainer, Key: c.Name, ID: here.ID, Grace: p.grace(c, false), Reason: "Changed",
			Message: fmt.Sprintf("Container %s definition changed, will be restarted", c.Name)})
		return
	}
	if h := p.have.health(c, here); h.Unhealthy != "" {
		p.do(Step{Verb: StopContainer, Key: c.Name, ID: here.ID, Grace: p.grace(c, !h.Started), Reason: "Unhealthy",
			Message: fmt.Sprintf("Container %s failed %s, will be restarted", c.Name, h.Unhealthy)})
	}
}

// grace is how long a container has to end when its probe, not its pod, wants
// it to.
func (p *planner) grace(c *corev1.Container, starting bool) time.Duration {
	probe := c.LivenessProbe
	if starting {
		probe = c.StartupProbe
	}
	if probe != nil && probe.TerminationGracePeriodSeconds != nil {
		return time.Duration(*probe.TerminationGracePeriodSeconds) * time.Second
	}
	return Grace(p.want)
}

// firstAttempt continues the restart count of a container the runtime has lost.
func (p *planner) firstAttempt(name string) uint32 {
	for _, list := range [][]corev1.ContainerStatus{p.want.Status.ContainerStatuses, p.want.Status.InitContainerStatuses} {
		for _, s := range list {
			if s.Name == name && s.ContainerID != "" {
				return uint32(s.RestartCount) + 1
			}
		}
	}
	return 0
}

// sweep removes attempts that nobody asks for any more.
func (p *planner) sweep() {
	seen := map[string]int{}
	keptIn := map[string]bool{}
	for i := range p.have.Containers {
		c := &p.have.Containers[i]
		seen[c.Name]++
		if seen[c.Name] <= keepDead || c.State != Exited {
			keptIn[c.SandboxID] = true
			continue
		}
		p.do(Step{Verb: RemoveContainer, Key: "(remove " + c.ID + ")", ID: c.ID})
	}
	for i, s := range p.have.Sandboxes {
		if i > 0 && !keptIn[s.ID] {
			p.do(Step{Verb: RemoveSandbox, Key: "(remove " + s.ID + ")", ID: s.ID})
		}
	}
}

// policyOf is the restart policy of a container: its own, or the pod's.
func policyOf(pod *corev1.Pod, c *corev1.Container) corev1.RestartPolicy {
	if c.RestartPolicy != nil {
		return corev1.RestartPolicy(*c.RestartPolicy)
	}
	if pod.Spec.RestartPolicy == "" {
		return corev1.RestartPolicyAlways
	}
	return pod.Spec.RestartPolicy
}

// again says whether a policy wants an ended container to run once more.
func again(policy corev1.RestartPolicy, c *Container) bool {
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return c.ExitCode != 0
	}
	return true
}

func isInit(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
}

package pod

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Grace is the time a pod's containers have to end: that of its deletion if it
// is being deleted, else its own.
func Grace(pod *corev1.Pod) time.Duration {
	if g := pod.DeletionGracePeriodSeconds; pod.DeletionTimestamp != nil && g != nil {
		return time.Duration(max(*g, 1)) * time.Second
	}
	if g := pod.Spec.TerminationGracePeriodSeconds; g != nil {
		return time.Duration(max(*g, 1)) * time.Second
	}
	return 30 * time.Second
}

// Deadline returns the reason to end a pod that has been active too long.
func Deadline(want *corev1.Pod, have *Observed, now time.Time) *Stop {
	d := want.Spec.ActiveDeadlineSeconds
	if d == nil || have.Started.IsZero() || now.Before(have.Started.Add(time.Duration(*d)*time.Second)) {
		return nil
	}
	return &Stop{Reason: "DeadlineExceeded", Message: "Pod was active on the node longer than the specified deadline", Grace: -1}
}

// Finished says whether a pod has come to its end by itself: nothing of it will
// run again. Sidecars may still have to be stopped.
func Finished(want *corev1.Pod, have *Observed) bool {
	if want.Status.Phase == corev1.PodSucceeded || want.Status.Phase == corev1.PodFailed {
		return true
	}
	if len(have.Containers) == 0 {
		return false
	}
	if want.Spec.RestartPolicy == corev1.RestartPolicyNever {
		for i := range want.Spec.InitContainers {
			c := &want.Spec.InitContainers[i]
			if last := have.Newest(c.Name); last != nil && !IsSidecar(c) && last.State == Exited && last.ExitCode != 0 {
				return true
			}
		}
	}
	for i := range want.Spec.Containers {
		c := &want.Spec.Containers[i]
		last := have.Newest(c.Name)
		if last == nil || last.State != Exited || again(policyOf(want, c), last) {
			return false
		}
	}
	return true
}

// end takes a pod down, in this order: containers, sidecars from last to first,
// sandbox, status, volumes and cgroup, object, directories.
func (p *planner) end() {
	for key, op := range p.have.Busy {
		if op.Verb == StartContainer || op.Verb == StartSandbox || op.Verb == Prepare {
			p.plan.Cancel = append(p.plan.Cancel, key)
		}
	}
	slices.Sort(p.plan.Cancel)
	if len(p.plan.Cancel) > 0 || p.stopContainers() || p.stopSandboxes() {
		return
	}
	if p.have.Held {
		p.do(Step{Verb: Release, Key: KeyPod})
		return
	}
	switch {
	case p.have.Removed:
		for _, s := range p.have.Sandboxes {
			p.do(Step{Verb: RemoveSandbox, Key: "(remove " + s.ID + ")", ID: s.ID})
		}
		if len(p.have.Sandboxes) == 0 {
			p.do(Step{Verb: Clean, Key: KeyPod})
		}
	case p.want.DeletionTimestamp != nil && p.have.Published:
		p.do(Step{Verb: Delete, Key: KeyPod})
	default:
		p.sweep()
	}
}

// stopContainers says whether it has to be waited for containers to end.
func (p *planner) stopContainers() bool {
	var first, sidecars []*Container
	for i := range p.have.Containers {
		c := &p.have.Containers[i]
		if c.State != Running && c.State != Unknown {
			continue
		}
		if n := p.sidecar(c.Name); n >= 0 {
			sidecars = append(sidecars, c)
		} else {
			first = append(first, c)
		}
	}
	if len(first) == 0 && len(sidecars) > 0 {
		slices.SortStableFunc(sidecars, func(a, b *Container) int { return p.sidecar(b.Name) - p.sidecar(a.Name) })
		first = sidecars[:1]
	}
	for _, c := range first {
		p.stopOne(c)
	}
	return len(first) > 0
}

// sidecar returns the place of a sidecar among the init containers, -1 for
// everything else.
func (p *planner) sidecar(name string) int {
	return slices.IndexFunc(p.want.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name && IsSidecar(&c) })
}

func (p *planner) stopOne(c *Container) {
	grace := p.endGrace()
	if op, busy := p.have.Busy[c.Name]; busy && op.Verb == StopContainer {
		if op.Until.Sub(p.now) <= grace+2*time.Second {
			return
		}
		// The grace period was made shorter: ask again, over the one under way.
	} else if busy {
		return
	}
	if f, failed := p.have.Failures[c.Name]; failed && f.Verb == StopContainer && f.Retry.After(p.now) {
		p.again(f.Retry)
		return
	}
	p.plan.Steps = append(p.plan.Steps, Step{Verb: StopContainer, Key: c.Name, ID: c.ID, Grace: grace, Reason: p.endReason(),
		Message: fmt.Sprintf("Stopping container %s", c.Name)})
}

// endGrace is what is left of the grace period, at least one second.
func (p *planner) endGrace() time.Duration {
	grace := Grace(p.want)
	if stop := p.have.Stop; stop != nil && stop.Grace >= 0 && stop.Grace < grace {
		grace = stop.Grace
	}
	if !p.have.StopSince.IsZero() {
		grace -= p.now.Sub(p.have.StopSince)
	}
	return max(grace, time.Second)
}

func (p *planner) endReason() string {
	switch {
	case p.have.Removed, p.want.DeletionTimestamp != nil:
		return "Deleted"
	case p.have.Stop != nil:
		return p.have.Stop.Reason
	}
	if d := Deadline(p.want, p.have, p.now); d != nil {
		return d.Reason
	}
	return "Finished"
}

// stopSandboxes says whether it has to be waited for a sandbox to stop.
func (p *planner) stopSandboxes() bool {
	waiting := false
	for _, s := range p.have.Sandboxes {
		if s.Ready {
			waiting = true
			p.do(Step{Verb: StopSandbox, Key: KeySandbox, ID: s.ID})
		}
	}
	return waiting
}

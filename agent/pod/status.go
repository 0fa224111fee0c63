package pod

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Host is what a pod's status says about its node.
type Host struct {
	IPs []string // the first one is the main address
}

// Status says what the status of a pod should read now. waits are the
// containers that Next found waiting for their back-off. It keeps what others
// wrote: conditions it does not own, and states of containers that the runtime
// no longer knows.
func Status(want *corev1.Pod, have Observed, waits map[string]Failure, host Host, now time.Time) corev1.PodStatus {
	old := want.Status
	s := *old.DeepCopy()
	s.ObservedGeneration = want.Generation
	ending := have.Removed || want.DeletionTimestamp != nil || have.Stop != nil || Deadline(want, &have, now) != nil ||
		old.Phase == corev1.PodSucceeded || old.Phase == corev1.PodFailed
	v := statuses{want: want, have: &have, waits: waits, ending: ending}
	s.InitContainerStatuses = v.all(want.Spec.InitContainers, old.InitContainerStatuses, true)
	s.ContainerStatuses = v.all(want.Spec.Containers, old.ContainerStatuses, false)

	over := ending && !have.Alive() && have.Sandbox() == nil
	s.Phase = phase(want, &s, over)
	if old.Phase == corev1.PodSucceeded || old.Phase == corev1.PodFailed {
		s.Phase = old.Phase // an end is final
	}
	if stop := stopOf(want, &have, now); stop != nil && over && old.Phase != corev1.PodSucceeded {
		s.Phase, s.Reason, s.Message = corev1.PodFailed, stop.Reason, stop.Message
	}
	if len(host.IPs) > 0 {
		s.HostIP, s.HostIPs = host.IPs[0], nil
		for _, ip := range host.IPs {
			s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: ip})
		}
	}
	addresses(want, &s, &have, host)
	if !have.Started.IsZero() {
		s.StartTime = &metav1.Time{Time: have.Started.Truncate(time.Second)}
	}
	if s.QOSClass == "" {
		s.QOSClass = QOS(want)
	}
	conditions(want, &s, &have, now)
	return s
}

func stopOf(want *corev1.Pod, have *Observed, now time.Time) *Stop {
	if have.Stop != nil {
		return have.Stop
	}
	return Deadline(want, have, now)
}

func addresses(want *corev1.Pod, s *corev1.PodStatus, have *Observed, host Host) {
	ips := host.IPs
	if !want.Spec.HostNetwork {
		ips = nil
		if sandbox := have.Sandbox(); sandbox != nil {
			ips = sandbox.IPs
		}
	}
	if len(ips) == 0 {
		return // a stopped sandbox has none; the last ones stay readable
	}
	s.PodIP, s.PodIPs = ips[0], nil
	for _, ip := range ips {
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: ip})
	}
}

// statuses makes container statuses.
type statuses struct {
	want   *corev1.Pod
	have   *Observed
	waits  map[string]Failure
	ending bool
}

func (v statuses) all(specs []corev1.Container, old []corev1.ContainerStatus, init bool) []corev1.ContainerStatus {
	var out []corev1.ContainerStatus
	for i := range specs {
		c := &specs[i]
		var before corev1.ContainerStatus
		if n := slices.IndexFunc(old, func(s corev1.ContainerStatus) bool { return s.Name == c.Name }); n >= 0 {
			before = old[n]
		}
		out = append(out, v.one(c, before, init))
	}
	return out
}

func (v statuses) one(c *corev1.Container, before corev1.ContainerStatus, init bool) corev1.ContainerStatus {
	last := v.have.Newest(c.Name)
	if last == nil {
		return v.unborn(c, before, init)
	}
	health := v.have.health(c, last)
	s := corev1.ContainerStatus{
		Name: c.Name, Image: last.Image, ImageID: last.ImageID, ContainerID: ContainerID(last.ID),
		RestartCount: int32(last.Attempt), State: stateFrom(last), Started: &health.Started, Ready: health.Ready,
	}
	if s.Image == "" {
		s.Image = c.Image
	}
	if init && !IsSidecar(c) {
		s.Ready = last.State == Exited && last.ExitCode == 0
	}
	if last.State == Running {
		r := resourcesStatus(c)
		s.Resources, s.AllocatedResources = r, c.Resources.Requests
	}
	if prev := v.have.previous(c.Name); prev != nil && prev.State == Exited {
		s.LastTerminationState = stateFrom(prev)
	} else if last.Attempt > 0 {
		s.LastTerminationState = before.LastTerminationState
	}
	wait, waiting := v.waiting(c.Name)
	if last.State == Exited && waiting && !v.ending {
		s.LastTerminationState = s.State
		s.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: wait.Reason, Message: wait.Message}}
	}
	return s
}

// waiting says why a container that should run does not.
func (v statuses) waiting(name string) (Failure, bool) {
	if f, ok := v.have.Failures[name]; ok {
		return f, true
	}
	f, ok := v.waits[name]
	return f, ok
}

// unborn is the status of a container that the runtime does not know: not yet,
// or no longer.
func (v statuses) unborn(c *corev1.Container, before corev1.ContainerStatus, init bool) corev1.ContainerStatus {
	if before.State.Terminated != nil {
		return before
	}
	no := false
	if v.ending && before.State.Running != nil {
		before.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ExitCode: 137, Reason: "ContainerStatusUnknown", ContainerID: before.ContainerID, StartedAt: before.State.Running.StartedAt,
			Message: "The container could not be located when the pod was terminated",
		}}
		before.Ready, before.Started = false, &no
		return before
	}
	s := corev1.ContainerStatus{Name: c.Name, Image: c.Image, RestartCount: before.RestartCount, LastTerminationState: before.LastTerminationState, Started: &no}
	reason, message := "ContainerCreating", ""
	if !init && len(v.want.Spec.InitContainers) > 0 && !v.initialized() || init {
		reason = "PodInitializing"
	}
	if wait, waiting := v.waiting(c.Name); waiting {
		reason, message = wait.Reason, wait.Message
	}
	s.State.Waiting = &corev1.ContainerStateWaiting{Reason: reason, Message: message}
	return s
}

func (v statuses) initialized() bool {
	for i := range v.want.Spec.InitContainers {
		c := &v.want.Spec.InitContainers[i]
		last := v.have.Newest(c.Name)
		if last == nil || IsSidecar(c) && !v.have.health(c, last).Started || !IsSidecar(c) && (last.State != Exited || last.ExitCode != 0) {
			return false
		}
	}
	return true
}

// ContainerID is a container's id as statuses write it.
func ContainerID(id string) string { return "containerd://" + id }

func stateFrom(c *Container) corev1.ContainerState {
	switch c.State {
	case Running:
		return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(c.StartedAt.Truncate(time.Second))}}
	case Exited:
		t := &corev1.ContainerStateTerminated{
			ExitCode: c.ExitCode, Reason: c.Reason, Message: c.Message, ContainerID: ContainerID(c.ID),
			StartedAt: metav1.NewTime(c.StartedAt.Truncate(time.Second)), FinishedAt: metav1.NewTime(c.FinishedAt.Truncate(time.Second)),
		}
		switch {
		case t.Reason != "":
		case t.ExitCode == 0:
			t.Reason = "Completed"
		default:
			t.Reason = "Error"
		}
		return corev1.ContainerState{Terminated: t}
	}
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}
}

// phase sums up container states. over says that nothing will run any more.
func phase(want *corev1.Pod, s *corev1.PodStatus, over bool) corev1.PodPhase {
	for i, st := range s.InitContainerStatuses {
		c := &want.Spec.InitContainers[i]
		done := st.State.Terminated
		switch {
		case IsSidecar(c):
			if st.State.Running == nil && done == nil && st.LastTerminationState.Terminated == nil && !over {
				return corev1.PodPending
			}
		case done != nil && done.ExitCode == 0:
		case over, done != nil && want.Spec.RestartPolicy == corev1.RestartPolicyNever:
			return corev1.PodFailed
		default:
			return corev1.PodPending
		}
	}
	running, waiting, stopped, succeeded, willRun := 0, 0, 0, 0, false
	for i, st := range s.ContainerStatuses {
		done := st.State.Terminated
		if done == nil && st.State.Waiting != nil {
			done = st.LastTerminationState.Terminated
		}
		switch {
		case st.State.Running != nil:
			running++
		case done == nil:
			waiting++
		default:
			stopped++
			if done.ExitCode == 0 {
				succeeded++
			}
			willRun = willRun || again(policyOf(want, &want.Spec.Containers[i]), &Container{ExitCode: done.ExitCode})
		}
	}
	switch {
	case over && stopped > 0 && waiting == 0 && stopped == succeeded:
		return corev1.PodSucceeded
	case over:
		return corev1.PodFailed
	case waiting > 0:
		return corev1.PodPending
	case running > 0 || willRun || sidecarsRun(want, s):
		return corev1.PodRunning
	case stopped > 0 && stopped == succeeded:
		return corev1.PodSucceeded
	case stopped > 0:
		return corev1.PodFailed
	}
	return corev1.PodPending
}

// sidecarsRun says whether a pod whose containers are done still has to stop
// its sidecars.
func sidecarsRun(want *corev1.Pod, s *corev1.PodStatus) bool {
	for i, st := range s.InitContainerStatuses {
		if IsSidecar(&want.Spec.InitContainers[i]) && st.State.Running != nil {
			return true
		}
	}
	return false
}

func conditions(want *corev1.Pod, s *corev1.PodStatus, have *Observed, now time.Time) {
	done := s.Phase == corev1.PodSucceeded
	set := func(t corev1.PodConditionType, ok bool, reason, message string) {
		status := corev1.ConditionFalse
		if ok {
			status, reason, message = corev1.ConditionTrue, "", ""
		}
		if done && reason == "" && t != corev1.PodReadyToStartContainers && t != corev1.PodScheduled {
			reason = "PodCompleted"
		}
		setCondition(s, corev1.PodCondition{Type: t, Status: status, Reason: reason, Message: message, ObservedGeneration: want.Generation}, now)
	}
	set(corev1.PodScheduled, true, "", "")
	set(corev1.PodReadyToStartContainers, have.Sandbox() != nil, "", "")

	var pending []string
	for i, st := range s.InitContainerStatuses {
		c := &want.Spec.InitContainers[i]
		ok := st.Ready || IsSidecar(c) && st.Started != nil && *st.Started || IsSidecar(c) && st.RestartCount > 0
		if !ok {
			pending = append(pending, c.Name)
		}
	}
	set(corev1.PodInitialized, len(pending) == 0 || done, "ContainersNotInitialized", fmt.Sprintf("containers with incomplete status: [%s]", strings.Join(pending, " ")))

	var unready []string
	for i, st := range s.InitContainerStatuses {
		if IsSidecar(&want.Spec.InitContainers[i]) && !st.Ready {
			unready = append(unready, st.Name)
		}
	}
	for _, st := range s.ContainerStatuses {
		if !st.Ready {
			unready = append(unready, st.Name)
		}
	}
	why, message := "ContainersNotReady", fmt.Sprintf("containers with unready status: [%s]", strings.Join(unready, " "))
	switch s.Phase {
	case corev1.PodSucceeded:
		why, message = "PodCompleted", ""
	case corev1.PodFailed:
		why, message = "PodFailed", ""
	}
	ready := len(unready) == 0 && s.Phase == corev1.PodRunning
	set(corev1.ContainersReady, ready, why, message)
	for _, gate := range want.Spec.ReadinessGates {
		n := slices.IndexFunc(s.Conditions, func(c corev1.PodCondition) bool { return c.Type == gate.ConditionType })
		if ready && (n < 0 || s.Conditions[n].Status != corev1.ConditionTrue) {
			ready, why, message = false, "ReadinessGatesNotReady", fmt.Sprintf("condition %q of a readiness gate is not true", gate.ConditionType)
		}
	}
	set(corev1.PodReady, ready, why, message)
}

func setCondition(s *corev1.PodStatus, c corev1.PodCondition, now time.Time) {
	c.LastTransitionTime = metav1.NewTime(now.Truncate(time.Second))
	for i := range s.Conditions {
		if old := &s.Conditions[i]; old.Type == c.Type {
			if old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
			}
			c.LastProbeTime = old.LastProbeTime
			*old = c
			return
		}
	}
	s.Conditions = append(s.Conditions, c)
}

func resourcesStatus(c *corev1.Container) *corev1.ResourceRequirements {
	if len(c.Resources.Limits) == 0 && len(c.Resources.Requests) == 0 {
		return &corev1.ResourceRequirements{}
	}
	return &corev1.ResourceRequirements{Limits: c.Resources.Limits, Requests: c.Resources.Requests}
}

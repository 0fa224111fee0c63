// Package pod knows the life of one pod on a node. Everything in it is a
// function of its arguments: no clock, no runtime, no API.
//
// Next says what to do now, from what is wanted (the object), what is there
// (Observed) and the time. Status says what the object's status should read.
// SandboxConfig and ContainerConfig translate a pod into the runtime's words.
//
// It never talks to the runtime: package agent observes, calls Next, carries
// out the steps and calls Next again. A step that takes long is known as Busy,
// so the same step is not asked for twice.
//
// All that must outlive the agent is in labels and annotations of sandboxes and
// containers (names as kubelet's, so that crictl and log shippers know them) and
// in D/pods/<uid>.
//
// Start reading at Next in decide.go, then Observed in observed.go.
package pod

// Package runtime speaks to the container runtime of this node, and only over
// the Container Runtime Interface on a unix socket: the embedded containerd of
// the runtime role, or any external endpoint that serves CRI v1.
//
// It owns the deadlines, the retry rule and the error kinds of those calls. It
// never decides what should run (agent/pod does) and links no runtime: the
// embedded containerd lives in the subpackage containerd, the helper programs
// in bundle. The subpackage runtimetest holds the contract that every runtime
// must pass, and an in-memory runtime that passes it.
//
//	rt, err := runtime.New(runtime.Config{Endpoint: "/…/run/runtime.sock"}, log, reg)
//	err = rt.WaitReady(ctx)        // until ctx ends; nil once Status says ready
//	id, err := rt.RunPodSandbox(ctx, config, "")
//	errors.Is(err, runtime.ErrNotFound), runtime.ErrUnavailable, …
//	err = rt.Events(ctx, func(e *cri.ContainerEventResponse) {…}) // until the stream breaks
//
// Cleanup ends everything that runs for a cluster, with or without its runtime;
// log.go says who writes the containers' logs.
//
// Start reading at Service in service.go, then client.go.
package runtime

// Package agent is a node's loop: it keeps the pods that the API binds to this
// node, and tells the API how they and the node are.
//
// Each pod has one worker, which observes the runtime, calls pod.Next, and runs
// the steps as operations of its own; a slow one never holds up the others. The
// worker is the only writer of its pod's status. What an agent must know after
// a restart it reads from the runtime and D/pods/<uid>/pod.json, so containers
// outlive it, and go on being restarted and probed while the API is away.
//
// It never decides (agent/pod does), never touches a network (the runtime's CNI
// does), and removes what the API does not know only after a complete list.
//
//	a, err := agent.New(cfg, agent.Parts{…}, log, reg)
//	group.Go("agent", a.Run)
//	a.Pods(); a.Node(); a.Stop(uid, pod.Stop{…})
//
// Limits: maxStarts containers and maxBoxes sandboxes start at the same
// time, others wait; one patch
// of a pod's status is under way at a time, the newest wins.
//
// Start reading at Run in run.go, then look in worker.go, then act.go.
package agent

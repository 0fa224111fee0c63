// Package door is the node's HTTPS door: the kubelet API that API servers,
// kubectl and Prometheus know, on :10250.
//
// It owns the listener, authentication and authorization of every request but
// /healthz, and the streams of logs, exec, attach and port-forward. It never
// makes numbers: /metrics… and /stats/summary are handlers given from outside,
// as is everything in Parts.Handlers.
//
//	d, err := door.New(door.Config{Listen: ":10250", Node: name, …}, door.Parts{…}, log, reg) // opens the listener
//	group.Go("door", d.Run)
//	auth := door.Reviews(api, name) // Parts.Authenticate and Parts.Authorize by asking the API
//
// Limits: Config.Streams long-lived requests at the same time, more get 429.
// Config.Crowd bounds connections. Before it is known that its sender may send it, a
// request has 30 s to arrive. A caller's address has two tokens reviewed at once, others wait, then get 503.
//
// Start reading at routes in door.go.
package door

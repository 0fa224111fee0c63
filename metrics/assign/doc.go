// Package assign lets every node scrape what objects ask for on it, without
// reading these objects: the server plans for all nodes (Desk) and each node asks
// for its own part, with the credentials of its own targets only (Client). In the
// same request the node tells how its targets are.
//
// A request waits at the desk until the node's part changes, Hold at most. A node
// that cannot ask goes on with what it has; nothing of it is written to disk. The
// desk never decides what is a target; that is metrics/target.
//
//	d, err := assign.NewDesk(cfg, parts, log, reg)     on a server
//	g.Go("targets", d.Run)
//	mux.Handle("POST /perch/v1/targets", d)            for nodes only
//
// Start reading at Run in desk.go.
package assign

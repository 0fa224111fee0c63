// Package nodelife turns heartbeats into node conditions, conditions into taints,
// and taints into moved pods.
//
// It owns the conditions of nodes that fell silent (status Unknown), the taints
// node.kubernetes.io/*, and the deletion of pods whose toleration has run out. It
// never decides on one server's clock against a node's: a heartbeat counts from
// the moment its change was seen here.
//
//	n, err := nodelife.New(nodelife.Default(), client, informers, recorder.Tell, log, reg)
//	group.Go("nodelife", n.Run)
//
// Heartbeats are Leases in kube-node-lease (renewed by agents every 10 s) or a
// newer Ready condition. When every node is silent at once the control plane is
// the suspect: conditions say so, but nothing is evicted.
//
// Start reading at Run in run.go; the decisions are in decide.go.
package nodelife

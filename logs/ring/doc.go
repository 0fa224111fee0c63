// Package ring knows which nodes keep logs, and where the copy of a node's log
// store belongs.
//
//	New(cfg, log, reg) → *Ring; Run(ctx) joins the others and stays;
//	Followers(node) names the healthy nodes in the order in which they are to
//	keep the copy of node; Members lists all, for people.
//
// It is grafana/dskit's hash ring, gossiped by memberlist: each node is an
// instance with a few tokens; the followers of a node are the instances met
// first from the hash of its name on. It holds no data and decides nothing about
// copies: logs/replica does.
//
// Gossip goes over TCP with TLS: both sides show the serving certificate of a node
// of the cluster's CA, and a node proves that it belongs to the cluster by
// Config.Secret, which is the label of every message within TLS; others are not
// listened to.
//
// The library asks nobody for a certificate and reads packets without a limit, so
// it listens on loopback, behind a gate on the port that does (gate.go). Processes
// in the network of this machine itself can pass by the gate.
//
// Nodes can be in further sets, which are gossiped the same way: who keeps series
// for others tells it here, for who asks by Set.
//
// A node that is silent for Config.Timeout is not healthy, after Config.Forget it
// is forgotten. Tokens are kept in a file, so that a node comes back to its place.
//
// Start reading at Run in run.go.
package ring

// Package node owns what a node's agent may do at the API server: see the pods
// bound to it and what they refer to, tell its own state and theirs, and what
// every node needs to run its network. It narrows reads; auth/admission's
// NodeRestriction narrows writes, because only there the objects are known.
//
// It never denies: what it does not allow, RBAC may. Its answers come from the
// pods indexed by node; there is no graph to keep.
//
//	nodes, err := node.New(informers)     before the informers start
//
// Start reading at Decide in decide.go.
package node

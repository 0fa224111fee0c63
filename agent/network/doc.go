// Package network makes a node part of the pod network: it configures the CNI
// plugin, gives the node its gateway address, routes to the other nodes' pods,
// masquerades what leaves the cluster, and opens a firewall that would drop
// forwarded packets.
//
// It owns the file Dir/net.d/10-perch.conflist, the gateway address and the
// service route on lo, routes with protocol 112 inside the cluster's CIDRs, the
// table "inet perch-<cluster>", rules commented perch-<cluster> in other
// tables' forward chains, and the sysctls named in state.go. agent/proxy owns
// "ip perch-<cluster>"; the links and addresses of pods belong to package cni.
//
// It never undoes anything when it stops: pods go on while the agent restarts.
// Cleanup undoes everything and needs no agent. All steps may be repeated after
// a kill at any point.
//
// Not here yet: VXLAN between nodes of different subnets (condition
// PeersRouted says which), IPv6, firewalls made by iptables-legacy (condition
// FirewallOpen says so), firewalls that close the input of the node itself.
//
// Run keeps to the thread of its caller, so that tests can run it in a network
// namespace. Start reading at Run in run.go.
package network

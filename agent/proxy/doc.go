// Package proxy serves all Services of the cluster on one node: a packet to a
// Service's address is sent to one of its endpoints by the kernel, found in one
// nftables map.
//
// It owns the table "ip perch-<cluster>" and, within it, everything. It never
// touches a packet itself, never makes a link, route or address (agent/network
// does), and never flushes at the end: Services go on while the agent restarts,
// and the next agent compares with what the kernel has and writes the rest.
//
// The map: address · protocol · port · slot → endpoint. A rule draws the slot
// number; every endpoint holds an even share of the slots. There are four maps
// of 1, 12, 60 and 840 slots, so that a Service with one endpoint costs one
// element and one with many is still even. Address 0.0.0.0 stands for "any
// address of the node" (NodePorts, host ports).
//
// Around it: sets for what has no endpoint (answered with a reset), for client
// affinity, for "only local endpoints" and for hairpin masquerade.
//
// Not here yet: IPv6, loadBalancerSourceRanges (such a load balancer address is
// not served at all), healthCheckNodePort, topology hints, NodePorts on
// 127.0.0.1, affinity of outside clients under the external policy Local. SCTP
// entries are written; the traffic is untested.
//
// A Source gives snapshots; Decide turns one into a Plan; encode turns that into
// elements; Run writes the difference. Start reading at Run in run.go.
package proxy

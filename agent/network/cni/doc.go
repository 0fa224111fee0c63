// Package cni is perch's CNI plugin: a routed veth pair for each pod and the
// pod's address. It is linked into the small helper binary, so it speaks
// netlink only and imports nothing of Kubernetes.
//
// It owns the links pc<hash> (alias perch-<cluster>/<sandbox>), the routes to
// the pods' addresses, and the address files below StateDir/<network>/.
//
// It never makes a bridge, never talks to the API server, never touches
// nftables and keeps no process: every call starts from what the kernel and the
// address files say, so that a call that was killed can be repeated.
//
// The gateway is the first address of the pod CIDR. agent/network puts it on
// lo; a pod reaches it over its veth by a permanent neighbour, so no ARP is
// exchanged at all. Host ports are not mapped here: agent/proxy does it from
// the pods' specs, with the same map that serves Services.
//
// The helper calls Main when CNI_COMMAND is set in its environment.
// agent/network writes the configuration with Conflist and calls Collect.
//
// Start reading at add in attach.go.
package cni

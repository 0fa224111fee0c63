// Package component shares out the series of a role's registry among the jobs
// they have in a cluster of separate programs: kubelet, kube-proxy, coredns,
// kube-scheduler, kube-controller-manager. Rules and dashboards made for such
// clusters select by job, and alert when a job is absent.
//
//	Agent, Server    which components a role is
//	Handlers         a path for each, with its series as text
//	Count            a client whose requests count as rest_client_* of a component
//
// One process does the work of several components, so what tells of the process
// (Shared) appears under each of their jobs, with the same value; summing it over
// jobs counts it more than once.
//
// Start reading at component.go.
package component

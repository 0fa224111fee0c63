// Package resource answers metrics.k8s.io/v1beta1 from PromQL, so that kubectl
// top and clients of metrics-server work.
//
// It holds no numbers: each request asks the query function, with the node or
// pod objects deciding what is listed. It never writes.
//
// Wiring in the API server (types are external; the scheme needs
// k8s.io/metrics/pkg/apis/metrics/v1beta1's AddToScheme):
//
//	map[string]rest.Storage{"pods": resource.NewPods(src), "nodes": resource.NewNodes(src)}
//
// Start reading at List in pods.go.
package resource

// Package dashboard holds the dashboards that perch ships: nodes, pods,
// workloads, control plane, network, storage, logs, and perch itself.
//
// It owns their content (content/*.yaml, short forms of our own) and writes
// them in Grafana's JSON format, so that perch's page and a Grafana show the
// same. It does not know how they get into the cluster: cmd/perch/daemon keeps
// them as ConfigMaps that people edit.
//
// Every query must have an answer on a healthy cluster; what counts faults
// answers 0. cmd/perch/e2e/quiet asks each of them.
//
// Start reading at Shipped in dashboard.go; Grafana's shapes are in grafana.go.
package dashboard

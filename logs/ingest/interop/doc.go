// Package interop proves the doors with clients that perch did not write:
// Fluent's, Grafana Loki's, Elasticsearch's and OpenTelemetry's for Node.js,
// rsyslog, syslog-ng and fluent-logger for Python.
//
// It holds tests only. They skip when a client is not installed; `make
// interop-logs` installs all of them below out/interop and runs the tests.
// Start reading at TestClients in interop_test.go.
package interop

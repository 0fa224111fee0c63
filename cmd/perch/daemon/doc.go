// Package daemon composes the roles of a machine: server, telemetry, agent and
// runtime, and the supervisor that keeps them running. It is the only package
// that knows all the others and the only place where order is decided.
//
// It owns no domain rule. Each role is one build function in role_NAME.go, read
// from top to bottom; what the parts need of each other is joined there by
// small functions or HTTP over unix sockets.
//
// Start reading at Commands in commands.go, then at buildServer, buildAgent,
// buildTelemetry and buildRuntime.
package daemon

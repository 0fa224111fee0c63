// Package route takes alerts from the rules to their receivers with
// Alertmanager's own packages: grouping, inhibition, silences, timing,
// notification log and receivers. A configuration file of Alertmanager works
// as it is.
//
// It owns silences, notification log, known alerts and the configuration in
// force (files in Config.Dir) and never decides whether an alert fires. One difference from Alertmanager: where
// a configuration leaves group_wait and group_interval out, a first notification
// goes out at once and a change or an end within promptInterval, because a small
// cluster has no storm to wait for; written values are honoured.
//
// Receivers of namespaces (Merge) do not connect to what only this machine may reach
// (dial.go).
//
// Invariants: a change of silences is answered when it is on disk; what was told
// is known after a crash except for the last second, which is told again; the
// end of an alert is told even when it comes while the process is down. A file
// that cannot be read is moved aside. A configuration that does not load leaves
// the one before in force.
//
// Apply may be called at any time from one goroutine; Receive from any.
//
// Start reading at Apply in route.go; files are keep.go.
package route

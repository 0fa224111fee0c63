// Package route takes alerts from the rules to their receivers with
// Alertmanager's own packages: grouping, inhibition, silences, timing,
// notification log and receivers. A configuration file of Alertmanager works
// as it is.
//
// It owns the notification log and the silences (files in Config.Dir) and never
// decides whether an alert fires. One difference from Alertmanager: where a
// configuration leaves group_wait and group_interval out, a first notification
// goes out at once and a change or its end within promptInterval (half a second), because a small cluster
// has no storm to wait for; written values are honoured.
//
// A configuration that does not load leaves the one before in force.
// Apply may be called at any time from one goroutine; Receive from any.
//
// Start reading at Apply in route.go.
package route

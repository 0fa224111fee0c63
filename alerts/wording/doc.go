// Package wording tells whether a template that a namespace wrote may be run in the
// process that all namespaces share: templates of alerts, in Prometheus' words, and of
// notifications, in Alertmanager's. Both libraries run a template to its end, however
// long that takes and whatever it holds meanwhile, and nothing can stop one.
//
// A template is read, never run: what it may make is reckoned from its text, for as
// many series, alerts and labels as stand in bounds.go, and one that may make more
// than its limit is refused, as is all whose end is not known: range over anything but
// results of queries, alerts and labels, templates of its own, widths of printf that are
// not written there, functions that are not known here.
//
// Start reading at check in check.go; what functions make is calls.go.
package wording

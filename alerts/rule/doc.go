// Package rule evaluates recording and alerting rules in Prometheus' format
// with Prometheus' own rules package: rules shipped with perch, files of a
// watched directory, and PrometheusRule objects.
//
// It owns which groups are loaded and when they are evaluated: at their
// interval, and those that read the state of objects also as soon as the caller
// says Changed (prompt.go). It never stores samples and never sends anything
// itself: queries, appends and alerts go through what New is given. A source
// that does not parse is left out and named (log, metric, Problems);
// everything else keeps working.
//
// An alert whose rule is deleted, or renamed by its labels, has ended and that is told
// (gone.go); one whose source has become unreadable goes on for a while.
//
// Outside writes the series ALERTS for alerts that no rule makes, by what it is given,
// too.
//
// Start reading at Run in rule.go; the merge of sources is decide.go.
package rule

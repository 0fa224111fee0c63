// Package rule evaluates recording and alerting rules in Prometheus' format
// with Prometheus' own rules package: rules shipped with perch, files of a
// watched directory, and PrometheusRule objects.
//
// It owns which groups are loaded. It never stores samples and never sends
// anything itself: queries, appends and alerts go through what New is given. A
// group that does not parse is left out and named (log, metric, Problems);
// everything else keeps working.
//
// Start reading at Run in rule.go; the merge of sources is decide.go.
package rule

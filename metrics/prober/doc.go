// Package prober asks addresses from the outside and answers with series, as a
// blackbox exporter does and under its names: http, tcp (with or without TLS),
// icmp and dns. One GET /probe?target=…&module=… is one question; probe_success
// says how it went. It is behind Probe objects that name no prober of their own.
//
// It connects only where Config.Open lets it: who may write a Probe must not
// reach what only this machine may. It keeps nothing between two questions.
//
// Start reading at ServeHTTP in run.go.
package prober

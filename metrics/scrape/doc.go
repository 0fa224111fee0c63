// Package scrape turns targets into samples: over HTTP by Prometheus' scrape
// package, and from registries of this process without text in between.
//
// New targets are looked at twice within their first four seconds, then at the
// interval. Every target has limits; one that breaks them is down with the
// reason and loses nothing of the others. It never decides what a pod's target
// is; that is metrics/target. A file in Prometheus' format may add jobs of its own,
// see file.go.
//
// Wiring:
//
//	l, err := scrape.New(cfg, scrape.Parts{Into: store, Objects: …, Inlet: …}, log, reg)
//	g.Go("scrape", l.Run)
//	promapi.Parts{Targets: l}           // /api/v1/targets
//	l.List()                            // with what is left out and why, for GET /prometheus/perch/v1/targets
//
// Start reading at Run in run.go.
package scrape

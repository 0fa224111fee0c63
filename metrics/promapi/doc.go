// Package promapi answers PromQL: the engine with its limits and the
// Prometheus HTTP API over the metrics store.
//
// It owns who may see which series (Access is enforced below the engine, at
// every selector, so subqueries, series, labels, remote read and federation
// cannot go around it) and that a partial answer says so (Missing becomes a
// warning of every answer). It never authenticates: the caller puts the Access
// of the authenticated user into the context by WithAccess; without it nothing
// is visible.
//
// Wiring:
//
//	api, err := promapi.New(cfg, promapi.Parts{Store: s, Missing: …}, log, reg)
//	mux.Handle("/prometheus/", http.StripPrefix("/prometheus", withUser(api)))
//	vector, warnings, err := api.Instant(promapi.WithAccess(ctx, promapi.Everything()), expr, at)
//	rules ask by Instant too, so that they hear of partial answers
//
// Paths served: /api/v1/* as in Prometheus (admin endpoints off) and /federate.
//
// A selector with ring="1s" also reads the seconds that nodes keep of their
// containers for ten minutes, see Seconds.
//
// Start reading at New in api.go, then guard.go.
package promapi

// Command perch-demo is the application that `make demo` runs on a fresh
// cluster: a small shop that logs, counts, uses CPU, and crashes on request.
//
//	perch-demo web       the shop: /order, /crash, /healthz, /metrics on :8080
//	perch-demo load      customers: -rate orders a second at -target
//	perch-demo receive   an alert receiver: POST / takes webhooks, GET / lists them
//
// and, for tests: count (numbered lines), eat (memory), burn (CPU), get and post
// (a URL).
//
// It uses nothing of perch. Start reading at main.
package main

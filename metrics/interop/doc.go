// Package interop tries the metrics doors with Prometheus' own servers: that of
// the pinned module and Debian's, which is years older. They send to perch and
// receive from it by remote write, and answer the same queries on the same
// blocks, with the same numbers and at what cost.
//
// `make interop-metrics` builds them and runs the tests; elsewhere the tests
// that need them skip. Start reading at interop_test.go.
package interop
